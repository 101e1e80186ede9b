/*
 * Work that many ask for at once: done one time for all of them, or for a moment, and only so many at a time. All are
 * wrappers, so that what does the work knows next to nothing of it.
 */
import { ServiceError } from './error.ts'

interface Flight<T> {
  result: Promise<T>
  waiting: number
  nobody: AbortController
}

/** Work by a key: who asks while it is under way gets its result, or its error. */
export class SingleFlight<T> {
  readonly #underWay = new Map<string, Flight<T>>()

  /**
   * `work` has a signal that aborts when all who waited have gone. Errors: those of the work, and the reason of the
   * signal with which one of them goes.
   */
  run(key: string, work: (nobody: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const flight = this.#underWay.get(key) ?? this.#start(key, work)
    flight.waiting++
    return signal ? this.#waitAt(flight, key, signal) : flight.result
  }

  #start(key: string, work: (nobody: AbortSignal) => Promise<T>): Flight<T> {
    const nobody = new AbortController()
    const result = work(nobody.signal).finally(() => this.#end(key, flight))
    const flight: Flight<T> = { result, waiting: 0, nobody }
    this.#underWay.set(key, flight)
    return flight
  }

  #waitAt(flight: Flight<T>, key: string, signal: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        reject(signal.reason)
        if (--flight.waiting > 0) return
        this.#end(key, flight) // who asks from now on wants it done
        flight.nobody.abort(signal.reason)
      }
      flight.result.finally(() => signal.removeEventListener('abort', leave)).then(resolve, reject)
      if (signal.aborted) leave()
      else signal.addEventListener('abort', leave, { once: true })
    })
  }

  #end(key: string, flight: Flight<T>): void {
    if (this.#underWay.get(key) === flight) this.#underWay.delete(key)
  }
}

/** What takes a while to make, and is the same for so many milliseconds. */
export function memoizeFor<T>(age: number, make: () => T): () => T {
  let made: { value: T; until: number } | undefined
  return () => {
    if (!made || made.until <= Date.now()) made = { value: make(), until: Date.now() + age }
    return made.value
  }
}

/** Room for so much at once, of whatever it is; what finds none is refused with the message. */
export class Quota {
  #left: number
  readonly #message: string

  constructor(size: number, message: string) {
    this.#left = size
    this.#message = message
  }

  /** Takes some, and gives what returns it, which is to be called once. Errors: `busy` where there is not so much. */
  take(much = 1): () => void {
    if (much > this.#left) throw new ServiceError('busy', this.#message)
    this.#left -= much
    return () => {
      this.#left += much
    }
  }
}

/** Work that takes memory or a processor: `width` at a time, while at most `queue` wait. */
export class Semaphore {
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

/** The results in the order of the items, while so many are worked on at once. */
export async function* mapOrdered<T, R>(
  items: Iterable<T>,
  width: number,
  work: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const underWay: Promise<R>[] = []
  try {
    for (const item of items) {
      const started = work(item)
      started.catch(() => {}) // told when its turn comes
      underWay.push(started)
      if (underWay.length === width) yield await underWay.shift()!
    }
    while (underWay.length > 0) yield await underWay.shift()!
  } finally {
    await Promise.allSettled(underWay)
  }
}
