/*
 * The builds of a catalog by distribution and state, and when each distribution last had a new one: an archive that is no
 * longer updated looks healthy otherwise. Read at each scrape, and counted only after the catalog has changed.
 */
import type { BuildRecord, Catalog } from '../../storage/index.ts'
import { type KernelState, stateOf } from './public-record.ts'

export interface CatalogCount {
  /** os-release's ID, or `other` for those beyond `MAX_DISTROS` */
  distro: string
  /** builds in each state */
  states: Record<KernelState, number>
  /** when its newest record with BTF was made, in seconds since 1970; undefined without any */
  newest: number | undefined
}

/** Distributions with counts of their own: those with the most builds. Each makes four series. */
export const MAX_DISTROS = 50
const OTHER = 'other'

/** Returns a function that counts the builds of a catalog, in order of the distributions' names. */
export function catalogCounts(
  catalog: Pick<Catalog, 'version' | 'list'>,
): () => readonly CatalogCount[] {
  let counted: { version: number; counts: readonly CatalogCount[] } | undefined
  return () => {
    const { version } = catalog
    if (counted?.version !== version) counted = { version, counts: countOf(catalog) }
    return counted.counts
  }
}

function countOf(catalog: Pick<Catalog, 'list'>): readonly CatalogCount[] {
  const all = new Map<string, CatalogCount>()
  for (const { record } of catalog.list()) {
    const { distro } = record.kernel
    const count = all.get(distro) ?? emptyCount(distro)
    all.set(distro, count)
    count.states[stateOf(record)]++
    count.newest = later(count.newest, newestOf(record))
  }
  return bounded([...all.values()])
}

const emptyCount = (distro: string): CatalogCount => ({
  distro,
  states: { available: 0, embedded: 0, failed: 0 },
  newest: undefined,
})

const newestOf = ({ btf, createdAt }: BuildRecord): number | undefined =>
  btf && Date.parse(createdAt) / 1000

const later = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined || b === undefined ? (a ?? b) : Math.max(a, b)

function bounded(counts: readonly CatalogCount[]): readonly CatalogCount[] {
  const byName = (a: CatalogCount, b: CatalogCount) => (a.distro < b.distro ? -1 : 1)
  const largestFirst = [...counts].sort((a, b) => totalOf(b) - totalOf(a) || byName(a, b))
  const own = largestFirst.slice(0, MAX_DISTROS).sort(byName)
  const rest = largestFirst.slice(MAX_DISTROS)
  if (rest.length === 0) return own
  const other = emptyCount(OTHER)
  for (const { states, newest } of rest) {
    for (const state of Object.keys(states) as KernelState[]) other.states[state] += states[state]
    other.newest = later(other.newest, newest)
  }
  return [...own, other]
}

const totalOf = ({ states }: CatalogCount): number =>
  Object.values(states).reduce((sum, count) => sum + count, 0)
