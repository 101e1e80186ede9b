/*
 * Objects in a bucket of S3 or of a server that speaks it. What fits one part is one PutObject, which is whole or
 * absent by itself; what is larger is uploaded in parts, which are no object before they are completed, and are removed
 * where anything fails before. Where a writer is killed they stay until the next writer of parts finds them a day old.
 *
 * A request that was answered by nothing may have been carried out, and is sent again; so each put has an id of its own
 * among the object's metadata, by which a second attempt that is refused because of the first is told from a refusal.
 *
 * Conditions are S3's `If-None-Match: *` and `If-Match`. Ceph heeds them for one PutObject, and not where it completes
 * parts; so the parts of a conditional put are as large as memory allows.
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
import { clampRange, Measured, toReadable } from './body.ts'
import { StoreError } from './error.ts'
import { checkKey, isKey } from './name.ts'
import { resumedBody } from './s3-body.ts'
import { explainS3, statusOf, wasRetried } from './s3-error.ts'
import { parseS3Url, type S3Location } from './s3-url.ts'
import type { ByteRange, ObjectInfo, PutOptions, Store, StoredObject } from './store.ts'

const MIB = 1024 * 1024
/** Four parts are under way while a fifth is put together, some 60 MiB held at most; of large ones, one at a time. */
const PARTS = { partSize: 5 * MIB, queueSize: 4 }
const CONDITIONAL_PARTS = { partSize: 32 * MIB, queueSize: 1 }
/** S3's limit, in bytes, for a key with its prefix. */
const MAX_KEY = 1024
/** No upload takes this long, in milliseconds. */
const ABANDONED = 24 * 3600 * 1000
/** A request without a body of ours or theirs is given up after so many times the longest silence. */
const PATIENCE = 10
/** Enough for each reader of a busy server to hold one. */
const CONNECTIONS = 512
const CONNECT_TIMEOUT = 5000
/** Where nothing names a region; AWS says where a bucket is, and other servers have no regions. */
const REGION = 'us-east-1'
/** The metadata by which a put knows its object. */
const PUT_ID = 'btfmill-put'

interface MultipartTarget {
  Bucket: string
  Key: string
}

/** Opens the store of a URL without its `s3:`; no request is made. Errors: `unsupported` for what is no such URL. */
export async function openS3(rest: string): Promise<Store> {
  const { location, client } = await connectS3(rest)
  return new S3Store(`s3:${rest}`, location, client)
}

