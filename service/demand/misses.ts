/*
 * Misses: requested kernels that have no BTF, counted by name. The counts survive a restart. Names come from strangers,
 * so their number is bounded: at the bound the names with the fewest requests are dropped, oldest first. Made-up names,
 * requested once each, therefore evict each other, and not the kernels of a fleet.
 */
import {
  type Catalog,
  type KernelFilter,
  type KernelName,
  matchesFilter,
  namesOf,
} from '../../storage/index.ts'
import { Journal } from '../cache/journal.ts'
import { isFound } from '../kernel/lookup.ts'

/** The maximum number of kernels; a tenth is dropped at a time. */
export const MAX_MISSES = 10_000

export interface Miss {
  kernel: KernelName
  count: number
  /** times of the first and the last request: ISO 8601 */
  first: string
  last: string
}

/** A line of the journal: an increment of a kernel's count. */
type Line = [count: number, first: string, last: string, ...name: string[]]

export class Misses {
  /** key: `keyOf(kernel)`; in the order of the last request */
  readonly #misses = new Map<string, Miss>()
  #journal: Journal | undefined
  /** since the start of the process */
  readonly counts = { counted: 0, forgotten: 0 }

  /** Reads the misses in a file; without a path they are kept in memory only. Errors: the system's. */
  static async open(path: string | undefined, onError: (error: unknown) => void): Promise<Misses> {
    const misses = new Misses()
    if (path === undefined) return misses
    misses.#journal = await Journal.open(path, {
      read: (value) => misses.#read(value),
      state: () => misses.#lines(),
      onError,
    })
    return misses
  }

  get size(): number {
    return this.#misses.size
  }

  /** Counts a request for a kernel, under the canonical name that its distribution's rules give. */
  async count(kernel: KernelName, now = new Date()): Promise<void> {
    const { distro, version, arch, release } = namesOf(kernel).at(-1)!
    const at = now.toISOString()
    const line: Line = [1, at, at, distro, version, arch, release]
    this.counts.counted++
    this.#add(line)
    await this.#journal?.append(line)
  }

  /** Drops a kernel that has BTF by now. */
  forget(kernel: KernelName): void {
    this.#misses.delete(keyOf(kernel))
  }

  /** Returns the misses that match a filter, most requested first, then most recent first. */
  list(filter: KernelFilter = {}): Miss[] {
    return [...this.#misses.values()]
      .filter(({ kernel }) => matchesFilter(kernel, filter))
      .reverse() // most recent first; the sort is stable
      .sort((a, b) => b.count - a.count)
  }

  /** `list`, without kernels that have BTF by now: they are forgotten. */
  listMissing(catalog: Catalog, filter: KernelFilter = {}): Miss[] {
    return this.list(filter).filter(({ kernel }) => {
      const found = isFound(catalog, kernel)
      if (found) this.forget(kernel)
      return !found
    })
  }

  async close(): Promise<void> {
    await this.#journal?.close()
  }

  #add([count, first, last, distro, version, arch, release]: Line): void {
    const kernel = { distro, version, arch, release } as KernelName
    const key = keyOf(kernel)
    const previous = this.#misses.get(key)
    this.#misses.delete(key) // moves the kernel to the end of the order
    this.#misses.set(key, {
      kernel: previous?.kernel ?? kernel,
      count: (previous?.count ?? 0) + count,
      first: previous?.first ?? first,
      last,
    })
    if (this.#misses.size > MAX_MISSES) this.#makeRoom()
  }

  #makeRoom(): void {
    for (const { kernel } of this.list().slice(-MAX_MISSES / 10)) {
      this.forget(kernel)
      this.counts.forgotten++
    }
  }

  #read(value: unknown): void {
    const [count, ...texts] = value as Line
    const valid =
      Number.isSafeInteger(count) &&
      count > 0 &&
      texts.length === 6 &&
      texts.every((text) => typeof text === 'string')
    if (!valid)
      throw new Error('invalid line of the journal of misses: expected a count and 6 strings')
    this.#add(value as Line)
  }

  *#lines(): Generator<Line> {
    for (const { kernel, count, first, last } of this.#misses.values())
      yield [count, first, last, kernel.distro, kernel.version, kernel.arch, kernel.release]
  }
}

const keyOf = ({ distro, version, arch, release }: KernelName): string =>
  JSON.stringify([distro, version, arch, release])
