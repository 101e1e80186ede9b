/*
 * The index of a service: kept in line with the catalog in the background, and asked by routes and pages. Until it has
 * been whole once, questions are refused. An index that is there from an earlier run answers at once, as it was.
 */
import { statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Catalog, type Store, StoreError } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { readRaw } from '../threads/btf-input.ts'
import type { Pool } from '../threads/pool.ts'
import type { FindAlike } from '../threads/shared-answers.ts'
import { UnusableIndex } from './database.ts'
import type { IndexReader } from './reader.ts'
import { IndexThreads } from './threads.ts'
import { updateIndex } from './update.ts'
import type { IndexQuestion } from './worker.ts'

/** Milliseconds between two looks at the catalog, and after an update that failed. */
const LOOK = 1000
const AFTER_FAILURE = 60_000
/** Milliseconds between two times that a damaged index is made again. */
const BETWEEN_REBUILDS = 600_000
/** Seconds after which a client may ask again. */
const RETRY_AFTER = 10

export interface KeeperOptions {
  /** path of the file */
  path: string
  store: Store
  catalog: Catalog
  /** threads that rebuild BTF of packs */
  pool: Pool
  /** whether the catalog is loaded */
  isLoaded: () => boolean
  onError: (error: unknown) => void
}

/** What an index has, for metrics. Counts are absent before the first update has begun, and times before it has ended. */
interface IndexState {
  /** kernels in the index */
  readonly kernels?: number
  /** BTFs of the catalog that are not in the index yet, or could not be read from the store */
  readonly waiting?: number
  /** size of the file in bytes; absent if there is none */
  readonly bytes?: number
  /** when the last update ended, in seconds since 1970, and how many seconds it took */
  readonly updatedAt?: number
  readonly seconds?: number
}

export class KeptIndex {
  readonly #options: KeeperOptions
  readonly #threads: IndexThreads
  readonly #end = new AbortController()
  readonly #following: Promise<void>
  #isWhole = false
  /** set when questions have found damage; then when the index was made again for that */
  #damaged = false
  #rebuiltAt = Number.NEGATIVE_INFINITY
  /** version of the catalog that the index is of */
  #version: number | undefined
  #state: Omit<IndexState, 'bytes'> = {}

  /** Begins to follow the catalog. */
  constructor(options: KeeperOptions) {
    this.#options = options
    this.#threads = new IndexThreads(options.path)
    this.#following = this.#follow()
  }

  /**
   * Asks a question of `IndexReader`: `ask('history', 'task_struct')`. Errors: `unavailable` while the index is made;
   * those of `IndexThreads`.
   */
  async ask<Q extends IndexQuestion>(
    question: Q,
    ...of: Parameters<IndexReader[Q]>
  ): Promise<ReturnType<IndexReader[Q]>> {
    try {
      this.#isWhole ||= await this.#threads.ask('isWhole')
      if (this.#isWhole) return await this.#threads.ask(question, ...of)
    } catch (error) {
      if (!(error instanceof UnusableIndex)) throw error
      // it is not there yet; or it is damaged, and the next update makes it again
      if (this.#isWhole && !this.#damaged) this.#options.onError(error)
      this.#damaged ||= this.#isWhole
      this.#isWhole = false
    }
    throw new ServiceError('unavailable', 'the index of all types is being made; retry later', {
      details: { retryAfter: RETRY_AFTER },
    })
  }

  /** Finds kernels that share answers (`IndexReader.alike`). Errors: those of `ask`. */
  readonly findAlike: FindAlike = (sha256, keys) => this.ask('alike', sha256, keys)

  get state(): IndexState {
    const bytes = statSync(this.#options.path, { throwIfNoEntry: false })?.size
    return { ...this.#state, ...(bytes !== undefined && { bytes }) }
  }

  /** Stops following, and ends the threads. */
  async close(): Promise<void> {
    this.#end.abort()
    await this.#threads.close()
    await this.#following
  }

  async #follow(): Promise<void> {
    const { catalog, isLoaded, onError } = this.#options
    const { signal } = this.#end
    while (!signal.aborted) {
      const { version } = catalog
      let wait = LOOK
      const rebuild = this.#damaged && performance.now() - this.#rebuiltAt > BETWEEN_REBUILDS
      if (isLoaded() && (rebuild || version !== this.#version)) {
        try {
          if (rebuild) [this.#rebuiltAt, this.#damaged] = [performance.now(), false]
          await this.#update(rebuild)
          this.#version = version
        } catch (error) {
          if (signal.aborted) return
          onError(error)
          wait = AFTER_FAILURE
        }
      }
      await sleep(wait, undefined, { signal, ref: false }).catch(() => {})
    }
  }

  async #update(rebuild: boolean): Promise<void> {
    const { store, catalog, pool, onError } = this.#options
    const { signal } = this.#end
    const start = performance.now()
    let unread = 0
    const { kernels } = await updateIndex(
      this.#threads,
      { store, catalog },
      {
        ...{ rebuild, signal },
        read: (sha256) => readRaw(store, pool, sha256),
        onProgress: (done, all) => {
          this.#state = { ...this.#state, waiting: all - done + unread }
        },
        onError: (error, { kernel: { distro, version, arch, release } }) => {
          if (error instanceof StoreError) unread++
          const name = [distro, version, arch, release].join('/')
          onError(new Error(`${name} is not indexed: ${error.message}`))
        },
      },
    )
    const seconds = (performance.now() - start) / 1000
    const updatedAt = Date.now() / 1000
    this.#state = { kernels: kernels - unread, waiting: unread, updatedAt, seconds }
  }
}
