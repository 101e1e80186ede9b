/*
 * HTTP requests with timeouts and retries. The pauses grow and have jitter, so that the requests of a fleet spread out. A
 * response that fails its check is requested again.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from 'undici'

/** bytes */
const MAX_BODY = 64 * 1024 * 1024
/** seconds */
const MAX_RETRY_AFTER = 60

export type FetchErrorCode =
  | 'unreachable' // no response, after all attempts
  | 'refused' // the server does not have the BTF: `problem` says why
  | 'digest_mismatch' // the response does not match its ETag, after all attempts
  | 'invalid_signature' // the catalog is not signed with the public key, after all attempts
  | 'not_writable' // the file or the cache cannot be written

/** Why the BTF could not be fetched. */
export class FetchError extends Error {
  override readonly name = 'FetchError'
  readonly code: FetchErrorCode
  /** the `code` of the server's problem document */
  readonly problem: string | undefined

  constructor(
    code: FetchErrorCode,
    message: string,
    options: ErrorOptions & { problem?: string } = {},
  ) {
    super(message, options)
    this.code = code
    this.problem = options.problem
  }
}

export interface RetryOptions {
  /** wait while the server generates the BTF; default: false */
  wait?: boolean
  /** called after each response that the BTF is still being generated */
  onPending?: (detail: string) => void
  /** maximum number of attempts; default: 5 */
  attempts?: number
  /** milliseconds until the response starts, and between two chunks of it; default: 10 000 */
  timeout?: number
  /** milliseconds before the second attempt; doubled for each further one, with jitter; default: 500 */
  pause?: number
  signal?: AbortSignal
}

export type Headers = Record<string, string | string[] | undefined>

/** Decodes a response; after any error that it throws the request is repeated. */
export type Reader<T> = (bytes: Buffer, headers: Headers) => T | Promise<T>

type RequestAttempt<T> =
  | { kind: 'success'; value: T }
  | { kind: 'final'; error: FetchError }
  | { kind: 'retry' | 'pending'; error: FetchError; pause?: number }

/** Requests a URL until the outcome is final, and returns the decoded response. Errors: `FetchError`; the signal's reason. */
export async function requestWithRetry<T>(
  url: URL,
  read: Reader<T>,
  options: RetryOptions = {},
): Promise<T> {
  const { attempts = 5, pause = 500, signal } = options
  for (let attempt = 0; ; ) {
    const outcome = await attemptRequest(url, read, options)
    if (outcome.kind === 'success') return outcome.value
    if (outcome.kind === 'final') throw outcome.error
    // a generation under way does not use up attempts
    if (outcome.kind === 'retry') attempt++
    if (attempt >= attempts) throw outcome.error
    if (outcome.kind === 'pending') options.onPending?.(outcome.error.message)
    const backoff = pause * 2 ** attempt * (0.5 + Math.random())
    // with jitter, since a fleet gets the same Retry-After
    const requested = outcome.pause && outcome.pause * (1 + Math.random() / 2)
    await sleep(requested ?? backoff, undefined, signal && { signal })
  }
}

async function attemptRequest<T>(
  url: URL,
  read: Reader<T>,
  { timeout = 10_000, wait = false, signal }: RetryOptions,
): Promise<RequestAttempt<T>> {
  try {
    const { statusCode, headers, bytes } = await followRedirect(url, timeout, signal)
    if (statusCode === 200) return { kind: 'success', value: await read(bytes, headers) }
    const error = refusal(url, statusCode, bytes)
    if (statusCode === 202)
      return wait
        ? { kind: 'pending', error, ...requestedPause(headers) }
        : { kind: 'final', error }
    if (statusCode === 429 || statusCode >= 500)
      return { kind: 'retry', error, ...requestedPause(headers) }
    return { kind: 'final', error }
  } catch (cause) {
    signal?.throwIfAborted()
    if (cause instanceof FetchError) return { kind: 'retry', error: cause }
    const message = `${url.origin}: ${(cause as Error).message}`
    return { kind: 'retry', error: new FetchError('unreachable', message, { cause }) }
  }
}

interface FetchResponse {
  statusCode: number
  headers: Headers
  bytes: Buffer
}

/**
 * Requests a URL, and follows one redirect: the server redirects to a bucket, and a bucket does not redirect. The ETag is
 * the server's, not the bucket's.
 */
async function followRedirect(
  url: URL,
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<FetchResponse> {
  const response = await get(url, timeout, signal)
  const { location, etag } = response.headers
  if (response.statusCode !== 307 || typeof location !== 'string') return response
  const redirected = await get(new URL(location, url), timeout, signal)
  return { ...redirected, headers: { ...redirected.headers, etag } }
}

async function get(
  url: URL,
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<FetchResponse> {
  const { statusCode, headers, body } = await request(url, {
    headers: { 'accept-encoding': 'zstd' },
    headersTimeout: timeout,
    bodyTimeout: timeout,
    ...(signal && { signal }),
  })
  return { statusCode, headers, bytes: await readBody(body) }
}

async function readBody(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > MAX_BODY) throw new Error(`the response has more than ${MAX_BODY} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** The Retry-After of a response in milliseconds, at most `MAX_RETRY_AFTER` seconds. */
function requestedPause(headers: Headers): { pause?: number } {
  const seconds = Number(headers['retry-after'] ?? Number.NaN)
  return seconds >= 0 ? { pause: Math.min(seconds, MAX_RETRY_AFTER) * 1000 } : {}
}

function refusal(url: URL, status: number, body: Buffer): FetchError {
  let problem: { code?: unknown; detail?: unknown } = {}
  try {
    problem = JSON.parse(body.toString('utf8'))
  } catch {} // not a problem document
  const detail =
    typeof problem.detail === 'string'
      ? problem.detail
      : `${url.origin} responds with the status ${status}`
  const code = typeof problem.code === 'string' ? { problem: problem.code } : {}
  return new FetchError('refused', detail, code)
}
