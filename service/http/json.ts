/* JSON that is computed for a request: an ETag from its bytes, and 304 for a client that has it. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { sha256Of } from '../../storage/index.ts'
import { SHORT } from '../cache/btf-bodies.ts'
import { isKnown } from './send.ts'

/** Sends a value as JSON. */
export function sendJson(
  request: FastifyRequest,
  reply: FastifyReply,
  value: object,
): FastifyReply {
  const bytes = Buffer.from(JSON.stringify(value))
  const etag = `"${sha256Of(bytes)}"`
  reply.headers({ etag, 'cache-control': SHORT })
  if (isKnown(request, etag)) return reply.code(304).send()
  return reply.type('application/json; charset=utf-8').send(bytes)
}
