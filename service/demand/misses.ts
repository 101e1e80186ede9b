/*
 * Kernels that were asked for and are not there, counted by name over restarts. A name comes from a stranger, so there
 * is a bound to them: where it is reached, those that were wanted least, and of these the oldest, make room. Names that
 * somebody made up and asked for once thus push out each other, not what a fleet wants.
 */
import { type KernelFilter, type KernelName, matchesFilter, namesOf } from '../../storage/index.ts'
import { Journal } from '../cache/journal.ts'

/** Kernels that are counted at most; a tenth of them makes room at a time. */
export const MAX_MISSES = 10_000

export interface Miss {
  kernel: KernelName
  count: number
  /** when it was asked for, first and last: ISO 8601 */
  first: string
  last: string
}

/** A line: what is added to the count of a kernel. */
type Line = [count: number, first: string, last: string, ...name: string[]]

export class Misses {
  /** kernels by their names, in the order in which they were last asked for */
  readonly #misses = new Map<string, Miss>()
  #journal: Journal | undefined
  /** since the start */
  readonly counts = { counted: 0, forgotten: 0 }

  /** Those that a file has; without one they are forgotten with the process. Errors: the system's. */
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

  /** Counts that a kernel was asked for, under the name that the rules for its distribution give it. */
  async count(kernel: KernelName, now = new Date()): Promise<void> {
    const { distro, version, arch, release } = namesOf(kernel).at(-1)!
    const at = now.toISOString()
    const line: Line = [1, at, at, distro, version, arch, release]
    this.counts.counted++
    this.#add(line)
    await this.#journal?.append(line)
  }

  /** Forgets a kernel, which is there by now. */
  forget(kernel: KernelName): void {
    this.#misses.delete(keyOf(kernel))
  }

  /** Those that match a filter, most wanted first, then last asked for first. */
  list(filter: KernelFilter = {}): Miss[] {
    return [...this.#misses.values()]
      .filter(({ kernel }) => matchesFilter(kernel, filter))
      .reverse() // last asked for first, which the sort leaves where counts are equal
      .sort((a, b) => b.count - a.count)
  }

  async close(): Promise<void> {
    await this.#journal?.close()
  }

  #add([count, first, last, distro, version, arch, release]: Line): void {
    const kernel = { distro, version, arch, release } as KernelName
    const key = keyOf(kernel)
    const known = this.#misses.get(key)
    this.#misses.delete(key) // to the end
    this.#misses.set(key, {
      kernel: known?.kernel ?? kernel,
      count: (known?.count ?? 0) + count,
      first: known?.first ?? first,
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
    const sound = Number.isSafeInteger(count) && count > 0 && texts.length === 6
    if (!sound || texts.some((text) => typeof text !== 'string')) throw new Error('no line of ours')
    this.#add(value as Line)
  }

  *#lines(): Generator<Line> {
    for (const { kernel, count, first, last } of this.#misses.values())
      yield [count, first, last, kernel.distro, kernel.version, kernel.arch, kernel.release]
  }
}

const keyOf = ({ distro, version, arch, release }: KernelName): string =>
  JSON.stringify([distro, version, arch, release])
