/*
 * Bytes from a URL or a file, as one stream, whatever the network does in between: connections that fail or break are
 * tried again with growing pauses, and a body that broke is resumed where it stopped (Range with If-Match), so that
 * who reads it sees each byte once. A server that cannot resume ends the download: `truncated`.
 */
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { Agent, type Dispatcher, interceptors, request } from 'undici'
import { GeneratorError } from '../error.ts'
import type { Access } from '../sources/source.ts'

export interface Download {
  /** bytes in all, where the server says */
  size: number | undefined
  /** Fails with a GeneratorError. Destroying it ends the download. */
  body: Readable
}

export interface DownloadOptions {
  signal?: AbortSignal | undefined
  retry?: DownloadRetryOptions
  /** what opens the repository; sent over TLS alone */
  access?: Access
}

/** How long we wait, in milliseconds, and how often we try again. */
export interface DownloadRetryOptions {
  /** for a connection, for headers, and between two pieces of a body */
  timeout: number
  retries: number
  /** before the first retry; doubled for each further one */
  minDelay: number
  maxDelay: number
}

const PATIENCE: DownloadRetryOptions = {
  timeout: 30_000,
  retries: 6,
  minDelay: 500,
  maxDelay: 30_000,
}

const RETRIED_ERRORS = [
  ...[
    'ECONNRESET',
    'ECONNREFUSED',
    'ENOTFOUND',
    'EAI_AGAIN',
    'ENETDOWN',
    'ENETUNREACH',
    'EHOSTDOWN',
  ],
  ...[
    'EHOSTUNREACH',
    'EPIPE',
    'UND_ERR_SOCKET',
    'UND_ERR_CONNECT_TIMEOUT',
    'UND_ERR_HEADERS_TIMEOUT',
  ],
  'UND_ERR_BODY_TIMEOUT',
]

/**
 * Opens a http, https or file URL, or a path. Errors: `unreachable`, `not_found_upstream`, `stalled`, `truncated`, `no_access` where
 * what would open it is not on this machine.
 */
export async function download(url: string, options: DownloadOptions = {}): Promise<Download> {
  return /^https?:/.test(url) ? await fromServer(url, options) : await fromFile(url)
}

/** The whole of a small file. Errors: those of `download`, and `too_large` over `limit` bytes. */
export async function downloadAll(
  url: string,
  limit: number,
  options: DownloadOptions = {},
): Promise<Buffer> {
  return await readAll(url, await download(url, options), limit)
}

/** What tells whether a file has changed (RFC 9110, 8.8). */
export interface Validators {
  etag?: string
  lastModified?: string
}

/**
 * The whole of a small file where it is not what it was; undefined where the server says that it is. Errors: those of
 * `downloadAll`.
 */
export async function downloadUnless(
  url: string,
  { etag, lastModified }: Validators,
  limit: number,
  options: DownloadOptions = {},
): Promise<{ bytes: Buffer; validators: Validators } | undefined> {
  const answer = await fromServer(url, options, {
    ...(etag !== undefined && { 'if-none-match': etag }),
    ...(lastModified !== undefined && { 'if-modified-since': lastModified }),
  })
  if (answer.status === 304) {
    answer.body.destroy()
    return undefined
  }
  return { bytes: await readAll(url, answer, limit), validators: answer.validators }
}

