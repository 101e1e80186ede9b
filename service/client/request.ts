/*
 * HTTP requests with retries. An attempt that times out, or whose response is invalid, is made again. The delays grow
 * and are randomized, so that a fleet of agents spreads its requests. Node's own client is enough here, and keeps the
 * package `@btfmill/client` free of an HTTP library.
 */
import { type IncomingHttpHeaders, type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { withoutCredentials } from '../../storage/index.ts'
import { printable } from '../printable.ts'
import { agentFor } from './proxy-agent.ts'

/** The largest response, in bytes. */
const MAX_BODY = 64 * 1024 * 1024
/** The largest response that says why there is no BTF, in bytes. */
const MAX_PROBLEM = 64 * 1024
/** The same for a form: a bundle may have megabytes of findings. */
const MAX_FORM_PROBLEM = 8 * 1024 * 1024
/** Characters of an error's message. */
const MAX_MESSAGE = 600
/** Seconds: the longest `Retry-After` that is obeyed. */
const MAX_RETRY_AFTER = 60

export type FetchErrorCode =
  | 'invalid_options' // an option is unknown, at the wrong depth, or has an invalid value
  | 'unreachable' // no response after all attempts
  | 'timeout' // the fetch took longer than `deadline`
  | 'refused' // the server has no such BTF: `problem` says why
  | 'invalid_response' // the response is not one of a btfmill service, or over a limit
  | 'invalid_pack' // after all attempts, the pack is damaged, cut off or of an unknown version
  | 'digest_mismatch' // after all attempts, the bytes do not match the announced SHA-256
  | 'invalid_signature' // after all attempts, the catalog is not signed by the public key
  | 'outdated_catalog' // after all attempts, the catalog is older than one seen before, or than `maxAge`
  | 'unsupported_btf' // the BTF cannot be converted to the dialect
  | 'foreign_file' // a file that btfmill did not write is where BTF is to be installed
  | 'not_writable' // the output file or the cache cannot be written

/** Why there is no BTF. The message may quote a server, so it is short and has no control characters. */
export class FetchError extends Error {
  override readonly name = 'FetchError'
  readonly code: FetchErrorCode
  /** the `code` of the server's problem document */
  readonly problem: string | undefined
  /** the problem document, as the server sent it */
  readonly details: Readonly<Record<string, unknown>>

  constructor(
    code: FetchErrorCode,
    message: string,
    options: ErrorOptions & { problem?: string; details?: Record<string, unknown> } = {},
  ) {
    const text = printable(message)
    super(text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE - 1)}…` : text, options)
    this.code = code
    this.problem = options.problem
    this.details = options.details ?? {}
  }
}

export interface RetryOptions {
  /** wait while the server generates the BTF */
  wait?: boolean
  /** called for each response that says that the server still generates the BTF */
  onPending?: (detail: string) => void
  /** number of attempts (default: 5) */
  attempts?: number
  /** milliseconds without a byte before an attempt fails (default: 10 000) */
  timeout?: number
  /** milliseconds before the second attempt (default: 500); doubled for each further one, with jitter */
  minDelay?: number
  signal?: AbortSignal
}

/** A request that is not a plain GET. */
export interface RequestOptions extends RetryOptions {
  /** a form to POST */
  form?: EncodedForm
  /** bearer token; the server alone gets it, not the address that it redirects to */
  token?: string
  /** the media type to ask for */
  accept?: string
  /** the encoding to ask for (default: zstd) */
  encoding?: 'zstd' | 'identity'
  /** the entity tag of the body that the client has: see `requestUnless` */
  etag?: string | undefined
  /** the bytes to ask for, from `start` up to `end`; a file server may redirect, with any status */
  range?: ByteSpan
}

interface ByteSpan {
  start: number
  end: number
}

/** Tells whether a text can be sent as a bearer token (RFC 6750, 2.1). */
export const isToken = (text: string): boolean => /^[\w~+/.=-]+$/.test(text)

/** A multipart form as bytes, to be sent any number of times; no type and no bytes for a POST without a body. */
export interface EncodedForm {
  type: string
  bytes: Buffer
}

export async function encodeForm(form: FormData): Promise<EncodedForm> {
  const response = new Response(form)
  const type = response.headers.get('content-type')!
  return { type, bytes: Buffer.from(await response.arrayBuffer()) }
}

/** Turns a response into a value. After a `FetchError` that it throws, the request is made again. */
export type Reader<T> = (bytes: Buffer, headers: IncomingHttpHeaders) => T | Promise<T>

type RequestAttempt<T> =
  | { kind: 'done'; value: T }
  | { kind: 'final'; error: FetchError }
  | { kind: 'retry' | 'pending'; error: FetchError; retryAfter?: number }

/** Requests a URL until there is a final response. Errors: `FetchError`; the signal's reason. */
export function requestWithRetry<T>(
  url: URL,
  read: Reader<T>,
  options: RequestOptions = {},
): Promise<T> {
  return retried(url, options, async ({ body, headers }) =>
    read(await readBody(body, MAX_BODY), headers),
  )
}

/**
 * Requests a URL whose body the client has already if its entity tag is `options.etag`: then the result is undefined.
 * Errors: those of `requestWithRetry`.
 */
export function requestUnless<T>(
  url: URL,
  read: Reader<T>,
  options: RequestOptions,
): Promise<T | undefined> {
  return retried(url, options, async ({ status, body, headers }) => {
    const bytes = await readBody(body, MAX_BODY)
    return status === 304 ? undefined : await read(bytes, headers)
  })
}

/**
 * Requests a URL until there is a final response, and returns it before its body has arrived. The body is not limited; it
 * fails if no byte arrives for `timeout`. Errors: those of `requestWithRetry`.
 */
export function openWithRetry(url: URL, options: RequestOptions = {}): Promise<ClientResponse> {
  return retried(url, { ...options, encoding: 'identity' }, async (response) => response)
}

/**
 * Requests a range of a URL, and gives its bytes to `take`, which may stop early. If the range or `take` fails, the request
 * is made again. A server without ranges sends the whole file, whose start is skipped. Errors: those of
 * `requestWithRetry`.
 */
export function requestRange<T>(
  url: URL,
  range: ByteSpan,
  take: (bytes: AsyncIterable<Uint8Array>) => Promise<T>,
  options: RequestOptions = {},
): Promise<T> {
  const wanted = { ...options, range, encoding: 'identity' as const }
  return retried(url, wanted, async ({ status, headers, body }) => {
    try {
      const start = status === 206 ? startOf(headers) : 0
      return await take(cut(body, start, range))
    } finally {
      body.destroy()
    }
  })
}

/** Where the bytes of a response with status 206 begin (RFC 9110, 14.4). Errors: `invalid_response`. */
function startOf(headers: IncomingHttpHeaders): number {
  const [, start] = /^bytes (\d{1,15})-/.exec(headers['content-range'] ?? '') ?? []
  if (start !== undefined) return Number(start)
  throw new FetchError('invalid_response', 'the response to a range has no valid content-range')
}

/** The bytes of a range, of a body that begins at `at`. Errors: `invalid_response` if it begins behind the range. */
async function* cut(
  body: IncomingMessage,
  at: number,
  { start, end }: ByteSpan,
): AsyncGenerator<Uint8Array> {
  if (at > start)
    throw new FetchError('invalid_response', `the range begins at byte ${at}: expected ${start}`)
  let position = at
  for await (const piece of body as AsyncIterable<Buffer>) {
    const from = Math.max(start - position, 0)
    const part = piece.subarray(from, Math.max(end - position, 0))
    position += piece.length
    if (part.length > 0) yield part
    if (position >= end) return
  }
}

type Taker<T> = (response: ClientResponse) => Promise<T>

async function retried<T>(url: URL, options: RequestOptions, take: Taker<T>): Promise<T> {
  const { attempts = 5, minDelay = 500, signal } = options
  for (let attempt = 0; ; ) {
    const result = await tryOnce(url, options, take)
    if (result.kind === 'done') return result.value
    if (result.kind === 'final') throw result.error
    // a pending response is no failed attempt: the server says how long to wait
    if (result.kind === 'retry') attempt++
    if (attempt >= attempts) throw result.error
    if (result.kind === 'pending') options.onPending?.(result.error.message)
    const backoff = minDelay * 2 ** attempt * (0.5 + Math.random())
    // the server tells all clients the same delay
    const retryAfter = result.retryAfter && result.retryAfter * (1 + Math.random() / 2)
    await sleep(retryAfter ?? backoff, undefined, signal && { signal }).catch((error) => {
      signal?.throwIfAborted()
      throw error
    })
  }
}

async function tryOnce<T>(
  url: URL,
  options: RequestOptions,
  take: Taker<T>,
): Promise<RequestAttempt<T>> {
  const { wait = false, signal } = options
  try {
    const response = await follow(url, options)
    const { status, headers } = response
    const isKnown = status === 304 && options.etag !== undefined
    if (status === 200 || isKnown || (status === 206 && options.range))
      return { kind: 'done', value: await take(response) }
    const limit = options.form ? MAX_FORM_PROBLEM : MAX_PROBLEM
    const error = refusalOf(url, status, await readBody(response.body, limit))
    const pending = status === 202 && wait
    const retry = status === 429 || status >= 500
    if (!pending && !retry) return { kind: 'final', error }
    return { kind: pending ? 'pending' : 'retry', error, ...retryAfterOf(headers) }
  } catch (cause) {
    signal?.throwIfAborted()
    if (cause instanceof FetchError) return { kind: 'retry', error: cause }
    const message = `${url.origin}: ${withoutCredentials((cause as Error).message)}`
    return { kind: 'retry', error: new FetchError('unreachable', message, { cause }) }
  }
}

/** The statuses with which file servers redirect. */
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

export interface ClientResponse {
  status: number
  headers: IncomingHttpHeaders
  body: IncomingMessage
}

/**
 * Follows one redirect: the server redirects to a bucket, and a bucket does not redirect. The ETag of the server's own
 * response counts, not the bucket's.
 */
async function follow(url: URL, options: RequestOptions): Promise<ClientResponse> {
  const response = await request(url, options)
  const { location, etag } = response.headers
  const isRedirect = options.range ? REDIRECTS.has(response.status) : response.status === 307
  if (!isRedirect || location === undefined || options.form) return response
  response.body.destroy()
  const { token: _, ...withoutToken } = options
  const redirected = await request(new URL(location, url), withoutToken)
  const { etag: __, ...headers } = redirected.headers
  return { ...redirected, headers: { ...headers, ...(etag !== undefined && { etag }) } }
}

async function request(
  url: URL,
  { timeout = 10_000, signal, form, token, accept, encoding = 'zstd', range, etag }: RequestOptions,
): Promise<ClientResponse> {
  const agent = await agentFor(url)
  const headers = {
    'accept-encoding': encoding,
    ...(accept !== undefined && { accept }),
    ...(etag !== undefined && { 'if-none-match': etag }),
    ...(range && { range: `bytes=${range.start}-${range.end - 1}` }),
    ...(token !== undefined && { authorization: `Bearer ${token}` }),
    ...(form && { 'content-length': form.bytes.length }),
    ...(form?.type && { 'content-type': form.type }),
  }
  const method = form ? 'POST' : 'GET'
  const options = { method, headers, timeout, ...(signal && { signal }), ...(agent && { agent }) }
  return await new Promise((resolve, reject) => {
    const sent = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, options, (body) => {
      const { statusCode: status = 0, headers } = body
      resolve({ status, headers, body })
    })
    sent.on('timeout', () => sent.destroy(new Error(`no data for ${timeout} ms`)))
    sent.on('error', reject)
    sent.end(form?.bytes)
  })
}

async function readBody(body: IncomingMessage, limit: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of body as AsyncIterable<Buffer>) {
    size += piece.length
    if (size > limit)
      throw new FetchError('invalid_response', `the response exceeds ${limit} bytes`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

/** The delay that a server asks for, in milliseconds, up to `MAX_RETRY_AFTER`. */
function retryAfterOf(headers: IncomingHttpHeaders): { retryAfter?: number } {
  const seconds = Number(headers['retry-after'] ?? Number.NaN)
  return seconds >= 0 ? { retryAfter: Math.min(seconds, MAX_RETRY_AFTER) * 1000 } : {}
}

function refusalOf(url: URL, status: number, body: Buffer): FetchError {
  let problem: Record<string, unknown> = {}
  try {
    problem = Object(JSON.parse(body.toString('utf8')))
  } catch {} // an error page of a proxy
  const detail =
    typeof problem.detail === 'string' ? problem.detail : `${url.origin} responds with ${status}`
  const isCode = typeof problem.code === 'string' && /^[a-z_]{1,64}$/.test(problem.code)
  const code = isCode ? { problem: problem.code as string } : {}
  return new FetchError('refused', detail, { ...code, details: problem })
}
