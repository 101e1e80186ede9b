/* Errors as `application/problem+json` (RFC 9457) with a `code`; the one place where a code becomes a status. */
import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify'
import { StoreError, type StoreErrorCode } from '../storage/index.ts'
import { ServiceError, type ServiceErrorCode } from './error.ts'

const STATUS = {
  bad_request: 400,
  invalid_name: 400,
  unknown_kernel: 404,
  unknown_blob: 404,
  not_found: 404,
  embedded: 404,
  failed: 404,
  ambiguous: 409,
  invalid_range: 416,
  internal: 500,
  unavailable: 503,
} as const satisfies Record<ServiceErrorCode, number>

/** What a failing store means to a client; every other code of a store is a defect of ours. */
const STORE: Partial<Record<StoreErrorCode, ServiceErrorCode>> = {
  unreachable: 'unavailable',
  not_permitted: 'unavailable',
}

const RETRY_AFTER_SECONDS = 5

/** Makes every error of an app a problem document; what is a defect is logged and not shown. */
export function registerProblems(app: FastifyInstance): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const problem = toServiceError(error)
    if (STATUS[problem.code] >= 500) request.log.error(error)
    return sendProblem(reply, problem)
  })
  app.setNotFoundHandler((request, reply) =>
    sendProblem(
      reply,
      new ServiceError('not_found', `there is no ${request.method} at this address`),
    ),
  )
}

function toServiceError(error: FastifyError): ServiceError {
  if (error instanceof ServiceError) return error
  if (error instanceof StoreError) {
    const code = STORE[error.code] ?? 'internal'
    return new ServiceError(
      code,
      code === 'unavailable' ? 'the store does not answer' : 'internal error',
    )
  }
  const status = error.statusCode ?? 500
  if (status >= 400 && status < 500) return new ServiceError('bad_request', error.message)
  return new ServiceError('internal', 'internal error')
}

/** Answers with a problem document. */
export function sendProblem(
  reply: FastifyReply,
  { code, message, details }: ServiceError,
): FastifyReply {
  const status = STATUS[code]
  if (status === 503) reply.header('retry-after', RETRY_AFTER_SECONDS)
  return reply
    .code(status)
    .header('cache-control', 'no-store')
    .type('application/problem+json')
    .serializer(JSON.stringify)
    .send({
      type: 'about:blank',
      title: code.replaceAll('_', ' '),
      status,
      code,
      detail: message,
      ...details,
    })
}