async function readAll(url: string, { body }: Download, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > limit) throw new GeneratorError('too_large', `${url}: more than ${limit} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

async function fromFile(url: string): Promise<Download> {
  try {
    const path = url.startsWith('file:') ? fileURLToPath(url) : url
    const file = await stat(path)
    if (!file.isFile()) throw new GeneratorError('unreachable', `${url} is no file`)
    return { size: file.size, body: createReadStream(path, { highWaterMark: 256 * 1024 }) }
  } catch (cause) {
    if (cause instanceof GeneratorError) throw cause
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    throw new GeneratorError(
      missing ? 'not_found_upstream' : 'unreachable',
      `${url}: ${(cause as Error).message}`,
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
  { signal, retry = PATIENCE, access = {} }: DownloadOptions,
  conditions: Record<string, string> = {},
): Promise<DownloadResponse> {
  const dispatcher = patientAgent(retry, await certificateOf(access))
  try {
    const { statusCode, headers, body, context } = await request(url, {
      dispatcher,
      headers: { ...conditions, ...(url.startsWith('https:') && (await authorization(access))) },
      ...(signal && { signal }),
    })
    if (url.startsWith('https:') && isUnsafe(context)) {
      body.on('error', () => {}).destroy()
      throw new GeneratorError('unreachable', `${url}: the server leads out of TLS`)
    }
    const unchanged = statusCode === 304 && Object.keys(conditions).length > 0
    if (statusCode !== 200 && !unchanged) {
      body.on('error', () => {}).destroy()
      throw refusal(url, statusCode)
    }
    const length = Number(headers['content-length'] ?? Number.NaN)
    const stream = Readable.from(pieces(url, body, signal), {
      objectMode: false,
      highWaterMark: 256 * 1024,
    })
    stream.once('close', () => dispatcher.close())
    const { etag, 'last-modified': lastModified } = headers
    return {
      status: statusCode,
      size: Number.isSafeInteger(length) ? length : undefined,
      validators: {
        ...(typeof etag === 'string' && { etag }),
        ...(typeof lastModified === 'string' && { lastModified }),
      },
      body: stream,
    }
  } catch (error) {
    await dispatcher.close()
    signal?.throwIfAborted()
    throw error instanceof GeneratorError ? error : explain(url, error, false)
  }
}

/** Whether redirects, as undici tells them, went on without TLS. */
function isUnsafe(context: object): boolean {
  const { history = [] } = context as { history?: readonly URL[] }
  return history.some(({ protocol }) => protocol !== 'https:')
}

interface Certificate {
  cert?: Buffer
  key?: Buffer
  ca?: Buffer
}

/** The files of a client certificate. Errors: `no_access`. */
async function certificateOf({ certificate, key, authority }: Access): Promise<Certificate> {
  return {
    ...(certificate && { cert: await secret(certificate) }),
    ...(key && { key: await secret(key) }),
    ...(authority && { ca: await secret(authority) }),
  }
}

/** The header that credentials make (RFC 7617). Errors: `no_access`. */
async function authorization({ credentials }: Access): Promise<Record<string, string>> {
  if (credentials === undefined) return {}
  const text = (await secret(credentials)).toString('utf8')
  const field = (name: string) => new RegExp(`^\\s*${name}\\s*=\\s*(.*?)\\s*$`, 'm').exec(text)?.[1]
  const [user, password] = [field('username'), field('password')]
  if (user === undefined || password === undefined)
    throw new GeneratorError('no_access', `${credentials} has no username and password`)
  return { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` }
}

async function secret(path: string): Promise<Buffer> {
  return await readFile(path).catch((cause) => {
    const { message } = cause as Error
    throw new GeneratorError('no_access', `the repository is not for everybody: ${message}`, {
      cause,
    })
  })
}

function patientAgent(
  { timeout, retries, minDelay, maxDelay }: DownloadRetryOptions,
  certificate: Certificate,
): Dispatcher {
  const agent = new Agent({
    connect: { timeout: timeout, ...certificate },
    headersTimeout: timeout,
    bodyTimeout: timeout,
  })
  return agent.compose(
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

async function* pieces(
  url: string,
  body: Readable,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  try {
    for await (const piece of body) yield piece
  } catch (error) {
    signal?.throwIfAborted()
    throw explain(url, error, true)
  }
}

function refusal(url: string, status: number): GeneratorError {
  const gone = status === 404 || status === 410
  return new GeneratorError(
    gone ? 'not_found_upstream' : 'unreachable',
    `${url}: the server answers ${status}`,
  )
}

/** `begun`: bytes have arrived already. */
function explain(url: string, cause: unknown, begun: boolean): GeneratorError {
  const {
    code = '',
    statusCode,
    message,
  } = cause as { code?: string; statusCode?: number; message: string }
  if (statusCode !== undefined && !begun) return refusal(url, statusCode)
  if (/TIMEOUT/.test(code))
    return new GeneratorError('stalled', `${url}: the server went silent`, { cause })
  const broken = begun ? 'truncated' : 'unreachable'
  return new GeneratorError(broken, `${url}: ${message || code}`, { cause })
}
