/*
 * The request log: one line per request when its response is finished, with the request id. A client may choose the id;
 * error responses repeat it. URLs are logged as received, up to a maximum length.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { type FastifyReply, type FastifyRequest, LogController } from 'fastify'

const ID = /^[\w.:-]{1,64}$/
const MAX_URL = 512

const prefix = randomUUID().slice(0, 8)
let count = 0

/** The request id: the client's `x-request-id` if it is valid, or one that is unique across processes. */
export function requestId({ headers }: Pick<IncomingMessage, 'headers'>): string {
  const given = headers['x-request-id']
  if (typeof given === 'string' && ID.test(given)) return given
  count++
  return `${prefix}-${count.toString(36)}`
}

export class RequestLog extends LogController {
  override incomingRequest(): void {}

  /** Logs a request when its response has been sent, or could not be. */
  override requestCompleted(
    error: Error | null | undefined,
    request: FastifyRequest,
    reply: FastifyReply,
  ): void {
    if (this.isLogDisabled(request)) return
    const { method, url, ip, holder } = request
    const line = {
      method,
      url: url.length > MAX_URL ? url.slice(0, MAX_URL) : url,
      status: reply.statusCode,
      ip,
      ...(holder && { token: holder.name }),
      ...(error && { err: error }),
      ms: Math.round(reply.elapsedTime * 1000) / 1000,
    }
    reply.log[error ? 'error' : 'info'](line, error ? 'answer broken off' : 'answered')
  }
}
