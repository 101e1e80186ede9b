/*
 * Response bodies of BTF in each content encoding. A body comes from the body cache, or is read from the store and
 * checked against its digest; concurrent requests share one read. zstd is the primary encoding: the store keeps blobs
 * in it, and BTF of packs and derived BTF are cached in it. The other encodings are made from the zstd body.
 */
import { promisify } from 'node:util'
import { constants, gzip, zstdCompress } from 'node:zlib'
import { DIALECTS, type Dialect } from '../../bpf/index.ts'
import {
  blobKey,
  decompressBlob,
  orPacked,
  type PackedBtf,
  packsOf,
  readBlob,
  type Store,
  StoreError,
  sha256Of,
} from '../../storage/index.ts'
import { Semaphore } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Pool } from '../threads/pool.ts'
import type { Body, BodyCache } from './body-cache.ts'

/** The media type of BTF. */
export const BTF_TYPE = 'application/octet-stream'
/** The media type of a C header: browsers show it. */
export const HEADER_TYPE = 'text/plain'
/** `Cache-Control` of a URL that names a digest, and of any other URL. */
export const IMMUTABLE = 'public, max-age=31536000, immutable'
export const SHORT = 'public, max-age=60'

/** Content encodings of BTF, in order of preference. */
export const ENCODINGS = ['zstd', 'gzip', 'identity'] as const
export type Encoding = (typeof ENCODINGS)[number]

/** Selects a blob, or BTF that is derived from it: with modules merged in, in an older dialect, or in an ELF file. */
export interface BtfSelector {
  /** of the raw bytes of the blob, in hex */
  sha256: string
  /** digests of the BTF of the modules to merge in, in this order */
  modules?: readonly string[]
  dialect?: Dialect
  /** as section `.BTF` of an ELF file */
  container?: 'elf'
  /** as a C header, in place of BTF */
  header?: true
}

/** Concurrent reads of blobs, each of some megabytes, and the number of reads that may wait. */
const READS = 8
const MAX_WAITING = 10_000

export class Bodies {
  readonly #store: Store
  readonly #cache: BodyCache
  readonly #pool: Pool
  readonly #gate = new Semaphore(READS, MAX_WAITING)
  /** since the start: blobs read from the store, and BTF derived from other BTF */
  readonly counts = { read: 0, derived: 0 }

  constructor(store: Store, cache: BodyCache, pool: Pool) {
    this.#store = store
    this.#cache = cache
    this.#pool = pool
  }

  /**
   * Returns the bytes of BTF in an encoding, and the digest of its raw bytes. Errors: `unknown_blob`, `busy`; those of
   * `Pool.run` and of `Store.get`.
   */
  get(wanted: BtfSelector, encoding: Encoding): Promise<Body> {
    return this.#cache.body(keyOf(wanted, encoding), async () => {
      if (encoding === 'zstd')
        return isAsStored(wanted) ? await this.#read(wanted.sha256) : await this.#derive(wanted)
      const { bytes, sha256 } = await this.get(wanted, 'zstd')
      return { bytes: await encode(await decompressBlob(bytes), encoding), sha256 }
    })
  }

  /** Returns the bytes for a key of `keyOf` while they are cached. */
  held(key: string): Buffer | undefined {
    return this.#cache.find(key)?.bytes
  }

  /** Tells whether BTF has a blob, which others can read; in a store without packs it must have one. */
  async hasBlob(sha256: string): Promise<boolean> {
    if (packsOf(this.#store).list().length === 0) return true
    return await this.#store.head(blobKey(sha256)).then(
      () => true,
      () => false,
    )
  }

  /** Returns the raw bytes of a blob. Errors: those of `get`. */
  async raw(sha256: string): Promise<Buffer> {
    return (await this.get({ sha256 }, 'identity')).bytes
  }

  async #read(sha256: string): Promise<Body> {
    try {
      const bytes = await this.#gate.run(() =>
        orPacked(
          async () => (await readBlob(this.#store, sha256)).compressed,
          () => this.#unpack(sha256),
        ),
      )
      this.counts.read++
      return { bytes, sha256 }
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
      throw new ServiceError('unknown_blob', `no BTF has the SHA-256 digest ${sha256}`)
    }
  }

  /** Rebuilds BTF that only a pack has, in a thread: a long chain takes a tenth of a second. */
  async #unpack(sha256: string): Promise<Buffer | undefined> {
    const unpack = (btf: PackedBtf) => this.#pool.run('unpack', { btf })
    const raw = await packsOf(this.#store).rebuild(sha256, unpack)
    return raw && (await encode(raw, 'zstd'))
  }

  async #derive({ sha256, modules = [], dialect, container, header }: BtfSelector): Promise<Body> {
    const raw = await this.#pool.run('derive', {
      btf: await this.raw(sha256),
      modules: await Promise.all(modules.map((module) => this.raw(module))),
      ...(dialect && { dialect }),
      ...(container && { container }),
      ...(header && { header }),
    })
    this.counts.derived++
    return { bytes: await encode(raw, 'zstd'), sha256: sha256Of(raw) }
  }
}

/** Encodes raw bytes. The levels are low enough for a request to wait for the result: 0.1 s for 4 MB. */
export async function encode(raw: Uint8Array, encoding: Encoding): Promise<Buffer> {
  switch (encoding) {
    case 'zstd':
      return await promisify(zstdCompress)(raw, {
        params: { [constants.ZSTD_c_compressionLevel]: 9 },
        pledgedSrcSize: raw.length,
      })
    case 'gzip':
      return await promisify(gzip)(raw)
    case 'identity':
      return Buffer.from(raw.buffer, raw.byteOffset, raw.length)
    default:
      return encoding satisfies never
  }
}

/** True if the selector names a blob of the store: its digest is known without its bytes. */
export const isAsStored = ({ modules = [], dialect, container, header }: BtfSelector): boolean =>
  modules.length === 0 && dialect === undefined && container === undefined && !header

/** The cache key of BTF in an encoding. */
export const keyOf = (
  { sha256, modules = [], dialect, container, header }: BtfSelector,
  encoding: Encoding,
): string =>
  `${encoding} ${sha256} ${dialect ?? ''} ${header ? 'header' : (container ?? '')} ${modules.length > 0 ? sha256Of(modules.join()) : ''}`

export const DIALECT_NAMES = Object.keys(DIALECTS) as Dialect[]
