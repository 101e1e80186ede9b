/*
 * What is logged of requests: one line when the answer is out, with the request's id. A client may name the id; the
 * answer repeats it where something went wrong. An address is logged as it came, bounded.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { type FastifyReply, type FastifyRequest, LogController } from 'fastify'

const ID = /^[\w.:-]{1,64}$/
const MAX_URL = 512

const prefix = randomUUID().slice(0, 8)
let count = 0

/** The id that the client gave a request, else one that no other process gives. */
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
