/*
 * A store in a bucket of S3 or of a compatible server. An object that fits one part is written by one PutObject, which
 * is atomic. A larger object is uploaded in parts. They become an object when the upload is completed, and are removed
 * if anything fails before. The parts of a killed writer stay until a later multipart writer finds them a day old.
 *
 * A request without a response may have been carried out, and is sent again. So each put stores an id in the object's
 * metadata. If the second attempt is rejected because the first succeeded, the id shows it.
 *
 * Conditions are S3's `If-None-Match: *` and `If-Match`. Ceph applies them to PutObject, but not to the completion of a
 * multipart upload. So the parts of a conditional put are as large as memory allows.
 *
 * Credentials, the number of attempts and the checksums of requests are the SDK's settings: `AWS_PROFILE`,
 * `AWS_MAX_ATTEMPTS`, `AWS_REQUEST_CHECKSUM_CALCULATION`, …
 */
import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  S3Client,
} from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { clampRange, HashingStream, toReadable } from './body.ts'
import { ignoreNotFound, StoreError } from './error.ts'
import { checkKey, isKey } from './name.ts'
import { resumedBody } from './s3-body.ts'
import { statusOf, toStoreError, wasRetried } from './s3-error.ts'
import { parseS3Url, type S3Location } from './s3-url.ts'
import type { ByteRange, ObjectInfo, PutOptions, Store, StoredObject } from './store.ts'

const MIB = 1024 * 1024
/** Four parts are sent while a fifth is filled: about 60 MiB at most. Large parts are sent one at a time. */
const PARTS = { partSize: 5 * MIB, queueSize: 4 }
const CONDITIONAL_PARTS = { partSize: 32 * MIB, queueSize: 1 }
/** S3's limit for prefix and key together, in bytes. */
const MAX_KEY = 1024
/** A multipart upload that was started this long ago is abandoned, in milliseconds. */
const ABANDONED = 24 * 3600 * 1000
/** A request without object bytes times out after this many times the location's `timeout`. */
const TIMEOUT_FACTOR = 10
/** The largest number of connections: enough for each reader of a busy server. */
const CONNECTIONS = 512
const CONNECT_TIMEOUT = 5000
/** The default region. AWS redirects to a bucket's region, and other servers have no regions. */
const DEFAULT_REGION = 'us-east-1'
/** The metadata field with the id of the put that stored an object. */
const PUT_ID = 'btfmill-put'

interface MultipartTarget {
  Bucket: string
  Key: string
}

/** Opens the store of a URL without its `s3:`. It sends no request. Errors: `unsupported` for an invalid URL. */
export async function openS3(rest: string): Promise<Store> {
  const { location, client } = await connectS3(rest)
  return new S3Store(`s3:${rest}`, location, client)
}

/** Parses a URL without its `s3:` and makes a client for it. It sends no request. Errors: `unsupported`. */
export async function connectS3(rest: string): Promise<{ location: S3Location; client: S3Client }> {
  const location = parseS3Url(rest)
  const region =
    location.region ?? (await new S3Client({}).config.region().catch(() => DEFAULT_REGION))
  return { location, client: connect(location, region) }
}

function connect({ endpoint, pathStyle, timeout }: S3Location, region: string): S3Client {
  const agent = { maxSockets: CONNECTIONS }
  return new S3Client({
    region,
    followRegionRedirects: true,
    forcePathStyle: pathStyle,
    ...(endpoint !== undefined && { endpoint }),
    requestHandler: {
      connectionTimeout: Math.min(CONNECT_TIMEOUT, timeout),
      socketTimeout: timeout,
      httpAgent: agent,
      httpsAgent: agent,
    },
  })
}

class S3Store implements Store {
  readonly url: string
  readonly #location: S3Location
  readonly #client: S3Client
  #cleaned = false

  constructor(url: string, location: S3Location, client: S3Client) {
    this.url = url
    this.#location = location
    this.#client = client
  }

