/*
 * Response bodies of bytes. The store holds BTF as zstd, so a client that accepts zstd gets the stored bytes; others get gzip
 * or raw bytes. The ETag is the SHA-256 of the raw bytes, with the suffix `-zstd` or `-gzip` for an encoded body. Ranges
 * apply to the raw bytes (RFC 9110, 8.8.3, 12.5.3, 14).
 */
import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, preHandlerAsyncHookHandler } from 'fastify'
import type { Body } from '../cache/body-cache.ts'
import {
  BTF_TYPE,
  type BtfSelector,
  ENCODINGS,
  type Encoding,
  encode,
  HEADER_TYPE,
  isAsStored,
  keyOf,
  SHORT,
} from '../cache/btf-bodies.ts'
import type { BtfDelta } from '../cache/deltas.ts'
import { DELTA_PARENT, DELTA_RESULT, DELTA_TYPE } from '../client/delta.ts'
import { ServiceError } from '../error.ts'
import type { Context } from './context.ts'
import type { CachedResponse } from './response-cache.ts'

/** How a response describes its body. */
interface Description {
  etag: string
  cacheControl: string
  /** media type */
  type: string
  /** headers of this route alone */
  headers?: Readonly<Record<string, string>>
}

export interface BtfAnswer extends Pick<Description, 'cacheControl' | 'headers'> {
  /** raw bytes, where known; clients may be redirected to the bucket for large BTF */
  size?: number
  /** digests of BTF that the client has: it takes a delta */
  have?: readonly string[]
}

/** The `preHandler` of routes that call `sendBtf`: replies from the response cache, or lets the handler run. */
export const sendFromCache =
  ({ responseCache }: Pick<Context, 'responseCache'>): preHandlerAsyncHookHandler =>
  async (request, reply) => {
    const cached = responseCache.find(request)
    if (!cached) return
    await requestsRead()
    return send(reply, cached)
  }

let reading: Promise<void> | undefined

/**
 * Resolves when all requests that have arrived are read, so that their responses go out together: to wake a waiting client
 * takes longer than to build its response, and a client on many connections is then woken once.
 */
function requestsRead(): Promise<void> {
  reading ??= new Promise((resolve) => {
    setImmediate(() => {
      reading = undefined
      resolve()
    })
  })
  return reading
}

/** What `sendBtf` uses of a context. */
type Sending = Pick<Context, 'bodies'> &
  Partial<Pick<Context, 'redirects' | 'deltas' | 'responseCache'>>

/**
 * Sends BTF as the request's headers ask, and keeps the response; a client that has other BTF may get a delta. Errors:
 * `invalid_range`; those of `Bodies.get`.
 */
export async function sendBtf(
  context: Sending,
  request: FastifyRequest,
  reply: FastifyReply,
  wanted: BtfSelector,
  { cacheControl, size = 0, headers = {}, have = [] }: BtfAnswer,
): Promise<FastifyReply> {
  const { bodies, redirects, deltas } = context
  if (have.length > 0 && isAsStored(wanted) && request.headers.range === undefined) {
    const delta = await deltas?.find(wanted.sha256, have)
    if (delta) return sendDelta(reply, wanted.sha256, delta, headers)
  }
  // whether there is a delta may change
  const responseCache = have.length > 0 ? undefined : context.responseCache
  const encoding = request.headers.range
    ? 'identity'
    : negotiate(request.headers['accept-encoding'])
  const describe = (sha256: string): Description => ({
    etag: etagOf(sha256, encoding),
    cacheControl,
    type: wanted.header ? `${HEADER_TYPE}; charset=utf-8` : BTF_TYPE,
    headers: { ...headers, vary: 'accept-encoding' },
  })
  const key = keyOf(wanted, encoding)
  if (isAsStored(wanted)) {
    const described = describe(wanted.sha256)
    if (isKnown(request, described.etag)) {
      const response = notModified(described)
      responseCache?.set(request, response, key)
      return send(reply, response)
    }
    const isLarge = redirects && size > redirects.above && encoding === 'zstd'
    if (isLarge && (await bodies.hasBlob(wanted.sha256)))
      return reply
        .headers({ ...described.headers, etag: described.etag })
        .header('cache-control', 'no-store') // the address expires
        .redirect(await redirects.toBlob(wanted.sha256), 307)
  }
  const { bytes, sha256 } = await bodies.get(wanted, encoding)
  const response = responseOf(request, reply, bytes, describe(sha256))
  if (encoding !== 'identity' && response.body) response.headers['content-encoding'] = encoding
  responseCache?.set(request, response, key)
  return send(reply, response)
}

/** Sends a delta to BTF with a digest. It may be made in another way later, so it is not kept for long. */
function sendDelta(
  reply: FastifyReply,
  sha256: string,
  { bytes, parent }: BtfDelta,
  headers: Readonly<Record<string, string>>,
): FastifyReply {
  const { 'content-location': _, ...others } = headers
  return reply
    .headers({
      ...others,
      [DELTA_PARENT]: parent,
      [DELTA_RESULT]: sha256,
      etag: `"${sha256}-from-${parent.slice(0, 16)}"`,
      'cache-control': SHORT,
    })
    .type(DELTA_TYPE)
    .send(bytes)
}

