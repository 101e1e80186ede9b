/*
 * BTF in the form in which it is sent, from memory, else from the store: read and compared with its digest once,
 * however many ask for it meanwhile. The first form is zstd: the store has it, and what is made of BTF is kept as it.
 * The others are made of that.
 */
import { promisify } from 'node:util'
import { constants, gzip, zstdCompress } from 'node:zlib'
import { DIALECTS, type Dialect } from '../../bpf/index.ts'
import { decompressBlob, readBlob, type Store, StoreError, sha256Of } from '../../storage/index.ts'
import { Semaphore } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Pool } from '../threads/pool.ts'
import type { Body, BodyCache } from './body-cache.ts'

/** Media type of BTF, and the two `Cache-Control` values: of an address that names a digest, and of any other. */
export const BTF_TYPE = 'application/octet-stream'
export const IMMUTABLE = 'public, max-age=31536000, immutable'
export const SHORT = 'public, max-age=60'

/** In order of preference. */
export const ENCODINGS = ['zstd', 'gzip', 'identity'] as const
export type Encoding = (typeof ENCODINGS)[number]

/** BTF as somebody wants it: that with a digest of its raw bytes, or what is made of it. */
export interface BtfSelector {
  /** hex */
  sha256: string
  /** digests of the BTF of modules, to be merged in, in this order */
  modules?: readonly string[]
  dialect?: Dialect
}

/** So many blobs are read and decompressed at a time, each of some megabytes; the others wait. */
const READS = 8
const WAITING = 10_000

export class Bodies {
  readonly #store: Store
  readonly #memory: BodyCache
  readonly #pool: Pool
  readonly #gate = new Semaphore(READS, WAITING)
  /** since the start: blobs read from the store, and BTF made of others */
  readonly counts = { read: 0, derived: 0 }

  constructor(store: Store, memory: BodyCache, pool: Pool) {
    this.#store = store
    this.#memory = memory
    this.#pool = pool
  }

  /**
   * The bytes of BTF in an encoding, and the digest of its raw bytes. Errors: `unknown_blob`, `busy`, those of
   * `Pool.run`, those of the store.
   */
  get(wanted: BtfSelector, encoding: Encoding): Promise<Body> {
    return this.#memory.body(keyOf(wanted, encoding), async () => {
      if (encoding === 'zstd')
        return isAsStored(wanted) ? await this.#read(wanted.sha256) : await this.#derive(wanted)
      const { bytes, sha256 } = await this.get(wanted, 'zstd')
      return { bytes: await encode(await decompressBlob(bytes), encoding), sha256 }
    })
  }

  /** The bytes that `get` gave, by `keyOf`, while they are in memory. */
  held(key: string): Buffer | undefined {
    return this.#memory.find(key)?.bytes
  }

  /** The raw bytes of a blob. Errors: those of `get`. */
  async raw(sha256: string): Promise<Buffer> {
    return (await this.get({ sha256 }, 'identity')).bytes
  }

  async #read(sha256: string): Promise<Body> {
    try {
      const { compressed } = await this.#gate.run(() => readBlob(this.#store, sha256))
      this.counts.read++
      return { bytes: compressed, sha256 }
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
      throw new ServiceError('unknown_blob', `there is no BTF with SHA-256 ${sha256}`)
    }
  }

  async #derive({ sha256, modules = [], dialect }: BtfSelector): Promise<Body> {
    const raw = await this.#pool.run('derive', {
      btf: await this.raw(sha256),
      modules: await Promise.all(modules.map((module) => this.raw(module))),
      ...(dialect && { dialect }),
    })
    this.counts.derived++
    return { bytes: await encode(raw, 'zstd'), sha256: sha256Of(raw) }
  }
}

/** Raw bytes in an encoding; made while somebody waits for them: 0.1 s for 4 MB. */
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

/** Whether the store has it, so that its digest is known without its bytes. */
export const isAsStored = ({ modules = [], dialect }: BtfSelector): boolean =>
  modules.length === 0 && dialect === undefined

/** What BTF in an encoding is kept as. */
export const keyOf = ({ sha256, modules = [], dialect }: BtfSelector, encoding: Encoding): string =>
  `${encoding} ${sha256} ${dialect ?? ''} ${modules.length > 0 ? sha256Of(modules.join()) : ''}`

export const DIALECT_NAMES = Object.keys(DIALECTS) as Dialect[]
