/*
 * Records in memory, for look-ups and listings. They are grouped by kernel name, and each group is in the order of its
 * keys. A group is replaced as a whole, and the other indexes follow. Nothing here reads or writes a store.
 */
import { canonicalArch } from './arch.ts'
import { matchGlob } from './glob.ts'
import { type KernelFilter, type KernelName, valuesOf, type Wanted } from './kernel.ts'
import { encodeName, isName, kernelPrefix } from './name.ts'
import type { BuildRecord } from './record.ts'
import { compareVersions } from './version.ts'

/** A record with the key and the etag of its object. */
export interface RecordEntry {
  key: string
  etag: string
  record: BuildRecord
  /** set if `record` is only the public part of the stored record */
  partial?: true
}

/** The values, besides its kernel's name, by which a record is found. */
const INDEXES = {
  buildId: ({ kernel }: BuildRecord) => kernel.buildId,
  release: ({ kernel }: BuildRecord) => kernel.release,
  sha256: ({ btf }: BuildRecord) => btf?.sha256,
} as const

type IndexName = keyof typeof INDEXES
const INDEX_NAMES = Object.keys(INDEXES) as IndexName[]

export class Records {
  /** entries by `kernelPrefix`, in order of their keys */
  readonly #groups = new Map<string, readonly RecordEntry[]>()
  /** prefixes of groups, in byte order; undefined until it is computed */
  #order: string[] | undefined
  readonly #indexes: Readonly<Record<IndexName, Map<string, readonly RecordEntry[]>>> = {
    buildId: new Map(),
    release: new Map(),
    sha256: new Map(),
  }
  #size = 0
  #version = 0

  get size(): number {
    return this.#size
  }

  /** The number of changes so far. */
  get version(): number {
    return this.#version
  }

  /** Replaces all entries of one kernel name; an empty list removes the name. */
  set(prefix: string, entries: readonly RecordEntry[]): void {
    this.#version++
    const old = this.#groups.get(prefix)
    for (const entry of old ?? []) this.#unindex(entry)
    for (const entry of entries) this.#index(entry)
    this.#size += entries.length - (old?.length ?? 0)
    if (entries.length > 0 !== (old !== undefined)) this.#order = undefined
    if (entries.length === 0) this.#groups.delete(prefix)
    else this.#groups.set(prefix, [...entries].sort(byKey))
  }

  /** The entries of one kernel name, given as `kernelPrefix`. */
  get(prefix: string): readonly RecordEntry[] {
    return this.#groups.get(prefix) ?? []
  }

  /** All builds of one kernel name, newest first. The architecture may be an alias; the rest must be exact. */
  find(kernel: KernelName): BuildRecord[] {
    const entries = this.get(kernelPrefix({ ...kernel, arch: canonicalArch(kernel.arch) }))
    return entries.map(({ record }) => record).sort(newestFirst)
  }

  /** All records with a build-id, a `uname -r` or a SHA-256 of raw BTF, newest first. */
  findBy(index: IndexName, value: string): BuildRecord[] {
    const found = this.#indexes[index].get(value) ?? []
    return found.map(({ record }) => record).sort(newestFirst)
  }

  /** The prefixes of kernel names that start with `prefix`, in byte order. */
  *prefixes(prefix = ''): Generator<string> {
    this.#order ??= [...this.#groups.keys()].sort()
    for (let at = lowerBound(this.#order, prefix); at < this.#order.length; at++) {
      const found = this.#order[at]!
      if (!found.startsWith(prefix)) return
      yield found
    }
  }

  /** The entries that match a filter, in byte order of their keys, from after the key `after`. */
  *list(filter: KernelFilter = {}, after = ''): Generator<RecordEntry> {
    const start = prefixOf(filter)
    for (const prefix of this.prefixes(start)) {
      // all keys of this group come before `after`
      if (prefix < after && !after.startsWith(prefix)) continue
      for (const entry of this.get(prefix)) {
        if (entry.key > after && matchesFilter(entry.record.kernel, filter)) yield entry
      }
    }
  }

  #index(entry: RecordEntry): void {
    for (const name of INDEX_NAMES) {
      const [index, value] = [this.#indexes[name], INDEXES[name](entry.record)]
      if (value !== undefined) index.set(value, [...(index.get(value) ?? []), entry])
    }
  }

  #unindex(entry: RecordEntry): void {
    for (const name of INDEX_NAMES) {
      const [index, value] = [this.#indexes[name], INDEXES[name](entry.record)]
      if (value === undefined) continue
      const others = (index.get(value) ?? []).filter((other) => other !== entry)
      if (others.length === 0) index.delete(value)
      else index.set(value, others)
    }
  }
}

/** Tells whether a kernel matches a filter. */
export function matchesFilter(kernel: KernelName, filter: KernelFilter): boolean {
  const has = (wanted: Wanted | undefined, matches: (value: string) => boolean) =>
    wanted === undefined || valuesOf(wanted).some(matches)
  return (
    has(filter.distro, (distro) => distro === kernel.distro) &&
    has(filter.version, (version) => version === kernel.version) &&
    has(filter.arch, (arch) => canonicalArch(arch) === kernel.arch) &&
    has(filter.release, (release) => matchGlob(release, kernel.release))
  )
}

/** The longest prefix that all keys of matching records share. */
function prefixOf({ distro, version, arch }: KernelFilter): string {
  let prefix = 'kernels/'
  const machines = arch === undefined ? undefined : valuesOf(arch).map(canonicalArch)
  for (const wanted of [distro, version, machines]) {
    const [name, ...others] = wanted === undefined ? [] : valuesOf(wanted)
    if (name === undefined || others.length > 0 || !isName(name)) break
    prefix += `${encodeName(name)}/`
  }
  return prefix
}

function lowerBound(sorted: readonly string[], wanted: string): number {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (sorted[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}

const byKey = (a: RecordEntry, b: RecordEntry): number => (a.key < b.key ? -1 : 1)

/** Orders builds: by package version, since that tells more than the time of generation; then by that time. */
export const newestFirst = (a: BuildRecord, b: BuildRecord): number =>
  compareVersions(b.package.version, a.package.version) ||
  (a.createdAt < b.createdAt ? 1 : a.createdAt > b.createdAt ? -1 : 0)
