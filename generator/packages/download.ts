/*
 * Downloads: the bytes of a URL or a file as one stream. A request that fails is retried with growing delays. A body
 * that breaks off is resumed where it stopped (Range with If-Match), so the reader sees each byte once. If the server
 * cannot resume, the download fails: `truncated`.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type Dispatcher, interceptors, request } from 'undici'
import { findProxies, scrubbed, showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { Access, RepositoryAccess } from '../sources/source.ts'
import { HttpAgents, type TlsFiles } from './http-agents.ts'
import { readSecret } from './secret.ts'
import { withToken } from './token.ts'

export interface Download {
  /** bytes in all, if the server says so */
  size: number | undefined
  /** Fails with a GeneratorError. Destroying it ends the download. */
  body: Readable
}

export interface DownloadOptions {
  signal?: AbortSignal | undefined
  retry?: DownloadRetryOptions
  /** client certificate, credentials and tokens of the repository; credentials are sent over TLS only */
  access?: RepositoryAccess
  /** called while a small file is read, with its URL, the bytes so far, and all bytes if the server says so */
  onRead?: (url: string, bytes: number, size: number | undefined) => void
}

/** How long a download waits, in milliseconds, and how often it is retried. */
export interface DownloadRetryOptions {
  /** for a connection, for headers, and between two pieces of a body */
  timeout: number
  retries: number
  /** before the first retry; doubled for each further one */
  minDelay: number
  maxDelay: number
}

const DEFAULT_RETRY: DownloadRetryOptions = {
  timeout: 30_000,
  retries: 6,
  minDelay: 500,
  maxDelay: 30_000,
}

const RETRIED_ERRORS =
  `ECONNRESET ECONNREFUSED ENOTFOUND EAI_AGAIN ENETDOWN ENETUNREACH EHOSTDOWN EHOSTUNREACH EPIPE
  UND_ERR_SOCKET UND_ERR_CONNECT_TIMEOUT UND_ERR_HEADERS_TIMEOUT UND_ERR_BODY_TIMEOUT`.split(/\s+/)

/** Bytes of an error response that are read, so that its connection can be reused. */
const MAX_DISCARDED = 128 * 1024

/** Of all downloads in this process. */
const agents = new HttpAgents()

/**
 * Opens an HTTP, HTTPS or file URL, or a path. Errors: `unreachable`, `not_found_upstream`, `stalled`, `truncated`,
 * `no_access` if a file of `access` is missing.
 */
export async function download(url: string, options: DownloadOptions = {}): Promise<Download> {
  return /^https?:/.test(url) ? await fromServer(url, options) : await fromFile(url)
}

/** Downloads a small file whole. Errors: `too_large` over `limit` bytes; those of `download`. */
export async function downloadAll(
  url: string,
  limit: number,
  options: DownloadOptions = {},
): Promise<Buffer> {
  return await readAll(url, await download(url, options), limit, options)
}

/** Validators of a response (RFC 9110, 8.8): they tell whether the file has changed. */
export interface Validators {
  etag?: string
  lastModified?: string
}

/**
 * Downloads a small file whole if it has changed, and returns undefined if the server says that it has not. Errors:
 * those of `downloadAll`.
 */
export async function downloadUnless(
  url: string,
  { etag, lastModified }: Validators,
  limit: number,
  options: DownloadOptions = {},
): Promise<{ bytes: Buffer; validators: Validators } | undefined> {
  const response = await fromServer(url, options, {
    ...(etag !== undefined && { 'if-none-match': etag }),
    ...(lastModified !== undefined && { 'if-modified-since': lastModified }),
  })
  if (response.status === 304) {
    response.body.resume() // It is empty; at its end the connection is free.
    return undefined
  }
  const bytes = await readAll(url, response, limit, options)
  return { bytes, validators: response.validators }
}

async function readAll(
  url: string,
  { body, size: announced }: Download,
  limit: number,
  { onRead }: DownloadOptions,
): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > limit)
      throw new GeneratorError('too_large', `${showable(url)}: more than ${limit} bytes`)
    chunks.push(chunk)
    onRead?.(url, size, announced)
  }
  return Buffer.concat(chunks)
}

async function fromFile(url: string): Promise<Download> {
  try {
    const path = url.startsWith('file:') ? fileURLToPath(url) : url
    const file = await stat(path)
    if (!file.isFile())
      throw new GeneratorError('unreachable', `${showable(url)}: not a regular file`)
    return { size: file.size, body: createReadStream(path, { highWaterMark: 256 * 1024 }) }
  } catch (cause) {
    if (cause instanceof GeneratorError) throw cause
    const isMissing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    throw new GeneratorError(
      isMissing ? 'not_found_upstream' : 'unreachable',
      `${showable(url)}: ${scrubbed((cause as Error).message)}`,
      { cause },
    )
  }
}

interface DownloadResponse extends Download {
  status: number
  validators: Validators
}

