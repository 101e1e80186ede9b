/*
 * What is logged of requests: one line when the answer is out, with the request's id. A client may name the id; the
 * answer repeats it where something went wrong. An address is logged as it came, bounded.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import {
  type FastifyBaseLogger,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify'

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

/** What a line says of an answer; `ms` are those it took. */
export interface AnswerLine {
  reqId?: string
  method: string
  url: string
  status: number
  ms: number
  ip: string
  /** the name of the token that it was for */
  token?: string
  err?: Error
}

/** Logs an answer that is out, wholly or not. */
export function logAnswer(log: FastifyBaseLogger, line: AnswerLine, whole: boolean): void {
  const url = line.url.length > MAX_URL ? line.url.slice(0, MAX_URL) : line.url
  const bounded = { ...line, url, ms: Math.round(line.ms * 1000) / 1000 }
  log[line.err ? 'error' : 'info'](bounded, whole ? 'answered' : 'answer broken off')
}

export class RequestLog extends LogController {
  override incomingRequest(): void {}

  override requestCompleted(
    error: Error | null | undefined,
    request: FastifyRequest,
    reply: FastifyReply,
  ): void {
    if (this.isLogDisabled(request)) return
    const { method, url, ip, holder } = request
    const line = {
      ...{ method, url, status: reply.statusCode, ms: reply.elapsedTime, ip },
      ...(holder && { token: holder.name }),
      ...(error && { err: error }),
    }
    logAnswer(reply.log, line, !error)
  }
}
