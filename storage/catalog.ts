/*
 * The catalog: all records of a store, in memory. The records are the truth. A reader that starts from the snapshot may
 * be behind them and calls `refresh` when it must not be. A record that is invalid or of a newer btfmill is reported and
 * skipped. One that cannot be read is reported, and stays as it was known. Neither is fatal.
 */
import { isDeepStrictEqual } from 'node:util'
import { forEachConcurrent } from './concurrency.ts'
import { ignoreNotFound, isUnreadable, isUnusableRecord, StoreError } from './error.ts'
import { readRecord } from './json.ts'
import type { KernelFilter, KernelName } from './kernel.ts'
import { openMemory } from './memory.ts'
import { prefixOfKey } from './name.ts'
import { isPublic } from './public.ts'
import type { BuildRecord } from './record.ts'
import { type RecordEntry, Records } from './records.ts'
import {
  headSnapshot,
  packsIn,
  readSnapshot,
  SNAPSHOT_KEY,
  type SnapshotPack,
  signSnapshot,
  writeSnapshot,
} from './snapshot.ts'
import type { Store } from './store.ts'
import { compareAndSwap } from './swap.ts'

const ALL_RECORDS = 'kernels/'
/** The number of records that are read at the same time. */
const CONCURRENT_READS = 16

/** Receives what is wrong with an object, and its key. */
export type OnInvalid = (error: StoreError, key: string) => void

export class Catalog {
  readonly #store: Store
  readonly #onInvalid: OnInvalid
  /** keys of the records that could not be used when they were last looked at */
  readonly #unusable = new Set<string>()
  readonly #records = new Records()
  /** records beside those of the store, by the prefix of their kernel */
  readonly #others: ReadonlyMap<string, readonly RecordEntry[]>
  /** etag of the snapshot that was read last, and the packs that it names */
  #etag: string | undefined
  #packs: readonly SnapshotPack[] | undefined