async function fromServer(
  url: string,
  { signal, retry = DEFAULT_RETRY, access = {} }: DownloadOptions,
  conditions: Record<string, string> = {},
): Promise<DownloadResponse> {
  const tls = await readTlsFiles(access)
  const isTls = url.startsWith('https:')
  const credentials = isTls ? await authorization(access) : {}
  const target = await withToken(url, access)
  const { agent, release } = agents.acquire(tls, retry.timeout, await findProxies())
  try {
    signal?.throwIfAborted()
    const response = await abortable(
      request(target, {
        dispatcher: withRetries(agent, retry),
        headers: { ...conditions, ...credentials },
        ...(signal && { signal }),
      }),
      signal,
    )
    const { statusCode, headers, body, context } = response
    body.on('error', () => {}) // Readers get the error anyway; without one it must not end the process.
    if (isTls && hasLeftTls(context)) {
      body.destroy()
      throw new GeneratorError('unreachable', `${showable(url)}: redirected from HTTPS to HTTP`)
    }
    const isUnchanged = statusCode === 304 && Object.keys(conditions).length > 0
    if (statusCode !== 200 && !isUnchanged) {
      await body
        .dump({ limit: MAX_DISCARDED, signal: AbortSignal.timeout(retry.timeout) })
        .catch(() => {})
      throw statusError(url, statusCode)
    }
    const length = Number(headers['content-length'] ?? Number.NaN)
    return {
      status: statusCode,
      size: Number.isSafeInteger(length) ? length : undefined,
      validators: validatorsOf(headers),
      body: bodyStream(url, body, signal, release),
    }
  } catch (error) {
    release()
    signal?.throwIfAborted()
    throw error instanceof GeneratorError ? error : asGeneratorError(url, error, false)
  }
}

/** Follows redirects, and retries. */
function withRetries(
  dispatcher: Dispatcher,
  { retries, minDelay, maxDelay }: DownloadRetryOptions,
): Dispatcher {
  return dispatcher.compose(
    interceptors.redirect({ maxRedirections: 5 }),
    interceptors.retry({
      maxRetries: retries,
      minTimeout: minDelay,
      maxTimeout: maxDelay,
      timeoutFactor: 2,
      methods: ['GET'],
      statusCodes: [408, 429, 500, 502, 503, 504],
      errorCodes: RETRIED_ERRORS,
    }),
  )
}

/** Settles as `work` does, or rejects as soon as the signal aborts: undici ignores it while a request is queued. */
async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await work
  const aborted = Promise.withResolvers<never>()
  const onAbort = () => aborted.reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([work, aborted.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** Tells whether a redirect (undici keeps their history) left TLS. */
function hasLeftTls(context: object): boolean {
  const { history = [] } = context as { history?: readonly URL[] }
  return history.some(({ protocol }) => protocol !== 'https:')
}

function validatorsOf(headers: Dispatcher.ResponseData['headers']): Validators {
  const { etag, 'last-modified': lastModified } = headers
  return {
    ...(typeof etag === 'string' && { etag }),
    ...(typeof lastModified === 'string' && { lastModified }),
  }
}

/** Reads the files of a client certificate. Errors: `no_access`. */
async function readTlsFiles({ certificate, key, authority }: Access): Promise<TlsFiles> {
  return {
    ...(certificate && { cert: await readSecret(certificate) }),
    ...(key && { key: await readSecret(key) }),
    ...(authority && { ca: await readSecret(authority) }),
  }
}

/** The header of Basic authentication (RFC 7617). Errors: `no_access`. */
async function authorization({ credentials }: Access): Promise<Record<string, string>> {
  if (credentials === undefined) return {}
  const text = (await readSecret(credentials)).toString('utf8')
  const field = (name: string) => new RegExp(`^\\s*${name}\\s*=\\s*(.*?)\\s*$`, 'm').exec(text)?.[1]
  const [user, password] = [field('username'), field('password')]
  if (user === undefined || password === undefined) {
    throw new GeneratorError(
      'no_access',
      `${showable(credentials)}: expected the lines username=… and password=…`,
      { log: credentials },
    )
  }
  return { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` }
}

/** The body as the caller reads it. At its end, or when it is destroyed, the connection is given back or closed. */
function bodyStream(
  url: string,
  body: Readable,
  signal: AbortSignal | undefined,
  release: () => void,
): Readable {
  const pieces = piecesOf(url, body, signal)
  const stream = Readable.from(pieces, { objectMode: false, highWaterMark: 256 * 1024 })
  return stream.once('close', () => {
    body.destroy() // The generator does not do it if it was never started.
    release()
  })
}

async function* piecesOf(
  url: string,
  body: Readable,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  try {
    for await (const piece of body) yield piece
  } catch (error) {
    signal?.throwIfAborted()
    throw asGeneratorError(url, error, true)
  }
}

function statusError(url: string, status: number): GeneratorError {
  const isMissing = status === 404 || status === 410
  return new GeneratorError(
    isMissing ? 'not_found_upstream' : 'unreachable',
    `${showable(url)}: the server answers ${status}`,
  )
}

/** Maps an error of undici. `hasStarted`: some bytes of the body have arrived. */
function asGeneratorError(url: string, cause: unknown, hasStarted: boolean): GeneratorError {
  const {
    code = '',
    statusCode,
    message,
  } = cause as { code?: string; statusCode?: number; message: string }
  if (statusCode !== undefined && !hasStarted) return statusError(url, statusCode)
  if (/TIMEOUT/.test(code)) {
    return new GeneratorError('stalled', `${showable(url)}: the server stopped responding`, {
      cause,
    })
  }
  return new GeneratorError(
    hasStarted ? 'truncated' : 'unreachable',
    `${showable(url)}: ${scrubbed(message || code)}`,
    { cause },
  )
}
