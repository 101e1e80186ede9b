/*
 * The catalog: all records of a store, in memory, for look-ups and listings. The records are the truth; `refresh`
 * reads those that came or changed since, and a record that does not parse is reported, never fatal.
 */

import { canonicalArch } from './arch.ts'
import { StoreError } from './error.ts'
import { matchGlob } from './glob.ts'
import { readRecord } from './json.ts'
import type { KernelFilter, KernelName } from './kernel.ts'
import { kernelPrefix } from './name.ts'
import type { BuildRecord } from './record.ts'
import type { Store } from './store.ts'

/** How many records are read at once. */
const READS = 16

interface Entry {
  etag: string
  record: BuildRecord
}

export class Catalog {
  readonly #store: Store
  readonly #onInvalid: (error: StoreError) => void
  /** by key, in byte order of the keys after each refresh */
  #entries = new Map<string, Entry>()

  constructor(store: Store, onInvalid: (error: StoreError) => void = () => {}) {
    this.#store = store
    this.#onInvalid = onInvalid
  }

  /** A catalog of what the store holds now. Errors: those of `Store.list` and `Store.get`. */
  static async open(store: Store, onInvalid?: (error: StoreError) => void): Promise<Catalog> {
    const catalog = new Catalog(store, onInvalid)
    await catalog.refresh()
    return catalog
  }

  get size(): number {
    return this.#entries.size
  }

  /** Reads what came or changed since the last time, below `prefix`; a failing store leaves the catalog as it was. */
  async refresh(prefix = 'kernels/'): Promise<void> {
    const entries = new Map([...this.#entries].filter(([key]) => !key.startsWith(prefix)))
    const reading = new Set<Promise<void>>()
    for await (const { key, etag } of this.#store.list(prefix)) {
      const known = this.#entries.get(key)
      if (known?.etag === etag) {
        entries.set(key, known)
        continue
      }
      const read = this.#read(key).then((record) => {
        if (record) entries.set(key, { etag, record })
        reading.delete(read)
      })
      reading.add(read)
      if (reading.size >= READS) await Promise.race(reading)
    }
    await Promise.all(reading)
    this.#entries = new Map([...entries].sort(([a], [b]) => (a < b ? -1 : 1)))
  }

  /** All builds under one kernel name, whatever alias its architecture has; newest first. */
  find(kernel: KernelName): BuildRecord[] {
    const prefix = kernelPrefix({ ...kernel, arch: canonicalArch(kernel.arch) })
    return [...this.#entries]
      .filter(([key]) => key.startsWith(prefix))
      .map(([, { record }]) => record)
      .sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1))
  }

  /** The records that match a filter, in order of their keys, after the key `after`. */
  *list(filter: KernelFilter = {}, after = ''): Generator<{ key: string; record: BuildRecord }> {
    for (const [key, { record }] of this.#entries) {
      if (key > after && matchesFilter(record.kernel, filter)) yield { key, record }
    }
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

/** Whether a kernel is among those a filter asks for. */
export function matchesFilter(kernel: KernelName, filter: KernelFilter): boolean {
  return (
    (filter.distro === undefined || filter.distro === kernel.distro) &&
    (filter.version === undefined || filter.version === kernel.version) &&
    (filter.arch === undefined || canonicalArch(filter.arch) === kernel.arch) &&
    (filter.release === undefined || matchGlob(filter.release, kernel.release))
  )
}
