/*
 * A cache of response bodies in memory, bounded in bytes; the least recently used body is evicted first. Concurrent
 * callers for a missing key share one call of `make`. Errors are not cached: all waiting callers get the error, and the
 * next caller tries again.
 */
import { LRUCache } from 'lru-cache'
import { SingleFlight } from '../concurrency.ts'

/** An entry of a cache: its bytes, and properties that `make` adds. */
export interface CacheEntry {
  bytes: Buffer
}

export interface Body extends CacheEntry {
  /** hex; of the raw BTF for BTF in any encoding, of `bytes` for other bodies */
  sha256: string
}

/** The estimated memory of an entry in addition to its bytes. */
const OVERHEAD = 512

export class BodyCache<E extends CacheEntry = Body> {
  readonly #bodies: LRUCache<string, E>
  readonly #making = new SingleFlight<E>()
  /** since the start; a caller that joins a running `make` counts as `found` */
  readonly counts = { found: 0, made: 0, evicted: 0 }

  /** `size` is in bytes; a body larger than that is never kept. */
  constructor(size: number) {
    this.#bodies = new LRUCache({
      maxSize: size,
      sizeCalculation: ({ bytes }) => bytes.length + OVERHEAD,
      dispose: (_body, _key, reason) => {
        if (reason === 'evict') this.counts.evicted++
      },
    })
  }

  /** Bytes of all entries, with their overhead. */
  get size(): number {
    return this.#bodies.calculatedSize
  }

  /** Returns the body of a key if it is cached. */
  find(key: string): E | undefined {
    const body = this.#bodies.get(key)
    if (body) this.counts.found++
    return body
  }

  /**
   * Returns the body of a key; calls `make` if it is not cached. The signal that `make` gets aborts when all waiting
   * callers have aborted. Errors: those of `make`, and the reason of `signal`.
   */
  async body(
    key: string,
    make: (abandoned: AbortSignal) => Promise<E>,
    signal?: AbortSignal,
  ): Promise<E> {
    const cached = this.find(key)
    if (cached) return cached
    let made = false
    const making = async (abandoned: AbortSignal) => {
      made = true
      const body = await make(abandoned)
      this.#bodies.set(key, body)
      return body
    }
    const body = await this.#making.run(key, making, signal)
    this.counts[made ? 'made' : 'found']++
    return body
  }
}
