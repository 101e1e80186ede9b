/*
 * A btfmill service as a command uses it: requests with a token, and answers of many lines. All that a server sends is
 * untrusted: bytes, lines and times are limited, and a refusal becomes the error that the same work here would end with.
 */
import { setMaxListeners } from 'node:events'
import { BtfError, type BtfErrorCode } from '../../bpf/index.ts'
import { SERVICE_ERROR_CODES, ServiceError, type ServiceErrorCode } from '../error.ts'
import {
  type ClientResponse,
  type EncodedForm,
  encodeForm,
  FetchError,
  isToken,
  openWithRetry,
  type Reader,
  type RequestOptions,
  requestWithRetry,
} from './request.ts'

/** Milliseconds for all requests of a command together. */
const DEADLINE = 60 * 60 * 1000
/** Milliseconds without a byte: a service may work on one object for a while. */
const TIMEOUT = 120_000
/** Bytes of a line: results have up to 4 MB. */
const MAX_LINE = 8 * 1024 * 1024
/** Bytes of an answer; a service cuts its own answers at 256 MB, unless it is told otherwise. */
const MAX_ANSWER = 1024 * 1024 * 1024

/** A file that is sent. */
export interface FormFile {
  name: string
  bytes: Uint8Array
}

/** What is asked for: values of query parameters, and files to send. */
export interface RemoteQuery {
  query?: Readonly<Record<string, string | boolean | readonly string[] | undefined>>
  /** BPF objects; with an empty list the request is a POST without a body */
  objects?: readonly FormFile[]
  /** the media type of the answer */
  accept?: string
}

export interface RemoteOptions {
  token?: string
  /** milliseconds for all requests together (default: an hour) */
  deadline?: number
  /** milliseconds without a byte after which a request fails (default: two minutes) */
  timeout?: number
}

export class RemoteServer {
  /** the address without credentials, for messages */
  readonly origin: string
  readonly #base: string
  readonly #options: RequestOptions
  readonly #deadline: number
  readonly #end: AbortSignal

  /** Errors: `invalid_request` for an address that is none, or a token that cannot be sent. */
  constructor(
    server: string,
    { token, deadline = DEADLINE, timeout = TIMEOUT }: RemoteOptions = {},
  ) {
    const url = URL.parse(server)
    if (!url || !['http:', 'https:'].includes(url.protocol))
      throw new ServiceError('invalid_request', 'invalid server: expected http://HOST:PORT')
    if (token !== undefined && !isToken(token))
      throw new ServiceError('invalid_request', 'invalid token: expected one line, as printed')
    this.origin = url.origin
    this.#base = server.replace(/\/+$/, '')
    this.#deadline = deadline
    this.#end = AbortSignal.timeout(deadline)
    setMaxListeners(0, this.#end)
    this.#options = { timeout, signal: this.#end, ...(token !== undefined && { token }) }
  }

  /** Reads a whole answer. Errors: `FetchError`; those of the service, as `ServiceError` or `BtfError`. */
  request<T>(path: string, query: RemoteQuery, read: Reader<T>): Promise<T> {
    return this.#translated(async () =>
      requestWithRetry(this.#url(path, query), read, await this.#optionsFor(query)),
    )
  }

  /** Yields the bytes of an answer, at most `limit`. Errors: those of `request`; `invalid_response` beyond the limit. */
  async *bytes(path: string, query: RemoteQuery, limit = MAX_ANSWER): AsyncGenerator<Buffer> {
    const { body, headers } = await this.#translated<ClientResponse>(async () =>
      openWithRetry(this.#url(path, query), await this.#optionsFor(query)),
    )
    try {
      const type = String(headers['content-type']).split(';')[0]!.trim()
      if (query.accept !== undefined && type !== query.accept)
        throw this.invalid(`it has the media type ${type}: expected ${query.accept}`)
      if (headers['content-encoding'] !== undefined)
        throw this.invalid(`it is encoded as ${headers['content-encoding']}: expected plain bytes`)
      let left = limit
      for await (const chunk of this.#untilEnd(body)) {
        left -= chunk.length
        if (left < 0) throw this.invalid(`it has more than ${limit} bytes`)
        yield chunk
      }
    } finally {
      body.destroy()
    }
  }

  /** Yields the lines of an answer as JSON values. Errors: those of `bytes`; `invalid_response` for other lines. */
  async *lines(path: string, query: RemoteQuery): AsyncGenerator<unknown> {
    let pieces: Buffer[] = []
    let size = 0
    for await (const chunk of this.bytes(path, { ...query, accept: 'application/x-ndjson' })) {
      let start = 0
      for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
        yield this.#json(Buffer.concat([...pieces, chunk.subarray(start, end)]))
        ;[pieces, size, start] = [[], 0, end + 1]
      }
      const rest = chunk.subarray(start)
      pieces.push(rest)
      size += rest.length
      if (size > MAX_LINE) throw this.invalid(`a line has more than ${MAX_LINE} bytes`)
    }
    if (size > 0) throw this.invalid('it ends in the middle of a line')
  }

