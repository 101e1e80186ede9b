/*
 * Sharing and bounding of work: single flight, memoization, a quota and a semaphore. storage/concurrency.ts runs many.
 * They wrap work, which need not know of them.
 */
import { ServiceError } from './error.ts'

interface Flight<T> {
  result: Promise<T>
  waiters: number
  abandoned: AbortController
}

/** Runs work once per key at a time: callers that arrive while it runs share its result, or its error. */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>()

  /**
   * `work` gets a signal that aborts when all its callers have aborted. Errors: those of `work`, and the reason of this
   * caller's `signal`.
   */
  run(key: string, work: (abandoned: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const flight = this.#flights.get(key) ?? this.#start(key, work)
    flight.waiters++
    return signal ? this.#join(flight, key, signal) : flight.result
  }

  /** Tells whether work for a key is under way. */
  has(key: string): boolean {
    return this.#flights.has(key)
  }

  #start(key: string, work: (abandoned: AbortSignal) => Promise<T>): Flight<T> {
    const abandoned = new AbortController()
    const result = work(abandoned.signal).finally(() => this.#end(key, flight))
    const flight: Flight<T> = { result, waiters: 0, abandoned }
    this.#flights.set(key, flight)
    return flight
  }

  #join(flight: Flight<T>, key: string, signal: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        reject(signal.reason)
        if (--flight.waiters > 0) return
        this.#end(key, flight) // later callers start new work
        flight.abandoned.abort(signal.reason)
      }
      flight.result.finally(() => signal.removeEventListener('abort', leave)).then(resolve, reject)
      if (signal.aborted) leave()
      else signal.addEventListener('abort', leave, { once: true })
    })
  }

  #end(key: string, flight: Flight<T>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key)
  }
}

/** Calls `make` again only when its last value is older than `age` milliseconds. */
export function memoizeFor<T>(age: number, make: () => T): () => T {
  let memo: { value: T; expires: number } | undefined
  return () => {
    if (!memo || memo.expires <= Date.now()) memo = { value: make(), expires: Date.now() + age }
    return memo.value
  }
}

/** A fixed amount of any unit that callers take and return. There is no queue: a caller that finds too little is refused. */
export class Quota {
  /** the most that one holder may have */
  readonly share: number
  readonly #message: string
  readonly #held = new Map<string, number>()
  #left: number

  /** `message` is that of the error; a holder may have all, or `share`. */
  constructor(size: number, message: string, share = size) {
    this.#left = size
    this.#message = message
    this.share = Math.min(share, size)
  }

  /** Takes an amount and gives the function that returns it, to be called once. Errors: `busy` if too little is left. */
  take(amount = 1): () => void {
    const lease = this.lease('')
    lease.add(amount)
    return () => lease.end()
  }

  /** Opens an empty lease, which grows until it ends; a holder may have several. */
  lease(holder: string): QuotaLease {
    let taken = 0
    return {
      add: (amount) => {
        const held = (this.#held.get(holder) ?? 0) + amount
        if (amount > this.#left || held > this.share) throw new ServiceError('busy', this.#message)
        this.#left -= amount
        this.#held.set(holder, held)
        taken += amount
      },
      end: () => {
        this.#left += taken
        const held = (this.#held.get(holder) ?? 0) - taken
        if (held > 0) this.#held.set(holder, held)
        else this.#held.delete(holder)
        taken = 0
      },
    }
  }
}

/** A growing part of a quota. */
export interface QuotaLease {
  /** Takes more. Errors: `busy` if too little is left, or the holder has its share. */
  add(amount: number): void
  /** Returns everything. */
  end(): void
}

/** Lets `width` callers run at a time and at most `queue` callers wait. */
export class Semaphore {
  readonly #width: number
  readonly #queue: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(width: number, queue: number) {
    this.#width = width
    this.#queue = queue
  }

  /** Errors: `busy` if the queue is full, those of `work`, and the reason of a signal that aborts the waiting. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    if (this.#running < this.#width) this.#running++
    else await this.#wait(signal)
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#running--
    }
  }

  /** Waits until a running caller passes its slot on. */
  #wait(signal: AbortSignal | undefined): Promise<void> {
    if (this.#waiting.length >= this.#queue)
      throw new ServiceError('busy', `too many requests: ${this.#queue} are waiting already`)
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
