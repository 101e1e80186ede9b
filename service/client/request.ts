/*
 * Asking a server until there is an answer that is final: with time-outs, and with pauses that grow and are never the
 * same, so that a fleet spreads out. An answer that is not what it should be is asked for again.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from 'undici'

const MAX_BODY = 64 * 1024 * 1024
const MAX_RETRY_AFTER = 60

export type FetchErrorCode =
  | 'unreachable' // no answer, after all tries
  | 'refused' // the server has none: `problem` says why
  | 'digest_mismatch' // what arrived is not what was announced, after all tries
  | 'invalid_signature' // what arrived is not signed by the public key, after all tries
  | 'not_writable' // the file or the cache cannot be written

/** Why there is no BTF. */
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
  /** wait while the server says that it is being made */
  wait?: boolean
  /** told each time that it is not made yet */
  onPending?: (detail: string) => void
  /** tries in all */
  attempts?: number
  /** milliseconds to wait for an answer to begin, and between two pieces of it */
  timeout?: number
  /** milliseconds before the second try; doubled for each further one, with jitter */
  pause?: number
  signal?: AbortSignal
}

export type Headers = Record<string, string | string[] | undefined>

/** Makes of an answer what was asked for; a FetchError it throws means to ask again. */
export type Reader<T> = (bytes: Buffer, headers: Headers) => T | Promise<T>

type RequestAttempt<T> =
  | { kind: 'answer'; value: T }
  | { kind: 'final'; error: FetchError }
  | { kind: 'again' | 'pending'; error: FetchError; after?: number }

/** What a server answers. Errors: `FetchError`, and the signal's reason. */
export async function requestWithRetry<T>(
  url: URL,
  read: Reader<T>,
  options: RetryOptions = {},
): Promise<T> {
  const { attempts = 5, pause = 500, signal } = options
  for (let attempt = 0; ; ) {
    const answer = await askOnce(url, read, options)
    if (answer.kind === 'answer') return answer.value
    if (answer.kind === 'final') throw answer.error
    // a server that is making it is waited for as long as it says so
    if (answer.kind === 'again') attempt++
    if (attempt >= attempts) throw answer.error
    if (answer.kind === 'pending') options.onPending?.(answer.error.message)
    const growing = pause * 2 ** attempt * (0.5 + Math.random())
    const asked = answer.after && answer.after * (1 + Math.random() / 2) // all were told the same
    await sleep(asked ?? growing, undefined, signal && { signal })
  }
}

async function askOnce<T>(
  url: URL,
  read: Reader<T>,
  { timeout = 10_000, wait = false, signal }: RetryOptions,
): Promise<RequestAttempt<T>> {
  try {
    const { statusCode, headers, bytes } = await follow(url, timeout, signal)
    if (statusCode === 200) return { kind: 'answer', value: await read(bytes, headers) }
    const error = refusal(url, statusCode, bytes)
    if (statusCode === 202)
      return wait ? { kind: 'pending', error, ...pausing(headers) } : { kind: 'final', error }
    if (statusCode === 429 || statusCode >= 500)
      return { kind: 'again', error, ...pausing(headers) }
    return { kind: 'final', error }
  } catch (cause) {
    signal?.throwIfAborted()
    if (cause instanceof FetchError) return { kind: 'again', error: cause }
    const message = `${url.origin}: ${(cause as Error).message}`
    return { kind: 'again', error: new FetchError('unreachable', message, { cause }) }
  }
}

interface Answered {
  statusCode: number
  headers: Headers
  bytes: Buffer
}

/**
 * The answer, from where the server sends for it: once, since it sends to a bucket, and a bucket nowhere. What it
 * announced is what counts, not what the bucket says.
 */
async function follow(
  url: URL,
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<Answered> {
  const answer = await askAt(url, timeout, signal)
  const { location, etag } = answer.headers
  if (answer.statusCode !== 307 || typeof location !== 'string') return answer
  const elsewhere = await askAt(new URL(location, url), timeout, signal)
  return { ...elsewhere, headers: { ...elsewhere.headers, etag } }
}

async function askAt(
  url: URL,
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<Answered> {
  const { statusCode, headers, body } = await request(url, {
    headers: { 'accept-encoding': 'zstd' },
    headersTimeout: timeout,
    bodyTimeout: timeout,
    ...(signal && { signal }),
  })
  return { statusCode, headers, bytes: await readBody(body) }
}

async function readBody(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of body) {
    size += piece.length
    if (size > MAX_BODY) throw new Error(`more than ${MAX_BODY} bytes`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

/** The pause that a server asks for, within reason. */
function pausing(headers: Headers): { after?: number } {
  const seconds = Number(headers['retry-after'] ?? Number.NaN)
  return seconds >= 0 ? { after: Math.min(seconds, MAX_RETRY_AFTER) * 1000 } : {}
}

function refusal(url: URL, status: number, body: Buffer): FetchError {
  let problem: { code?: unknown; detail?: unknown } = {}
  try {
    problem = JSON.parse(body.toString('utf8'))
  } catch {} // another server's page
  const detail =
    typeof problem.detail === 'string' ? problem.detail : `${url.origin} answers ${status}`
  const code = typeof problem.code === 'string' ? { problem: problem.code } : {}
  return new FetchError('refused', detail, code)
}
