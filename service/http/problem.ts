/* Errors as `application/problem+json` (RFC 9457) with a `code`; the only place that maps a code to an HTTP status. */
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify'
import { BtfError } from '../../bpf/index.ts'
import { StoreError, type StoreErrorCode } from '../../storage/index.ts'
import { ServiceError, type ServiceErrorCode } from '../error.ts'

/** The HTTP status of each error code. */
export const STATUS = {
  pending: 202,
  invalid_request: 400,
  invalid_name: 400,
  unknown_kernel: 404,
  unknown_source: 404,
  unknown_blob: 404,
  unknown_type: 404,
  unknown_job: 404,
  not_found: 404,
  has_own_btf: 404,
  generation_failed: 404,
  unauthorized: 401,
  forbidden: 403,
  timeout: 408,
  ambiguous: 409,
  too_large: 413,
  uri_too_long: 414,
  unsupported_media_type: 415,
  invalid_range: 416,
  invalid_file: 422,
  invalid_object: 422,
  unsupported: 422,
  not_representable: 422,
  invalid_bundle: 422,
  too_complex: 422,
  quota_exceeded: 429,
  rate_limited: 429,
  headers_too_large: 431,
  invalid_list: 422,
  invalid_tokens: 500,
  internal: 500,
  busy: 503,
  upstream_failed: 502,
  unavailable: 503,
} as const satisfies Record<ServiceErrorCode, number>

/** Store errors that a client may wait for; every other store error is a bug. */
const STORE: Partial<Record<StoreErrorCode, ServiceErrorCode>> = {
  unreachable: 'unavailable',
  not_permitted: 'unavailable',
  unreadable: 'unavailable',
}

/** Codes for the errors of Fastify and its plugins, by status; any other 4xx is `invalid_request`. */
const FASTIFY: Partial<Record<number, ServiceErrorCode>> = {
  408: 'timeout',
  413: 'too_large',
  414: 'uri_too_long',
  415: 'unsupported_media_type',
  429: 'rate_limited',
}

/** Codes for the errors of Node's HTTP parser. */
const PARSER: Partial<Record<string, ServiceErrorCode>> = {
  HPE_HEADER_OVERFLOW: 'headers_too_large',
  ERR_HTTP_REQUEST_TIMEOUT: 'timeout',
}

export const PROBLEM_TYPE = 'application/problem+json'
const PARSER_DETAIL = 'the HTTP request could not be read'
const RETRY_AFTER_SECONDS = 5

/** Sends every error of an app as a problem document; the details of a bug are logged, not sent. */
export function registerProblems(app: FastifyInstance): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const problem = toServiceError(error)
    if (STATUS[problem.code] >= 500) request.log.error(error)
    if (STATUS[problem.code] >= 400) reply.header('x-request-id', request.id)
    return sendProblem(reply, problem)
  })
  app.setNotFoundHandler((request, reply) =>
    sendProblem(
      reply,
      new ServiceError('not_found', `no route for ${request.method} ${pathOf(request.url)}`),
    ),
  )
}

/** Characters of a path that an error quotes. */
const MAX_PATH = 200

/** The path of a URL, without its query. */
const pathOf = (url: string): string => url.split('?', 1)[0]!.slice(0, MAX_PATH)

/** What a client is told of an error. */
export function toServiceError(error: FastifyError): ServiceError {
  if (error instanceof ServiceError) return error
  if (error instanceof StoreError) {
    const code = STORE[error.code] ?? 'internal'
    return new ServiceError(
      code,
      code === 'unavailable' ? 'the store does not answer' : 'internal error',
    )
  }
  if (error instanceof BtfError)
    return new ServiceError('invalid_object', error.message, { details: { reason: error.code } })
  const status = error.statusCode ?? 500
  if (status >= 400 && status < 500)
    return new ServiceError(FASTIFY[status] ?? 'invalid_request', error.message)
  return new ServiceError('internal', 'internal error')
}

/** Sends a problem document; `details.retryAfter` is in seconds, with a default where a retry may help. */
export function sendProblem(reply: FastifyReply, problem: ServiceError): FastifyReply {
  const { status, retryAfter, ...document } = documentOf(problem)
  if (retryAfter !== undefined) reply.header('retry-after', retryAfter)
  return reply
    .code(status)
    .header('cache-control', 'no-store')
    .type(PROBLEM_TYPE)
    .serializer(JSON.stringify)
    .send({ status, ...document })
}

/** Responds to a request that cannot be parsed, and closes its connection, which may carry endless garbage. */
export function sendParserError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  const code = PARSER[error.code ?? ''] ?? 'invalid_request'
  const { status, ...document } = documentOf(new ServiceError(code, PARSER_DETAIL))
  const body = JSON.stringify({ status, ...document })
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    `content-type: ${PROBLEM_TYPE}`,
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy())
}

function documentOf({ code, message, details: { retryAfter, ...details } }: ServiceError) {
  const status = STATUS[code]
  return {
    type: 'about:blank',
    title: code.replaceAll('_', ' '),
    status,
    code,
    detail: message,
    retryAfter:
      retryAfter ??
      (status === 502 || status === 503 || status === 202 ? RETRY_AFTER_SECONDS : undefined),
    ...details,
  }
}