  async get(key: string, range?: ByteRange): Promise<StoredObject> {
    const target = this.#target(key)
    const asked = range && clampRange(range, Number.MAX_SAFE_INTEGER) // only the server knows the size
    const { info, body } = await this.#mapped(key, this.#read(key, target, asked))
    const start = asked?.start ?? 0
    const end = Math.min(asked?.end ?? info.size, info.size - 1)
    const reopen = async (passed: number): Promise<Readable> => {
      const rest = { start: start + passed, end }
      return (await this.#mapped(key, this.#read(key, target, rest, info.etag))).body
    }
    return { ...info, body: resumedBody(body, end - start + 1, reopen) }
  }

  async head(key: string): Promise<ObjectInfo> {
    const target = this.#target(key)
    try {
      return infoOf(key, await this.#client.send(new HeadObjectCommand(target), this.#timeout()))
    } catch (error) {
      if (![400, 404].includes(statusOf(error))) throw this.#toStoreError(error, key)
    }
    // A response to HEAD has no body that says what is missing or wrong: key, bucket or token. One to GET has.
    const { body, ...info } = await this.get(key)
    body.destroy()
    return info
  }

  async put(
    key: string,
    body: Readable | Uint8Array,
    options: PutOptions = {},
  ): Promise<ObjectInfo> {
    const source = toReadable(body)
    try {
      const info = await this.#put(key, this.#target(key), source, options)
      if (info.size > PARTS.partSize) await this.#removeAbandoned()
      return info
    } finally {
      source.destroy()
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    if (/[^!-~]/.test(prefix)) return // no key has such a byte, and not every server accepts it
    let last = ''
    let token: string | undefined
    do {
      const page = await this.#mapped('list', this.#page(prefix, token))
      if (page.Name === undefined) throw this.#invalidResponse('list', 'it is not a listing of S3')
      for (const { Key = '', Size, ...found } of page.Contents ?? []) {
        const key = decodeKey(Key).slice(this.#location.prefix.length)
        if (!isKey(key)) continue // an object of others
        if (key <= last) throw this.#invalidResponse('list', 'the keys are not in byte order')
        last = key
        yield infoOf(key, { ...found, ContentLength: Size })
      }
      token = page.NextContinuationToken
    } while (token !== undefined)
  }

  async delete(key: string): Promise<void> {
    const request = new DeleteObjectCommand(this.#target(key))
    await this.#mapped(key, this.#client.send(request, this.#timeout())).catch(ignoreNotFound)
  }

  /** Stores the bytes of a source. Errors: those of `put`; the source's own are passed on unchanged. */
  async #put(
    key: string,
    target: MultipartTarget,
    source: Readable,
    options: PutOptions,
  ): Promise<ObjectInfo> {
    const { sha256, signal } = options
    const id = randomUUID()
    const hashing = new HashingStream(sha256)
    hashing.on('error', () => {}) // the upload, which reads the stream, fails with the error
    pipeline(source, hashing, { ...(signal && { signal }) }).catch(() => {})
    try {
      const etag = await this.#upload(target, hashing, id, options)
      const stored = await this.#own(key, target, id).catch(() => undefined) // a writer may lack read access
      return stored ?? { key, size: hashing.bytes, etag, modified: new Date() }
    } catch (error) {
      if (error === hashing.errored) throw error
      const stored = wasRetried(error) && (await this.#mapped(key, this.#own(key, target, id)))
      if (stored) return stored
      throw this.#putError(error, key, options.ifMatch)
    }
  }

  /** Uploads a body, by one request or in parts. Returns the etag. */
  async #upload(
    target: MultipartTarget,
    body: Readable,
    id: string,
    { ifAbsent, ifMatch }: PutOptions,
  ): Promise<string> {
    const conditions = {
      ...(ifAbsent && { IfNoneMatch: '*' }),
      ...(ifMatch !== undefined && { IfMatch: ifMatch }),
    }
    const upload = new Upload({
      client: this.#client,
      params: { ...target, ...conditions, Body: body, Metadata: { [PUT_ID]: id } },
      ...(Object.keys(conditions).length > 0 ? CONDITIONAL_PARTS : PARTS),
    })
    const { ETag } = await upload.done()
    if (!ETag) throw this.#invalidResponse(target.Key, 'it has no ETag')
    return unquoted(ETag)
  }

  /** The object's info if the put with this id stored it; undefined for another object or none. */
  async #own(key: string, target: MultipartTarget, id: string): Promise<ObjectInfo | undefined> {
    try {
      const found = await this.#client.send(new HeadObjectCommand(target), this.#timeout())
      return found.Metadata?.[PUT_ID] === id ? infoOf(key, found) : undefined
    } catch (error) {
      if (statusOf(error) === 404) return undefined
      throw error
    }
  }

  async #read(
    key: string,
    target: MultipartTarget,
    range?: ByteRange,
    etag?: string,
  ): Promise<{ info: ObjectInfo; body: Readable }> {
    const request = new GetObjectCommand({
      ...target,
      ...(range && { Range: `bytes=${range.start}-${range.end ?? ''}` }),
      ...(etag !== undefined && { IfMatch: etag }),
    })
    const { Body: body, ...answer } = await this.#client.send(request)
    if (!(body instanceof Readable)) throw this.#invalidResponse(key, 'it has no body')
    try {
      if (!range) return { info: infoOf(key, answer), body }
      const [, start, size] = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.ContentRange ?? '') ?? []
      if (Number(start) === range.start)
        return { info: infoOf(key, { ...answer, ContentLength: Number(size) }), body }
      throw this.#invalidResponse(key, 'it has another range')
    } catch (error) {
      body.destroy()
      throw error
    }
  }

  #page(prefix: string, token: string | undefined): Promise<ListObjectsV2CommandOutput> {
    const request = new ListObjectsV2Command({
      Bucket: this.#location.bucket,
      Prefix: `${this.#location.prefix}${prefix}`,
      EncodingType: 'url', // the keys of others may not be valid in XML
      ContinuationToken: token,
    })
    return this.#client.send(request, this.#timeout())
  }