/** Sends BTF, or what `type` is, that was made for this request, in the encoding that the client prefers. */
export async function sendMade(
  request: FastifyRequest,
  reply: FastifyReply,
  { bytes, sha256 }: Body,
  type: string = BTF_TYPE,
): Promise<FastifyReply> {
  const encoding = negotiate(request.headers['accept-encoding'])
  if (encoding !== 'identity') reply.header('content-encoding', encoding)
  return reply
    .headers({
      etag: etagOf(sha256, encoding),
      vary: 'accept-encoding',
      'cache-control': 'no-store',
    })
    .type(type)
    .send(await encode(bytes, encoding))
}

/** Sends bytes, a range of them, or 304. Errors: `invalid_range`. */
export function sendBytes(
  request: FastifyRequest,
  reply: FastifyReply,
  bytes: Buffer,
  description: Description,
): FastifyReply {
  return send(reply, responseOf(request, reply, bytes, description))
}

/** Sends bytes in the encoding that the client prefers, or 304; `etag` is the SHA-256 of the bytes. */
export async function sendEncoded(
  request: FastifyRequest,
  reply: FastifyReply,
  bytes: Uint8Array,
  { etag: sha256, headers, ...rest }: Description,
): Promise<FastifyReply> {
  const encoding = negotiate(request.headers['accept-encoding'])
  const description = {
    ...rest,
    etag: etagOf(sha256, encoding),
    headers: {
      ...headers,
      vary: 'accept-encoding',
      ...(encoding !== 'identity' && { 'content-encoding': encoding }),
    },
  }
  if (isKnown(request, description.etag)) return send(reply, notModified(description))
  delete request.headers.range // a part of an encoded body is of no use
  return sendBytes(request, reply, await encode(bytes, encoding), description)
}

/**
 * Sends an object of a store, or a range of it, as a stream, or 304. `open` gets the bytes. Errors: `invalid_range`; those
 * of `open`.
 */
export async function sendStream(
  request: FastifyRequest,
  reply: FastifyReply,
  size: number,
  description: Description,
  open: (range: { start: number; end: number } | undefined) => Promise<Readable>,
): Promise<FastifyReply> {
  if (isKnown(request, description.etag)) return send(reply, notModified(description))
  const range = rangeOf(request, description.etag, size)
  if (range === 'unsatisfiable') throw outside(reply, size)
  const { status, headers } = headOf(description, range, size)
  const length = range ? range.end - range.start + 1 : size
  // the framework's HEAD route reads a stream to its end
  const body = request.method === 'HEAD' ? Readable.from([]) : await open(range)
  return reply.code(status).headers(headers).header('content-length', length).send(body)
}

interface HttpResponse extends CachedResponse {
  headers: Record<string, string>
}

const send = (reply: FastifyReply, { status, headers, body }: CachedResponse): FastifyReply =>
  reply.code(status).headers(headers).send(body)

/** The response to a request for bytes: 200, 206 or 304. Errors: `invalid_range`. */
function responseOf(
  request: FastifyRequest,
  reply: FastifyReply,
  bytes: Buffer,
  description: Description,
): HttpResponse {
  if (isKnown(request, description.etag)) return notModified(description)
  const range = rangeOf(request, description.etag, bytes.length)
  if (range === 'unsatisfiable') throw outside(reply, bytes.length)
  const body = range ? bytes.subarray(range.start, range.end + 1) : bytes
  return { ...headOf(description, range, bytes.length), body }
}

/** Status and headers of a body, or of a range of it. */
function headOf(
  { etag, cacheControl, type, headers: own }: Description,
  range: { start: number; end: number } | undefined,
  size: number,
): HttpResponse {
  const headers = {
    ...own,
    etag,
    'cache-control': cacheControl,
    'accept-ranges': 'bytes',
    'content-type': type,
  }
  if (!range) return { status: 200, headers }
  const contentRange = `bytes ${range.start}-${range.end}/${size}`
  return { status: 206, headers: { ...headers, 'content-range': contentRange } }
}

function outside(reply: FastifyReply, size: number): ServiceError {
  reply.header('content-range', `bytes */${size}`)
  return new ServiceError('invalid_range', `range outside the body of ${size} bytes`)
}

/** Headers of a route that a 304 repeats. */
const NOT_MODIFIED_HEADERS = ['vary', 'content-location']

/** A 304 repeats only what a cache needs to update its entry (RFC 9110, 15.4.5). */
function notModified({ etag, cacheControl, headers = {} }: Description): HttpResponse {
  const kept = Object.entries(headers).filter(([name]) => NOT_MODIFIED_HEADERS.includes(name))
  return {
    status: 304,
    headers: { ...Object.fromEntries(kept), etag, 'cache-control': cacheControl },
  }
}

const etagOf = (sha256: string, encoding: Encoding): string =>
  encoding === 'identity' ? `"${sha256}"` : `"${sha256}-${encoding}"`

/** The encoding that the client prefers; identity without a header or with none that we support. */
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

/** Tells whether If-None-Match lists this entity tag, by weak comparison (RFC 9110, 13.1.2). */
export function isKnown({ headers }: FastifyRequest, etag: string): boolean {
  const header = headers['if-none-match']
  if (header === undefined) return false
  return header
    .split(',')
    .some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag)
}

/** The requested range; undefined if If-Range names another body. */
function rangeOf({ headers }: FastifyRequest, etag: string, size: number): Range {
  const ifRange = headers['if-range']
  return ifRange === undefined || ifRange === etag ? parseRange(headers.range, size) : undefined
}

type Range = { start: number; end: number } | 'unsatisfiable' | undefined

/** Parses a single byte range. Several ranges or another unit are ignored, as RFC 9110, 14.2 allows. */
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
