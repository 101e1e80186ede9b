/*
 * Whether requests can be answered: the catalog is loaded, the store answers, and the service is not stopping. The
 * store is looked at once in a while at most, by one look for all who ask meanwhile, and no look takes long.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { SNAPSHOT_KEY, type Store, StoreError } from '../../storage/index.ts'

/** Why requests cannot be answered, as clients are told. */
export const UNREADY = {
  loading: 'the catalog is not loaded yet',
  stopping: 'this service is stopping',
  store: 'the store does not answer',
} as const
export type Unready = keyof typeof UNREADY

export interface ReadinessOptions {
  /** milliseconds that what was seen is believed */
  age?: number
  /** milliseconds that a look may take */
  patience?: number
}

export class Readiness {
  /** when the catalog last said what the store says, in milliseconds since 1970 */
  loadedAt: number | undefined
  stopping = false
  readonly #store: Store
  readonly #age: number
  readonly #patience: number
  #seen: { at: number; there: Promise<boolean> } | undefined

  constructor(store: Store, { age = 1000, patience = 5000 }: ReadinessOptions = {}) {
    this.#store = store
    this.#age = age
    this.#patience = patience
  }

  get loaded(): boolean {
    return this.loadedAt !== undefined
  }

  /** Why requests cannot be answered; nothing where they can. Never throws. */
  async unready(): Promise<Unready | undefined> {
    if (this.stopping) return 'stopping'
    if (!this.loaded) return 'loading'
    return (await this.#storeIsThere()) ? undefined : 'store'
  }

  #storeIsThere(): Promise<boolean> {
    const now = performance.now()
    if (!this.#seen || now - this.#seen.at > this.#age) {
      const there = this.#look().finally(() => {
        this.#seen = { at: performance.now(), there }
      })
      this.#seen = { at: Number.POSITIVE_INFINITY, there } // for who asks while it lasts
    }
    return this.#seen.there
  }

  async #look(): Promise<boolean> {
    const late = new AbortController()
    const head = this.#store.head(SNAPSHOT_KEY).then(
      () => true,
      (error: unknown) => error instanceof StoreError && error.code === 'not_found',
    )
    const limit = sleep(this.#patience, false, { signal: late.signal, ref: false }).catch(
      () => false,
    )
    return await Promise.race([head, limit]).finally(() => late.abort())
  }
}