  /** Removes, once, the parts of killed writers. Errors are ignored: a writer may lack the right to list parts. */
  async #removeAbandoned(): Promise<void> {
    if (this.#cleaned) return
    this.#cleaned = true
    const { bucket: Bucket, prefix: Prefix } = this.#location
    const request = new ListMultipartUploadsCommand({ Bucket, Prefix })
    const found = await this.#client.send(request, this.#timeout()).catch(() => undefined)
    for (const { Key, UploadId, Initiated } of found?.Uploads ?? []) {
      if (!Initiated || Date.now() - Initiated.getTime() < ABANDONED) continue
      const abort = new AbortMultipartUploadCommand({ Bucket, Key, UploadId })
      await this.#client.send(abort, this.#timeout()).catch(() => {})
    }
  }

  #target(key: string): MultipartTarget {
    checkKey(key)
    const { bucket, prefix } = this.#location
    if (prefix.length + key.length > MAX_KEY)
      throw new StoreError(
        'invalid_key',
        `${this.url}: prefix and key have more than ${MAX_KEY} bytes`,
      )
    return { Bucket: bucket, Key: `${prefix}${key}` }
  }

  #timeout(): { abortSignal: AbortSignal } {
    return { abortSignal: AbortSignal.timeout(TIMEOUT_FACTOR * this.#location.timeout) }
  }

  /** Awaits a request and maps its error to a `StoreError` about `what`. */
  #mapped<T>(what: string, request: Promise<T>): Promise<T> {
    return request.catch((error) => {
      throw this.#toStoreError(error, what)
    })
  }

  #toStoreError(error: unknown, what: string): StoreError {
    return toStoreError(error, `${this.url}: ${what}`)
  }

  /** The error of a put. AWS answers NoSuchKey to `If-Match` if the key has no object. */
  #putError(error: unknown, key: string, ifMatch: string | undefined): StoreError {
    const mapped = this.#toStoreError(error, key)
    if (mapped.code !== 'not_found') return mapped
    const code = ifMatch === undefined ? 'unreachable' : 'precondition_failed'
    return new StoreError(code, mapped.message, { cause: error })
  }

  #invalidResponse(what: string, reason: string): StoreError {
    return new StoreError('unreachable', `${this.url}: ${what}: invalid response: ${reason}`)
  }
}

/** Ceph compares `If-Match` with the tag without quotes, and AWS accepts that as well. */
const unquoted = (etag: string): string => etag.replace(/^"(.*)"$/, '$1')

/** Decodes a key of a listing. A key that does not decode is not ours and becomes empty. */
function decodeKey(encoded: string): string {
  try {
    return decodeURIComponent(encoded.replaceAll('+', ' '))
  } catch {
    return ''
  }
}

interface S3Response {
  ETag?: string | undefined
  LastModified?: Date | undefined
  ContentLength?: number | undefined
}

/** The info in a response. HEAD has whole seconds and a listing milliseconds, so all times are cut to seconds. */
function infoOf(
  key: string,
  { ETag: etag, LastModified, ContentLength: size }: S3Response,
): ObjectInfo {
  const seconds = Math.floor((LastModified?.getTime() ?? Number.NaN) / 1000)
  if (!etag || size === undefined || !Number.isSafeInteger(size) || !Number.isFinite(seconds))
    throw new StoreError('unreachable', `${key}: invalid response: it is not one of S3`)
  return { key, size, etag: unquoted(etag), modified: new Date(seconds * 1000) }
}
