/*
 * Bytes from a URL or a file, as one stream, whatever the network does in between: connections that fail or break are
 * tried again with growing pauses, and a body that broke is resumed where it stopped (Range with If-Match), so that
 * who reads it sees each byte once. A server that cannot resume ends the download: `truncated`.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { Agent, type Dispatcher, interceptors, request } from 'undici'
import { GeneratorError } from './error.ts'

export interface Download {
  /** bytes in all, where the server says */
  size: number | undefined
  /** Fails with a GeneratorError. Destroying it ends the download. */
  body: Readable
}

export interface DownloadOptions {
  signal?: AbortSignal | undefined
  patience?: Patience
}

/** How long we wait, in milliseconds, and how often we try again. */
export interface Patience {
  /** for a connection, for headers, and between two pieces of a body */
  silence: number
  retries: number
  /** before the first retry; doubled for each further one */
  pause: number
  maxPause: number
}

const PATIENCE: Patience = { silence: 30_000, retries: 6, pause: 500, maxPause: 30_000 }

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

/** Opens a http, https or file URL, or a path. Errors: `unreachable`, `gone`, `stalled`, `truncated`. */
export async function download(url: string, options: DownloadOptions = {}): Promise<Download> {
  return /^https?:/.test(url) ? await fromServer(url, options) : await fromFile(url)
}

/** The whole of a small file. Errors: those of `download`, and `too_large` over `limit` bytes. */
export async function downloadAll(
  url: string,
  limit: number,
  options: DownloadOptions = {},
): Promise<Buffer> {
  const { body } = await download(url, options)
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
      missing ? 'gone' : 'unreachable',
      `${url}: ${(cause as Error).message}`,
      { cause },
    )
  }
}

async function fromServer(
  url: string,
  { signal, patience = PATIENCE }: DownloadOptions,
): Promise<Download> {
  const dispatcher = patientAgent(patience)
  try {
    const { statusCode, headers, body } = await request(url, {
      dispatcher,
      ...(signal && { signal }),
    })
    if (statusCode !== 200) {
      body.on('error', () => {}).destroy()
      throw refusal(url, statusCode)
    }
    const length = Number(headers['content-length'] ?? Number.NaN)
    const stream = Readable.from(pieces(url, body, signal), {
      objectMode: false,
      highWaterMark: 256 * 1024,
    })
    stream.once('close', () => dispatcher.close())
    return { size: Number.isSafeInteger(length) ? length : undefined, body: stream }
  } catch (error) {
    await dispatcher.close()
    signal?.throwIfAborted()
    throw error instanceof GeneratorError ? error : explain(url, error, false)
  }
}

function patientAgent({ silence, retries, pause, maxPause }: Patience): Dispatcher {
  const agent = new Agent({
    connect: { timeout: silence },
    headersTimeout: silence,
    bodyTimeout: silence,
  })
  return agent.compose(
    interceptors.redirect({ maxRedirections: 5 }),
    interceptors.retry({
      maxRetries: retries,
      minTimeout: pause,
      maxTimeout: maxPause,
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
  return new GeneratorError(gone ? 'gone' : 'unreachable', `${url}: the server answers ${status}`)
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
