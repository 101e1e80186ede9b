/*
 * Work that many ask for at once: done one time for all of them, or for a moment, and only so many at a time. All are
 * wrappers, so that what does the work knows nothing of it.
 */
import { ServiceError } from './error.ts'

/** Work by a key: who asks while it is under way gets its result, or its error. */
export class Flights<T> {
  readonly #underWay = new Map<string, Promise<T>>()

  run(key: string, work: () => Promise<T>): Promise<T> {
    const there = this.#underWay.get(key)
    if (there) return there
    const started = work().finally(() => this.#underWay.delete(key))
    this.#underWay.set(key, started)
    return started
  }
}

/** What takes a while to make, and is the same for so many milliseconds. */
export function lately<T>(age: number, make: () => T): () => T {
  let made: { value: T; until: number } | undefined
  return () => {
    if (!made || made.until <= Date.now()) made = { value: make(), until: Date.now() + age }
    return made.value
  }
}

/** Work that takes memory or a processor: `width` at a time, while at most `queue` wait. */
export class Gate {
  readonly #width: number
  readonly #queue: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(width: number, queue: number) {
    this.#width = width
    this.#queue = queue
  }

  /** Errors: `busy` where too many wait, those of the work, and the reason of a signal that ends the waiting. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    if (this.#running < this.#width) this.#running++
    else await this.#turn(signal)
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#running--
    }
  }

  /** Waits for another's place. */
  #turn(signal: AbortSignal | undefined): Promise<void> {
    if (this.#waiting.length >= this.#queue)
      throw new ServiceError('busy', 'too much is asked for at once')
    return new Promise((resolve, reject) => {
      const take = () => {
        signal?.removeEventListener('abort', leave)
        resolve()
      }
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1)
        reject(signal?.reason)
      }
      this.#waiting.push(take)
      signal?.addEventListener('abort', leave, { once: true })
    })
  }
}
