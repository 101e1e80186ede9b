/*
 * Sharing and bounding of work: single flight, memoization, a quota and a semaphore. storage/concurrency.ts runs many.
 * They wrap work, which need not know of them.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { ServiceError } from './error.ts'

/** The client that work is for, by the key that limits count it under; undefined for the service's own work. */
export const client = new AsyncLocalStorage<string>()

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

  /** Takes one for a holder, and returns the function that gives it back, to be called once. Errors: `busy`. */
  take(holder: string): () => void {
    const lease = this.lease(holder)
    lease.add(1)
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

/**
 * Lets `width` callers run at a time and at most `queue` callers wait. The clients whose work waits (`client`) take turns,
 * so that one who asks for much delays the others by little; a client has at most `share` of the queue.
 */
export class Semaphore {
  readonly #width: number
  readonly #queue: number
  readonly #share: number
  /** what waits, by client, in the order of their turns */
  readonly #waiting = new Map<string | undefined, (() => void)[]>()
  #count = 0
  #running = 0

  constructor(width: number, queue: number, share = queue) {
    this.#width = width
    this.#queue = queue
    this.#share = share
  }

  /** Errors: `busy` if the queue is full, those of `work`, and the reason of a signal that aborts the waiting. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    if (this.#running < this.#width) this.#running++
    else await this.#wait(signal)
    try {
      return await work()
    } finally {
      const next = this.#next()
      if (next) next()
      else this.#running--
    }
  }

  /** Waits until a running caller passes its slot on. */
  #wait(signal: AbortSignal | undefined): Promise<void> {
    const holder = client.getStore()
    const own = this.#waiting.get(holder) ?? []
    if (this.#count >= this.#queue)
      throw new ServiceError('busy', `too many requests: ${this.#queue} are waiting already`)
    if (holder !== undefined && own.length >= this.#share)
      throw new ServiceError(
        'busy',
        `too many requests of one client: ${this.#share} are waiting already`,
      )
    this.#waiting.set(holder, own)
    this.#count++
    return new Promise((resolve, reject) => {
      const take = () => {
        signal?.removeEventListener('abort', leave)
        resolve()
      }
      const leave = () => {
        own.splice(own.indexOf(take), 1)
        this.#count--
        if (own.length === 0) this.#waiting.delete(holder)
        reject(signal?.reason)
      }
      own.push(take)
      signal?.addEventListener('abort', leave, { once: true })
    })
  }

  /** Takes the first of the client whose turn it is, who comes last then. */
  #next(): (() => void) | undefined {
    for (const [holder, own] of this.#waiting) {
      this.#waiting.delete(holder)
      this.#count--
      const first = own.shift()
      if (own.length > 0) this.#waiting.set(holder, own)
      return first
    }
    return undefined
  }
}
