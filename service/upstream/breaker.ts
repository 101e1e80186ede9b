/*
 * A circuit breaker: an upstream that is away is not asked for a while, so that nobody waits for it. After the pause one
 * request tries again. Pauses double up to a limit, and an answer of any kind ends them.
 */
import { isAway, UpstreamError } from './error.ts'

/** Failures one after another until an upstream counts as away. */
const MAX_FAILURES = 3
/** Milliseconds of the first and of the longest pause. */
const PAUSE = { first: 10_000, longest: 5 * 60_000 }

export class CircuitBreaker {
  readonly #name: string
  #failures = 0
  #closedUntil = 0
  #trying = false

  /** `name` is the upstream's, for messages. */
  constructor(name: string) {
    this.#name = name
  }

  /** Tells whether the upstream is not asked now. */
  get isOpen(): boolean {
    return this.#failures >= MAX_FAILURES && (this.#trying || Date.now() < this.#closedUntil)
  }

  /** Runs work that asks the upstream. Errors: those of `work`; `unreachable` while the upstream is away. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.isOpen)
      throw new UpstreamError('unreachable', `${this.#name} did not answer, and is asked later`)
    const isTrial = this.#failures >= MAX_FAILURES
    if (isTrial) this.#trying = true
    try {
      const value = await work()
      this.#failures = 0
      return value
    } catch (error) {
      if (isAway(error)) this.#fail(error.retryAfter)
      else if (error instanceof UpstreamError) this.#failures = 0
      throw error
    } finally {
      if (isTrial) this.#trying = false
    }
  }

  #fail(retryAfter: number | undefined): void {
    this.#failures++
    if (retryAfter !== undefined) this.#failures = Math.max(this.#failures, MAX_FAILURES)
    const doubled = PAUSE.first * 2 ** Math.max(this.#failures - MAX_FAILURES, 0)
    const pause = Math.max(Math.min(doubled, PAUSE.longest), (retryAfter ?? 0) * 1000)
    this.#closedUntil = Date.now() + pause
  }
}
