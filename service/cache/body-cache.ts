/*
 * Bodies of answers in memory, bounded in bytes: what was not asked for longest goes first. What is not there is made
 * once for all who ask meanwhile; an error is told to all of them, and the next one tries again.
 */
import { LRUCache } from 'lru-cache'
import { SingleFlight } from '../concurrency.ts'

/** An entry: its bytes, and whatever its maker adds to them. */
export interface CacheEntry {
  bytes: Buffer
}

export interface Body extends CacheEntry {
  /** hex; what it is the digest of is the maker's to say */
  sha256: string
}

/** What an entry takes beside its bytes. */
const OVERHEAD = 512

export class BodyCache<E extends CacheEntry = Body> {
  readonly #bodies: LRUCache<string, E>
  readonly #making = new SingleFlight<E>()
  /** since the start; a body that was being made already counts as found */
  readonly counts = { found: 0, made: 0, evicted: 0 }

  /** `size` in bytes; what is larger than all of it is made whenever it is asked for. */
  constructor(size: number) {
    this.#bodies = new LRUCache({
      maxSize: size,
      sizeCalculation: ({ bytes }) => bytes.length + OVERHEAD,
      dispose: (_body, _key, reason) => {
        if (reason === 'evict') this.counts.evicted++
      },
    })
  }

  /** Bytes that are held. */
  get size(): number {
    return this.#bodies.calculatedSize
  }

  /** The body of that key, if it is there. */
  find(key: string): E | undefined {
    const body = this.#bodies.get(key)
    if (body) this.counts.found++
    return body
  }

  /**
   * The body of that key, made where it is not there. Errors: those of `make`, whose signal aborts when nobody waits for it
   * any more, and the reason of one's own signal.
   */
  async body(
    key: string,
    make: (nobody: AbortSignal) => Promise<E>,
    signal?: AbortSignal,
  ): Promise<E> {
    const there = this.find(key)
    if (there) return there
    let made = false
    const making = async (nobody: AbortSignal) => {
      made = true
      const body = await make(nobody)
      this.#bodies.set(key, body)
      return body
    }
    const body = await this.#making.run(key, making, signal)
    this.counts[made ? 'made' : 'found']++
    return body
  }
}
