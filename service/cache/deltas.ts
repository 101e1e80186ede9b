/*
 * BTF as the difference from BTF that a client has. Deltas are made in threads, a few at a time, and cached like bodies. A
 * client that cannot have one gets the whole BTF: if too many are being made, if none of its BTF is here, or if the delta is
 * not smaller.
 */
import { BtfError } from '../../bpf/index.ts'
import { type Catalog, StoreError } from '../../storage/index.ts'
import { Semaphore } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Pool } from '../threads/pool.ts'
import type { BodyCache } from './body-cache.ts'
import type { Bodies } from './btf-bodies.ts'

/** Deltas that may wait for a thread. */
const MAX_WAITING = 32

/** A delta in one zstd frame. */
export interface BtfDelta {
  bytes: Buffer
  /** SHA-256 of the BTF that it continues, in hex */
  parent: string
}

export interface DeltasOptions {
  catalog: Catalog
  bodies: Bodies
  cache: BodyCache
  pool: Pool
}

export class Deltas {
  readonly #options: DeltasOptions
  readonly #gate: Semaphore
  /** since the start */
  readonly counts = { delta: 0 }

  constructor(options: DeltasOptions) {
    this.#options = options
    this.#gate = new Semaphore(Math.max(1, Math.floor(options.pool.threads / 2)), MAX_WAITING)
  }

  /**
   * The delta to BTF from the first of a client's digests that is here; undefined if there is none, if it is of no use, or if
   * the BTF cannot be read: whoever sends it whole finds out why.
   */
  async find(child: string, have: readonly string[]): Promise<BtfDelta | undefined> {
    const { cache } = this.#options
    const parent = have.find((sha256) => this.#sizeOf(sha256) !== undefined)
    if (parent === undefined || this.#sizeOf(child) === undefined) return undefined
    try {
      const { bytes } = await cache.body(`delta ${parent} ${child}`, async () => ({
        bytes: await this.#gate.run(() => this.#make(child, parent)),
        sha256: child,
      }))
      return bytes.length > 0 ? { bytes, parent } : undefined
    } catch (error) {
      const isExpected =
        error instanceof ServiceError || error instanceof StoreError || error instanceof BtfError
      if (!isExpected) throw error
      return undefined
    }
  }

  /** The raw bytes of BTF that a record names. */
  #sizeOf(sha256: string): number | undefined {
    return this.#options.catalog.findBy('sha256', sha256)[0]?.btf?.size
  }

  /** Makes a delta; no bytes if it is not smaller than the BTF itself, which is cached too. */
  async #make(child: string, parent: string): Promise<Buffer> {
    const { bodies, pool } = this.#options
    const [to, from] = await Promise.all([child, parent].map((sha256) => this.#frame(sha256)))
    const frame = await pool.run('delta', { child: to!, parent: from! })
    this.counts.delta++
    const { bytes } = await bodies.get({ sha256: child }, 'zstd')
    return frame.length < bytes.length
      ? Buffer.from(frame.buffer, frame.byteOffset, frame.length)
      : Buffer.alloc(0)
  }

  async #frame(sha256: string) {
    const { bytes: frame } = await this.#options.bodies.get({ sha256 }, 'zstd')
    return { frame, sha256, size: this.#sizeOf(sha256)! }
  }
}