/** What a URL without its `s3:` says, and a client for that; no request is made. Errors: `unsupported`. */
export async function connectS3(rest: string): Promise<{ location: S3Location; client: S3Client }> {
  const location = parseS3Url(rest)
  const region = location.region ?? (await new S3Client({}).config.region().catch(() => REGION))
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
    const asked = range && clampRange(range, Number.MAX_SAFE_INTEGER) // the server knows the size
    const { info, body } = await this.#told(key, this.#read(key, target, asked))
    const start = asked?.start ?? 0
    const end = Math.min(asked?.end ?? info.size, info.size - 1)
    const reopen = async (passed: number): Promise<Readable> => {
      const rest = { start: start + passed, end }
      return (await this.#told(key, this.#read(key, target, rest, info.etag))).body
    }
    return { ...info, body: resumedBody(body, end - start + 1, reopen) }
  }

  async head(key: string): Promise<ObjectInfo> {
    const target = this.#target(key)
    try {
      return infoOf(key, await this.#client.send(new HeadObjectCommand(target), this.#soon()))
    } catch (error) {
      if (![400, 404].includes(statusOf(error))) throw this.#explain(error, key)
    }
    // An answer to HEAD has no body to say what is missing or wrong, the key, the bucket or a token; one to GET has.
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
    if (/[^!-~]/.test(prefix)) return // no key has such a byte, and not every server takes it
    let last = ''
    let token: string | undefined
    do {
      const page = await this.#told('list', this.#page(prefix, token))
      if (page.Name === undefined) throw this.#broken('list', 'the answer is not that of S3')
      for (const { Key = '', Size, ...found } of page.Contents ?? []) {
        const key = decodeKey(Key).slice(this.#location.prefix.length)
        if (!isKey(key)) continue // what others put beside the objects
        if (key <= last) throw this.#broken('list', 'the keys come in another order')
        last = key
        yield infoOf(key, { ...found, ContentLength: Size })
      }
      token = page.NextContinuationToken
    } while (token !== undefined)
  }

  async delete(key: string): Promise<void> {
    const request = new DeleteObjectCommand(this.#target(key))
    await this.#told(key, this.#client.send(request, this.#soon())).catch(absentIsNone)
  }

  /** Stores all that a source gives. What fails in the source passes as it is. */
  async #put(
    key: string,
    target: MultipartTarget,
    source: Readable,
    options: PutOptions,
  ): Promise<ObjectInfo> {
    const { sha256, signal } = options
    const id = randomUUID()
    const measured = new Measured(sha256)
    measured.on('error', () => {}) // the upload, which reads it, tells
    pipeline(source, measured, { ...(signal && { signal }) }).catch(() => {})
    try {
      const etag = await this.#upload(target, measured, id, options)
      const stored = await this.#own(key, target, id).catch(() => undefined) // who may put may not read
      return stored ?? { key, size: measured.bytes, etag, modified: new Date() }
    } catch (error) {
      if (error === measured.errored) throw error
      const stored = wasRetried(error) && (await this.#told(key, this.#own(key, target, id)))
      if (stored) return stored
      throw this.#refused(error, key, options.ifMatch)
    }
  }

  /** Uploads a body, at once or in parts; its etag. */
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
    if (!ETag) throw this.#broken(target.Key, 'the answer has no ETag')
    return unquoted(ETag)
  }

  /** The object where it is the one that the put of this id stored. */
  async #own(key: string, target: MultipartTarget, id: string): Promise<ObjectInfo | undefined> {
    try {
      const found = await this.#client.send(new HeadObjectCommand(target), this.#soon())
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
    if (!(body instanceof Readable)) throw this.#broken(key, 'the answer has no body')
    try {
      if (!range) return { info: infoOf(key, answer), body }
      const [, start, size] = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.ContentRange ?? '') ?? []
      if (Number(start) === range.start)
        return { info: infoOf(key, { ...answer, ContentLength: Number(size) }), body }
      throw this.#broken(key, 'the answer is another range')
    } catch (error) {
      body.destroy()
      throw error
    }
  }

  #page(prefix: string, token: string | undefined): Promise<ListObjectsV2CommandOutput> {
    const request = new ListObjectsV2Command({
      Bucket: this.#location.bucket,
      Prefix: `${this.#location.prefix}${prefix}`,
      EncodingType: 'url', // what others put there may not be XML
      ContinuationToken: token,
    })
    return this.#client.send(request, this.#soon())
  }

  /** Removes, once, the parts that killed writers left. Who may not list them may still store. */
  async #removeAbandoned(): Promise<void> {
    if (this.#cleaned) return
    this.#cleaned = true
    const { bucket: Bucket, prefix: Prefix } = this.#location
    const request = new ListMultipartUploadsCommand({ Bucket, Prefix })
    const found = await this.#client.send(request, this.#soon()).catch(() => undefined)
    for (const { Key, UploadId, Initiated } of found?.Uploads ?? []) {
      if (!Initiated || Date.now() - Initiated.getTime() < ABANDONED) continue
      const abort = new AbortMultipartUploadCommand({ Bucket, Key, UploadId })
      await this.#client.send(abort, this.#soon()).catch(() => {})
    }
  }

  #target(key: string): MultipartTarget {
    checkKey(key)
    const { bucket, prefix } = this.#location
    if (prefix.length + key.length > MAX_KEY)
      throw new StoreError('invalid_key', `${this.url}: a key has more than ${MAX_KEY} bytes`)
    return { Bucket: bucket, Key: `${prefix}${key}` }
  }

  #soon(): { abortSignal: AbortSignal } {
    return { abortSignal: AbortSignal.timeout(PATIENCE * this.#location.timeout) }
  }

  /** The result of a request, or its error as what it means for `what`. */
  #told<T>(what: string, done: Promise<T>): Promise<T> {
    return done.catch((error) => {
      throw this.#explain(error, what)
    })
  }

  #explain(error: unknown, what: string): StoreError {
    return explainS3(error, `${this.url}: ${what}`)
  }

  /** Why a put failed. AWS says of `If-Match` over nothing that the key is not there. */
  #refused(error: unknown, key: string, ifMatch: string | undefined): StoreError {
    const explained = this.#explain(error, key)
    if (explained.code !== 'not_found') return explained
    const code = ifMatch === undefined ? 'unreachable' : 'precondition_failed'
    return new StoreError(code, explained.message, { cause: error })
  }

  #broken(what: string, told: string): StoreError {
    return new StoreError('unreachable', `${this.url}: ${what}: ${told}`)
  }
}

/** Ceph compares what `If-Match` says to the bare tag, and AWS takes that as well. */
const unquoted = (etag: string): string => etag.replace(/^"(.*)"$/, '$1')

/** A key as a listing gives it. What does not decode is none of ours. */
function decodeKey(encoded: string): string {
  try {
    return decodeURIComponent(encoded.replaceAll('+', ' '))
  } catch {
    return ''
  }
}

const absentIsNone = (error: unknown): undefined => {
  if (error instanceof StoreError && error.code === 'not_found') return undefined
  throw error
}

interface S3Response {
  ETag?: string | undefined
  LastModified?: Date | undefined
  ContentLength?: number | undefined
}

/** The answer to HEAD has whole seconds, a listing milliseconds; so all have seconds. */
function infoOf(
  key: string,
  { ETag: etag, LastModified, ContentLength: size }: S3Response,
): ObjectInfo {
  const seconds = Math.floor((LastModified?.getTime() ?? Number.NaN) / 1000)
  if (!etag || size === undefined || !Number.isSafeInteger(size) || !Number.isFinite(seconds))
    throw new StoreError('unreachable', `${key}: the answer is not that of S3`)
  return { key, size, etag: unquoted(etag), modified: new Date(seconds * 1000) }
}
