/*
 * Readiness: the catalog is loaded, the store answers, and the service is not stopping. The store is probed at most once per
 * `age`, concurrent callers share one probe, and a probe has a timeout.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { SNAPSHOT_KEY, type Store, StoreError } from '../../storage/index.ts'

/** Reasons why the service is not ready, as clients read them. */
export const UNREADY = {
  loading: 'the catalog is not loaded yet',
  stopping: 'this service is stopping',
  store: 'the store does not answer',
} as const
export type Unready = keyof typeof UNREADY

export interface ReadinessOptions {
  /** milliseconds for which the result of a probe is reused */
  age?: number
  /** timeout of a probe, in milliseconds */
  timeout?: number
}

export class Readiness {
  /** when the catalog was last equal to the store, in milliseconds since 1970 */
  loadedAt: number | undefined
  stopping = false
  readonly #store: Store
  readonly #age: number
  readonly #timeout: number
  #probed: { at: number; answers: Promise<boolean> } | undefined

  constructor(store: Store, { age = 1000, timeout = 5000 }: ReadinessOptions = {}) {
    this.#store = store
    this.#age = age
    this.#timeout = timeout
  }

  get loaded(): boolean {
    return this.loadedAt !== undefined
  }

  /** The reason why the service is not ready; undefined if it is. Never throws. */
  async unready(): Promise<Unready | undefined> {
    if (this.stopping) return 'stopping'
    if (!this.loaded) return 'loading'
    return (await this.#storeAnswers()) ? undefined : 'store'
  }

  #storeAnswers(): Promise<boolean> {
    const now = performance.now()
    if (!this.#probed || now - this.#probed.at > this.#age) {
      const answers = this.#probe().finally(() => {
        this.#probed = { at: performance.now(), answers }
      })
      this.#probed = { at: Number.POSITIVE_INFINITY, answers } // shared while the probe runs
    }
    return this.#probed.answers
  }

  async #probe(): Promise<boolean> {
    const done = new AbortController()
    const head = this.#store.head(SNAPSHOT_KEY).then(
      () => true,
      (error: unknown) =>
        error instanceof StoreError && ['not_found', 'unreadable'].includes(error.code),
    )
    const limit = sleep(this.#timeout, false, { signal: done.signal, ref: false }).catch(
      () => false,
    )
    return await Promise.race([head, limit]).finally(() => done.abort())
  }
}
