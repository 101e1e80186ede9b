/*
 * The catalog: all records of a store, in memory. The records are the truth; a reader that starts from the snapshot
 * may be behind them, and says by `refresh` when it must not be. A record that does not parse is reported, never fatal.
 */
import { StoreError } from './error.ts'
import { readRecord } from './json.ts'
import type { KernelFilter, KernelName } from './kernel.ts'
import { prefixOfKey } from './name.ts'
import { isPublic } from './public.ts'
import type { BuildRecord } from './record.ts'
import { type RecordEntry, Records } from './records.ts'
import { headSnapshot, readSnapshot, signSnapshot, writeSnapshot } from './snapshot.ts'
import type { Store } from './store.ts'
import { swap } from './swap.ts'

const ALL = 'kernels/'
/** How many records are read at once. */
const READS = 16

export class Catalog {
  readonly #store: Store
  readonly #onInvalid: (error: StoreError) => void
  readonly #records = new Records()
  /** of the snapshot that was read last */
  #etag: string | undefined

  constructor(store: Store, onInvalid: (error: StoreError) => void = () => {}) {
    this.#store = store
    this.#onInvalid = onInvalid
  }

  /** A catalog of what the store holds now. Errors: those of `Store.list` and `Store.get`. */
  static async open(store: Store, onInvalid?: (error: StoreError) => void): Promise<Catalog> {
    const catalog = new Catalog(store, onInvalid)
    await catalog.#loadSnapshot()
    await catalog.refresh()
    return catalog
  }

  /** A catalog of what the snapshot says, which `follow` keeps up with; without one, of what the store holds. */
  static async openSnapshot(
    store: Store,
    onInvalid?: (error: StoreError) => void,
  ): Promise<Catalog> {
    const catalog = new Catalog(store, onInvalid)
    if (!(await catalog.#loadSnapshot())) await catalog.refresh()
    return catalog
  }

  /**
   * Makes the store's snapshot say what its records say, signed where there is a key. Any number of writers may. Errors:
   * `precondition_failed` where others are always first.
   */
  static async publish(store: Store, secretKey?: string): Promise<Catalog> {
    const published = await swap(async () => {
      const catalog = new Catalog(store)
      const there = await catalog.#loadSnapshot()
      // of one that does not read, before the records are: what comes in its place meanwhile is newer
      const etag = catalog.#etag ?? (await headSnapshot(store))?.etag
      // one that was made when all of a record was in it
      const tells = !catalog.list().every(({ record }) => isPublic(record))
      const changed = await catalog.refresh()
      if (there && !changed && !tells) return catalog
      catalog.#etag = (await writeSnapshot(store, [...catalog.list()], etag)).etag
      return catalog
    })
    if (secretKey) await signSnapshot(store, secretKey)
    return published
  }

  get size(): number {
    return this.#records.size
  }

  /** Another number whenever it says something else. */
  get version(): number {
    return this.#records.version
  }

  /** Reads the snapshot where another has taken its place; without one, what came or changed in the store. */
  async follow(): Promise<void> {
    const head = await headSnapshot(this.#store)
    if (head && head.etag === this.#etag) return
    if (!head || !(await this.#loadSnapshot())) await this.refresh()
  }

  /**
   * Reads what came or changed since the last time, below `prefix`, and says whether anything did; and what of a record
   * is not in the snapshot. A failing store leaves the catalog as it was.
   */
  async refresh(prefix = ALL): Promise<boolean> {
    const known = new Map<string, RecordEntry>()
    for (const shelf of this.#records.prefixes(prefix))
      for (const entry of this.#records.get(shelf)) known.set(entry.key, entry)
    const shelves = new Map<string, RecordEntry[]>(
      [...known.keys()].map((key) => [prefixOfKey(key), []]),
    )
    let [read, kept] = [0, 0]
    const reading = new Set<Promise<void>>()
    try {
      for await (const { key, etag } of this.#store.list(prefix)) {
        const entry = known.get(key)
        const same = entry?.etag === etag
        if (same) kept++
        if (same && !entry.partial) {
          shelve(entry, shelves)
          continue
        }
        const done = this.#read(key).then((record) => {
          if (!same && record) read++
          if (same && !record) kept--
          if (record) shelve({ key, etag, record }, shelves)
          reading.delete(done)
        })
        done.catch(() => {}) // told below; unheard until then, it would end the process
        reading.add(done)
        if (reading.size >= READS) await Promise.race(reading)
      }
      await Promise.all(reading)
    } finally {
      await Promise.allSettled(reading)
    }
    for (const [shelf, entries] of shelves) this.#records.set(shelf, entries)
    return read > 0 || kept < known.size
  }

  /** All builds under one kernel name, exactly, but for aliases of its architecture; newest first. */
  find(kernel: KernelName): BuildRecord[] {
    return this.#records.find(kernel)
  }

  /** The records with that build-id, `uname -r`, or SHA-256 of raw BTF; newest first. */
  findBy(index: 'buildId' | 'release' | 'sha256', value: string): BuildRecord[] {
    return this.#records.findBy(index, value)
  }

  /** The records that match a filter, in order of their keys, after the key `after`. */
  list(filter?: KernelFilter, after?: string): Generator<RecordEntry> {
    return this.#records.list(filter, after)
  }

  /** Whether there was one that reads. */
  async #loadSnapshot(): Promise<boolean> {
    const snapshot = await readSnapshot(this.#store).catch((error: unknown) => {
      if (!(error instanceof StoreError) || error.code !== 'invalid_snapshot') throw error
      this.#onInvalid(error)
    })
    if (!snapshot) return false
    const shelves = new Map<string, RecordEntry[]>(
      this.#records.prefixes().map((shelf) => [shelf, []]),
    )
    for (const entry of snapshot.entries) shelve(entry, shelves)
    for (const [shelf, entries] of shelves) this.#records.set(shelf, entries)
    this.#etag = snapshot.etag
    return true
  }

  async #read(key: string): Promise<BuildRecord | undefined> {
    try {
      return await readRecord(this.#store, key)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      if (error.code === 'invalid_record') this.#onInvalid(error)
      else if (error.code !== 'not_found') throw error
      return undefined
    }
  }
}

function shelve(entry: RecordEntry, shelves: Map<string, RecordEntry[]>): void {
  const prefix = prefixOfKey(entry.key)
  const shelf = shelves.get(prefix)
  if (shelf) shelf.push(entry)
  else shelves.set(prefix, [entry])
}
