/*
 * Bytes as the body of an answer. Of BTF the store has zstd, so who takes zstd gets the stored bytes; others get gzip
 * or the raw bytes. The ETag is the SHA-256 of the raw bytes, for an encoded form with `-zstd` or `-gzip` behind it.
 * Ranges are of the raw bytes (RFC 9110, 8.8.3, 12.5.3, 14).
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Body } from '../cache/body-cache.ts'
import {
  BTF_TYPE,
  type BtfSelector,
  ENCODINGS,
  type Encoding,
  encode,
  isAsStored,
  keyOf,
} from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from './context.ts'

export interface BtfAnswer {
  cacheControl: string
  /** raw bytes, where it is known; of large BTF a client may be sent elsewhere for them */
  size?: number
}

/** Answers with BTF, as the request's headers ask. Errors: those of `Bodies.get`, `invalid_range`. */
export async function sendBtf(
  { bodies, responseCache, redirects }: Pick<Context, 'bodies' | 'responseCache' | 'redirects'>,
  request: FastifyRequest,
  reply: FastifyReply,
  wanted: BtfSelector,
  { cacheControl, size = 0 }: BtfAnswer,
): Promise<FastifyReply> {
  const encoding = request.headers.range
    ? 'identity'
    : negotiate(request.headers['accept-encoding'])
  reply.header('vary', 'accept-encoding')
  const tagged = (sha256: string) => ({ etag: etagOf(sha256, encoding), cacheControl })
  const key = keyOf(wanted, encoding)
  if (isAsStored(wanted) && isKnown(request, etagOf(wanted.sha256, encoding))) {
    sendKnown(reply, tagged(wanted.sha256))
    responseCache.set(request, reply, key)
    return reply
  }
  if (redirects && size > redirects.above && encoding === 'zstd' && isAsStored(wanted))
    return reply
      .header('etag', etagOf(wanted.sha256, encoding))
      .header('cache-control', 'no-store') // the address is good for a while only
      .redirect(await redirects.toBlob(wanted.sha256), 307)
  const { bytes, sha256 } = await bodies.get(wanted, encoding)
  if (encoding !== 'identity') reply.header('content-encoding', encoding)
  sendBytes(request, reply, bytes, { ...tagged(sha256), type: BTF_TYPE })
  responseCache.set(request, reply, key)
  return reply
}

/** Answers with BTF that was made for this request, in the encoding that its client likes best. */
export async function sendMade(
  request: FastifyRequest,
  reply: FastifyReply,
  { bytes, sha256 }: Body,
): Promise<FastifyReply> {
  const encoding = negotiate(request.headers['accept-encoding'])
  if (encoding !== 'identity') reply.header('content-encoding', encoding)
  return reply
    .headers({
      etag: etagOf(sha256, encoding),
      vary: 'accept-encoding',
      'cache-control': 'no-store',
    })
    .type(BTF_TYPE)
    .send(await encode(bytes, encoding))
}

interface Tagged {
  etag: string
  cacheControl: string
}

/** Answers with bytes, or a range of those that are not encoded, or with 304. Errors: `invalid_range`. */
export function sendBytes(
  request: FastifyRequest,
  reply: FastifyReply,
  bytes: Buffer,
  { type, ...tagged }: Tagged & { type: string },
): FastifyReply {
  if (isKnown(request, tagged.etag)) return sendKnown(reply, tagged)
  const range = rangeOf(request, tagged.etag, bytes.length)
  if (range === 'unsatisfiable') {
    reply.removeHeader('vary').header('content-range', `bytes */${bytes.length}`)
    throw new ServiceError('invalid_range', `the body has ${bytes.length} bytes`)
  }
  describe(reply, tagged).type(type)
  if (!range) return reply.send(bytes)
  const { start, end } = range
  reply.code(206).header('content-range', `bytes ${start}-${end}/${bytes.length}`)
  return reply.send(bytes.subarray(start, end + 1))
}

/** What every answer at an address says. */
const OF_ANY = new Set(['vary', 'content-location'])

/** A 304 says what may be new, and nothing of a body that its client has with all its headers (RFC 9110, 15.4.5). */
function sendKnown(reply: FastifyReply, { etag, cacheControl }: Tagged): FastifyReply {
  for (const name of Object.keys(reply.getHeaders()))
    if (!OF_ANY.has(name)) reply.removeHeader(name)
  return reply.headers({ etag, 'cache-control': cacheControl }).code(304).send()
}

function describe(reply: FastifyReply, { etag, cacheControl }: Tagged): FastifyReply {
  return reply
    .header('etag', etag)
    .header('cache-control', cacheControl)
    .header('accept-ranges', 'bytes')
    .header('x-content-type-options', 'nosniff')
}

const etagOf = (sha256: string, encoding: Encoding): string =>
  encoding === 'identity' ? `"${sha256}"` : `"${sha256}-${encoding}"`

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
function isKnown({ headers }: FastifyRequest, etag: string): boolean {
  const header = headers['if-none-match']
  if (header === undefined) return false
  return header
    .split(',')
    .some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag)
}

/** The range that a request asks for, unless its If-Range names another body. */
function rangeOf({ headers }: FastifyRequest, etag: string, size: number): Range {
  const ifRange = headers['if-range']
  return ifRange === undefined || ifRange === etag ? parseRange(headers.range, size) : undefined
}

type Range = { start: number; end: number } | 'unsatisfiable' | undefined

/** One range of bytes. Several, or another unit, are passed over, as a server may. */
export function parseRange(header: string | undefined, size: number): Range {
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
