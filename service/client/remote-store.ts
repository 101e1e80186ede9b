/*
 * The kernels of a service as a store that can only be read: records are objects, and BTF is fetched when it is read. So
 * commands that look up, list or print kernels work in the same way over a store and over a service. What a service does
 * not publish, such as the failures of sources, is not there.
 */

import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { constants, zstdCompress } from 'node:zlib'
import {
  type BuildRecord,
  blobKey,
  buildOf,
  decodeName,
  type ObjectInfo,
  recordKey,
  type Store,
  type StoredObject,
  StoreError,
  sha256Of,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import type { RemoteServer } from './remote.ts'

/** The largest BTF that is accepted, in bytes. A distribution's largest kernels have 10 MB. */
const MAX_BTF = 64 * 1024 * 1024

const KERNELS = 'kernels/'
const PARTS = ['distro', 'version', 'arch', 'release'] as const
const PARTIAL = 'partial/'
const BLOB = /^(?:partial\/)?blobs\/..\/([0-9a-f]{64})\./

export class RemoteStore implements Store {
  readonly server: RemoteServer
  /** the records that were listed, as JSON, by their keys */
  readonly #records = new Map<string, Buffer>()

  constructor(server: RemoteServer) {
    this.server = server
  }

  get url(): string {
    return this.server.origin
  }

  async get(key: string): Promise<StoredObject> {
    const [, sha256] = BLOB.exec(key) ?? []
    const partial = key.startsWith(PARTIAL)
    const bytes = sha256 === undefined ? this.#records.get(key) : await this.#blob(sha256, partial)
    if (!bytes) throw notFound(key)
    return { ...infoOf(key, bytes), body: Readable.from([bytes], { objectMode: false }) }
  }

  async head(key: string): Promise<ObjectInfo> {
    const bytes = this.#records.get(key)
    if (!bytes) throw notFound(key)
    return infoOf(key, bytes)
  }

  async *list(whole: string): AsyncGenerator<ObjectInfo> {
    const start = whole.startsWith(PARTIAL) ? PARTIAL : ''
    const prefix = whole.slice(start.length)
    if (!prefix.startsWith(KERNELS)) return
    const names = prefix.split('/').slice(1, -1).map(decodeName)
    const query = {
      ...Object.fromEntries(names.map((name, n) => [PARTS[n]!, name])),
      ...(start !== '' && { partial: 'only' }),
    }
    for await (const line of this.server.lines('v1/kernels', { query })) {
      const [inside, bytes] = this.#recordIn(line)
      if (!inside.startsWith(prefix)) continue
      const key = start + inside
      this.#records.set(key, bytes)
      yield infoOf(key, bytes)
    }
  }

  put(): Promise<ObjectInfo> {
    throw readOnly()
  }

  delete(): Promise<void> {
    throw readOnly()
  }

  /** The key and the text of a record in a list. Whoever reads the record validates it. */
  #recordIn(line: unknown): [string, Buffer] {
    try {
      const { state: _, links: __, ...record } = line as BuildRecord & Record<string, unknown>
      const sizes = [record.btf, ...Object.values(record.modules ?? {})].map(
        (btf) => btf?.size ?? 0,
      )
      if (sizes.some((size) => size > MAX_BTF)) throw new Error(`BTF over ${MAX_BTF} bytes`)
      const key = recordKey(record.kernel, buildOf(record))
      return [key, Buffer.from(JSON.stringify(record))]
    } catch (cause) {
      throw this.server.invalid(`a line of its list is not a kernel: ${(cause as Error).message}`)
    }
  }

  /** The zstd frame of a blob, not yet checked: each reader of a blob compares its digest. */
  async #blob(sha256: string, partial: boolean): Promise<Buffer> {
    try {
      return await this.server.request(
        `v1/btf/sha256/${sha256}`,
        partial ? { query: { partial: 'allow' } } : {},
        async (bytes, { 'content-encoding': encoding }) =>
          encoding === 'zstd' ? bytes : await compressed(bytes),
      )
    } catch (cause) {
      if (!(cause instanceof ServiceError) || cause.code !== 'unknown_blob') throw cause
      throw new StoreError('not_found', `${blobKey(sha256)} does not exist`, { cause })
    }
  }
}

/** A frame for a server, or a proxy, that sends plain bytes. */
const compressed = (bytes: Buffer): Promise<Buffer> =>
  promisify(zstdCompress)(bytes, {
    params: { [constants.ZSTD_c_compressionLevel]: 1 },
    pledgedSrcSize: bytes.length,
  })

const infoOf = (key: string, bytes: Buffer): ObjectInfo => ({
  key,
  size: bytes.length,
  etag: sha256Of(bytes),
  modified: new Date(0),
})

const notFound = (key: string): StoreError => new StoreError('not_found', `${key} does not exist`)

const readOnly = (): StoreError =>
  new StoreError('unsupported', 'a server can only be read: write to its store')