  /** With `others`, the catalog has these records too, except for builds whose BTF the store has. */
  constructor(store: Store, onInvalid: OnInvalid = () => {}, others: readonly RecordEntry[] = []) {
    this.#store = store
    this.#onInvalid = onInvalid
    this.#others = Map.groupBy(others, ({ key }) => prefixOfKey(key))
    for (const prefix of this.#others.keys()) this.#set(prefix, [])
  }

  /**
   * Opens a catalog that has all records of the store. Errors: those of `Store` that concern more than one object.
   */
  static async open(store: Store, onInvalid?: OnInvalid): Promise<Catalog> {
    const catalog = new Catalog(store, onInvalid)
    await catalog.#loadSnapshot()
    await catalog.refresh()
    return catalog
  }

  /**
   * Opens a catalog from the snapshot, to be kept up to date by `follow`. Without a valid snapshot it reads all
   * records. Errors: those of `open`.
   */
  static async openSnapshot(store: Store, onInvalid?: OnInvalid): Promise<Catalog> {
    const catalog = new Catalog(store, onInvalid)
    if (!(await catalog.#loadSnapshot())) await catalog.refresh()
    return catalog
  }

  /** A catalog of records that are in no store: `refresh` and `follow` find nothing else. */
  static of(entries: readonly RecordEntry[]): Catalog {
    const catalog = new Catalog(openMemory())
    catalog.#replace(entries)
    return catalog
  }

  /**
   * Brings the store's snapshot in line with its records, and signs it if a key is given. Any number of writers may do
   * so at the same time. Returns the catalog. Errors: `invalid_key`; `precondition_failed` if other writers always win;
   * those of `Store`.
   */
  static async publish(store: Store, secretKey?: string): Promise<Catalog> {
    const published = await compareAndSwap(async () => {
      const catalog = new Catalog(store)
      const loaded = await catalog.#loadSnapshot()
      // an invalid snapshot's etag is taken before the records are read: a snapshot that replaces it meanwhile is newer
      const etag = catalog.#etag ?? (await headSnapshot(store))?.etag
      // older versions wrote whole records into the snapshot
      const hasPrivateData = !catalog.list().every(({ record }) => isPublic(record))
      const changed = await catalog.refresh()
      const packs = await packsIn(store)
      const hasPacks = isDeepStrictEqual(catalog.#packs, packs)
      if (loaded && !changed && !hasPrivateData && hasPacks) return catalog
      catalog.#etag = (
        await writeSnapshot(store, { entries: [...catalog.list()], packs }, etag)
      ).etag
      catalog.#packs = packs
      return catalog
    })
    if (secretKey) await signSnapshot(store, secretKey)
    return published
  }

  /** The packs that the snapshot named when it was read; undefined if it told of none. */
  get packs(): readonly SnapshotPack[] | undefined {
    return this.#packs
  }

  get size(): number {
    return this.#records.size
  }

  /** The number of records that could not be used when they were last looked at. */
  get unusable(): number {
    return this.#unusable.size
  }

  /** Changes whenever the catalog's content changes. */
  get version(): number {
    return this.#records.version
  }

  /** Reads the snapshot again if it was replaced; without a valid snapshot, refreshes from the records. */
  async follow(): Promise<void> {
    const head = await headSnapshot(this.#store).catch(ignoreUnreadable) // reported when it is read
    if (head && head.etag === this.#etag) return
    if (!head || !(await this.#loadSnapshot())) await this.refresh()
  }

  /**
   * Reads the records below `prefix` that are new, changed or known only in part, and drops those that are gone.
   * Returns whether any record was added, changed or removed. If the store fails, the catalog stays as it was.
   */
  async refresh(prefix = ALL_RECORDS): Promise<boolean> {
    const known = new Map<string, RecordEntry>()
    for (const kernel of this.#records.prefixes(prefix))
      for (const entry of this.#records.get(kernel))
        if (!this.#isOther(entry)) known.set(entry.key, entry)
    const groups = new Map<string, RecordEntry[]>(
      [...known.keys()].map((key) => [prefixOfKey(key), []]),
    )
    for (const key of this.#unusable) if (key.startsWith(prefix)) this.#unusable.delete(key)
    let [read, kept] = [0, 0]
    await forEachConcurrent(this.#store.list(prefix), CONCURRENT_READS, async ({ key, etag }) => {
      const entry = known.get(key)
      const same = entry?.etag === etag
      const record = same && !entry.partial ? entry.record : await this.#read(key)
      if (record === 'unreadable') {
        const before = [...(entry ? [entry] : []), ...this.#below(key)]
        kept += before.length
        for (const old of before) addToGroup(old, groups)
      } else if (record) {
        if (same) kept++
        else read++
        addToGroup(same && !entry.partial ? entry : { key, etag, record }, groups)
      }
    })
    for (const [kernel, entries] of groups) this.#set(kernel, entries)
    return read > 0 || kept < known.size
  }

  /** All builds of one kernel name, newest first. The architecture may be an alias; the rest must be exact. */
  find(kernel: KernelName): BuildRecord[] {
    return this.#records.find(kernel)
  }

  /** All records with a build-id, a `uname -r` or a SHA-256 of raw BTF, newest first. */
  findBy(index: 'buildId' | 'release' | 'sha256', value: string): BuildRecord[] {
    return this.#records.findBy(index, value)
  }

  /** The records that match a filter, in byte order of their keys, from after the key `after`. */
  list(filter?: KernelFilter, after?: string): Generator<RecordEntry> {
    return this.#records.list(filter, after)
  }

  /** The entries whose keys are below a key, as for a directory that cannot be listed. */
  #below(key: string): RecordEntry[] {
    return [...this.#records.prefixes(`${key}/`)].flatMap((kernel) => this.#records.get(kernel))
  }

  /** Loads the snapshot. Returns false if there is none, or none that can be read, which is reported. */
  async #loadSnapshot(): Promise<boolean> {
    const snapshot = await readSnapshot(this.#store).catch((error: unknown) => {
      const isInvalid = error instanceof StoreError && error.code === 'invalid_snapshot'
      if (!isInvalid && !isUnreadable(error)) throw error
      this.#onInvalid(error, SNAPSHOT_KEY)
    })
    if (!snapshot) return false
    this.#replace(snapshot.entries)
    this.#etag = snapshot.etag
    this.#packs = snapshot.packs
    return true
  }

  #replace(entries: readonly RecordEntry[]): void {
    const groups = new Map<string, RecordEntry[]>(
      this.#records.prefixes().map((kernel) => [kernel, []]),
    )
    for (const entry of entries) addToGroup(entry, groups)
    for (const [kernel, entries] of groups) this.#set(kernel, entries)
  }

  /** Replaces the entries of one kernel name that the store has. */
  #set(prefix: string, entries: readonly RecordEntry[]): void {
    const withBtf = new Set(entries.filter(({ record }) => record.btf).map(({ key }) => key))
    const others = this.#others.get(prefix)?.filter(({ key }) => !withBtf.has(key)) ?? []
    const replaced = new Set(others.map(({ key }) => key))
    const own = replaced.size > 0 ? entries.filter(({ key }) => !replaced.has(key)) : entries
    this.#records.set(prefix, [...own, ...others])
  }

  #isOther(entry: RecordEntry): boolean {
    return this.#others.get(prefixOfKey(entry.key))?.includes(entry) ?? false
  }

  /** Reads a record; undefined if it was deleted meanwhile, or is invalid. What is wrong is reported. */
  async #read(key: string): Promise<BuildRecord | 'unreadable' | undefined> {
    try {
      return await readRecord(this.#store, key)
    } catch (error) {
      if (!isUnusableRecord(error)) return ignoreNotFound(error)
      this.#unusable.add(key)
      this.#onInvalid(error, key)
      return isUnreadable(error) ? 'unreadable' : undefined
    }
  }
}

function ignoreUnreadable(error: unknown): undefined {
  if (!isUnreadable(error)) throw error
}

/** Adds an entry to the group of its kernel name. */
function addToGroup(entry: RecordEntry, groups: Map<string, RecordEntry[]>): void {
  const prefix = prefixOfKey(entry.key)
  const group = groups.get(prefix)
  if (group) group.push(entry)
  else groups.set(prefix, [entry])
}
