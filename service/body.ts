/*
 * BTF as the body of an answer. The store has it as zstd, so who takes zstd gets the stored bytes; others get gzip or
 * the raw bytes. The ETag is the SHA-256 of the raw bytes, for an encoded form with `-zstd` or `-gzip` behind it.
 * Ranges are of the raw bytes (RFC 9110, 8.8.3, 12.5.3, 14).
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { type Bodies, ENCODINGS, type Encoding } from './bodies.ts'
import { ServiceError } from './error.ts'

export const BTF_TYPE = 'application/octet-stream'
export const IMMUTABLE = 'public, max-age=31536000, immutable'
export const SHORT = 'public, max-age=60'

export interface BlobAnswer {
  /** hex SHA-256 of the raw bytes */
  sha256: string
  cacheControl: string
}

/** Answers with a blob, as the request's headers ask. Errors: those of `Bodies.get`, `invalid_range`. */
export async function sendBlob(
  bodies: Bodies,
  request: FastifyRequest,
  reply: FastifyReply,
  { sha256, cacheControl }: BlobAnswer,
): Promise<FastifyReply> {
  const encoding = request.headers.range
    ? 'identity'
    : negotiate(request.headers['accept-encoding'])
  const etag = encoding === 'identity' ? `"${sha256}"` : `"${sha256}-${encoding}"`
  const known = matches(request.headers['if-none-match'], etag)
  const body = known ? undefined : await bodies.get(sha256, encoding)
  reply.headers({
    etag,
    vary: 'accept-encoding',
    'cache-control': cacheControl,
    'accept-ranges': 'bytes',
    'x-content-type-options': 'nosniff',
  })
  if (!body) return reply.code(304).send()
  reply.type(BTF_TYPE)
  if (encoding === 'identity') return sendRaw(request, reply, body.bytes, etag)
  return reply.header('content-encoding', encoding).send(body.bytes)
}

function sendRaw(
  request: FastifyRequest,
  reply: FastifyReply,
  raw: Buffer,
  etag: string,
): FastifyReply {
  const ifRange = request.headers['if-range']
  const range =
    ifRange === undefined || ifRange === etag
      ? parseRange(request.headers.range, raw.length)
      : undefined
  if (!range) return reply.send(raw)
  if (range === 'unsatisfiable') {
    reply.header('content-range', `bytes */${raw.length}`)
    throw new ServiceError('invalid_range', `the body has ${raw.length} bytes`)
  }
  const { start, end } = range
  reply.code(206).header('content-range', `bytes ${start}-${end}/${raw.length}`)
  return reply.send(raw.subarray(start, end + 1))
}

/** The encoding a client likes best of those we have; identity where it says nothing, or nothing we understand. */
export function negotiate(header: string | undefined): Encoding {
  if (header === undefined) return 'identity'
  const weights = new Map<string, number>()
  for (const part of header.toLowerCase().split(',')) {
    const [, name, q = '1'] = /^\s*([\w*-]+)\s*(?:;\s*q=(\d(?:\.\d{0,3})?)\s*)?$/.exec(part) ?? []
    if (name) weights.set(name, Number(q))
  }
  const weight = (name: Encoding) =>
    weights.get(name) ?? weights.get('*') ?? (name === 'identity' ? 0.001 : 0)
  const [best] = [...ENCODINGS].sort((a, b) => weight(b) - weight(a))
  return best && weight(best) > 0 ? best : 'identity'
}

/** Whether If-None-Match names this entity tag; weak comparison, as RFC 9110 has it for GET. */
function matches(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  return header
    .split(',')
    .some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag)
}

/** One range of bytes. Several, or another unit, are passed over, as a server may. */
export function parseRange(
  header: string | undefined,
  size: number,
): { start: number; end: number } | 'unsatisfiable' | undefined {
  const [, first, last] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? []
  if (first === undefined || last === undefined || (first === '' && last === '')) return undefined
  if (first === '') {
    const length = Math.min(Number(last), size)
    return length === 0 ? 'unsatisfiable' : { start: size - length, end: size - 1 }
  }
  const start = Number(first)
  const end = last === '' ? size - 1 : Math.min(Number(last), size - 1)
  if (last !== '' && Number(last) < start) return undefined
  return start >= size ? 'unsatisfiable' : { start, end }
}