  /** The error of an answer that is not one of a btfmill service. */
  invalid(why: string): FetchError {
    return new FetchError('invalid_response', `invalid answer of ${this.origin}: ${why}`)
  }

  #json(line: Buffer): unknown {
    try {
      return JSON.parse(line.toString('utf8'))
    } catch {
      throw this.invalid('a line is not JSON')
    }
  }

  #url(path: string, { query = {} }: RemoteQuery): URL {
    const url = new URL(`${this.#base}/${path}`)
    for (const [name, value] of Object.entries(query))
      for (const one of [value].flat())
        if (one !== undefined) url.searchParams.append(name, `${one}`)
    // `+` in a query of the service is `+`, not a space
    url.search = url.search.replaceAll('+', '%20')
    return url
  }

  async #optionsFor({ objects, accept }: RemoteQuery): Promise<RequestOptions> {
    const form = objects && { form: await formOf(objects) }
    return { ...this.#options, ...form, ...(accept !== undefined && { accept }) }
  }

  async *#untilEnd(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    try {
      yield* body
    } catch (cause) {
      if (this.#end.aborted) throw this.#late(cause)
      const message = `${this.origin}: the answer ended early: ${(cause as Error).message}`
      throw new FetchError('unreachable', message, { cause })
    }
  }

  async #translated<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (cause) {
      if (cause === this.#end.reason) throw this.#late(cause)
      throw cause instanceof FetchError ? errorOf(cause) : cause
    }
  }

  #late(cause: unknown): FetchError {
    const message = `${this.origin} has not answered within ${this.#deadline / 1000} seconds`
    return new FetchError('timeout', message, { cause })
  }
}

async function formOf(objects: readonly FormFile[]): Promise<EncodedForm> {
  // the service takes a body without files for an incomplete form
  if (objects.length === 0) return { type: '', bytes: Buffer.alloc(0) }
  const form = new FormData()
  for (const { name, bytes } of objects) form.append('object', new Blob([Buffer.from(bytes)]), name)
  return await encodeForm(form)
}

const isServiceCode = (code: string): code is ServiceErrorCode =>
  (SERVICE_ERROR_CODES as readonly string[]).includes(code)

/** The error that a problem document stands for; without a code of ours, the refusal as it is. */
function errorOf(refusal: FetchError): Error {
  const { problem, message, details } = refusal
  const { reason } = details
  if (problem === 'invalid_object' && typeof reason === 'string' && /^[a-z_]{1,64}$/.test(reason))
    return new BtfError(reason as BtfErrorCode, message)
  if (problem === undefined || !isServiceCode(problem)) return refusal
  return new ServiceError(problem, message, { cause: refusal, details })
}
