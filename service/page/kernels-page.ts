/* /kernels: all kernels as a heat map, with facets and a list; what is chosen is in the address. */
import { matchGlob } from '../../storage/index.ts'
import { type HeatMap, heatMapOf, kernelsHref } from './heat-map.ts'
import { type KernelRow, type KernelTable, PAGE_STATES, type PageState } from './kernel-table.ts'
import type { Page } from './render.ts'
import { kernelUrl, urlOf } from './url.ts'

/** What is chosen of each facet. */
export const FACETS = ['distro', 'version', 'arch', 'line', 'flavour', 'state'] as const
type Facet = (typeof FACETS)[number]
export type KernelsQuery = Partial<Record<Facet, string>> & { release?: string; after?: string }

/** Kernels on one page of the list, and values of one facet. */
const LENGTH = 100
const MAX_VALUES = 24

const TITLES: Record<Facet, string> = {
  distro: 'Distribution',
  version: 'Version',
  arch: 'Architecture',
  line: 'Linux',
  flavour: 'Flavour',
  state: 'BTF',
}

/** The states, and their words after a number. */
export const STATE_WORDS: Record<PageState, string> = {
  made: 'made here',
  own: 'with BTF of their own',
  failed: 'failed',
}

interface FacetView {
  readonly name: Facet
  readonly title: string
  readonly values: readonly {
    readonly value: string
    readonly text: string
    readonly count: number
    readonly chosen: boolean
    readonly href: string
  }[]
  readonly omitted: number
}

/** A kernel in a list. */
export interface ListedKernel {
  readonly name: string
  readonly href: string
  readonly distro: string
  readonly version: string
  readonly arch: string
  readonly release: string
  readonly state: PageState
  readonly packageVersion: string
  readonly builds: number
  readonly types?: number
  /** bytes of the raw BTF */
  readonly size?: number
  readonly sha256?: string
  /** why it could not be made */
  readonly failure?: string
}

export interface KernelsView {
  readonly total: number
  readonly found: number
  readonly chosen: KernelsQuery
  readonly heatMap: HeatMap
  readonly facets: readonly FacetView[]
  readonly kernels: readonly ListedKernel[]
  /** the address of the next page */
  readonly next?: string
  readonly first?: string
}

export function kernelsPage(table: KernelTable, query: KernelsQuery): Page {
  const { after, ...chosen } = query
  const { found, counts } = filtered(table, chosen)
  const start = after === undefined ? 0 : found.findIndex(({ name }) => name === after) + 1
  const shown = found.slice(start, start + LENGTH)
  const last = shown.at(-1)
  const path = (parts: KernelsQuery) => urlOf('/kernels', { ...parts })
  const view: KernelsView = {
    total: table.rows.length,
    found: found.length,
    chosen: query,
    heatMap: heatMapOf(
      found,
      PAGE_STATES.map((state) => ({ state, words: STATE_WORDS[state] })),
      ({ state }) => state,
      kernelsHref,
    ),
    facets: FACETS.map((facet) => facetOf(facet, counts[facet], chosen)).filter(
      ({ values }) => values.length > 1 || values.some((one) => one.chosen),
    ),
    kernels: shown.map(listedKernel),
    ...(last && start + LENGTH < found.length && { next: path({ ...chosen, after: last.name }) }),
    ...(start > 0 && { first: path(chosen) }),
  }
  const words = FACETS.map((facet) => chosen[facet]).filter((value) => value !== undefined)
  const what = words.length > 0 ? `${words.join(', ')}: ` : ''
  return {
    template: 'kernels',
    title: `${what}${found.length} Linux kernels with BTF`,
    description: `${what}which Linux kernels have BTF of their own, and for which it was made from debug info. ${found.length} kernels to look at and download.`,
    path: path(query),
    part: 'kernels',
    view,
  }
}

/** The value of each facet of a kernel. */
const FACET_VALUES: Record<Facet, (row: KernelRow) => string> = {
  distro: ({ kernel }) => kernel.distro,
  version: ({ kernel }) => kernel.version,
  arch: ({ kernel }) => kernel.arch,
  line: ({ line }) => line,
  flavour: ({ flavour }) => flavour || 'none',
  state: ({ state }) => state,
}

/**
 * The kernels that match, and for each facet how many kernels have each value: those that match in all other facets. One
 * pass: a kernel that differs in one facet counts there alone.
 */
function filtered(table: KernelTable, chosen: Omit<KernelsQuery, 'after'>) {
  const counts = Object.fromEntries(
    FACETS.map((facet) => [facet, new Map<string, number>()]),
  ) as Record<Facet, Map<string, number>>
  const count = (facet: Facet, row: KernelRow) => {
    const value = FACET_VALUES[facet](row)
    counts[facet].set(value, (counts[facet].get(value) ?? 0) + 1)
  }
  const wanted = FACETS.filter((facet) => chosen[facet] !== undefined)
  const isReleased = releaseFilter(chosen.release)
  const found: KernelRow[] = []
  for (const row of table.rows) {
    let differing: Facet | undefined
    let differences = 0
    for (const facet of wanted) {
      if (FACET_VALUES[facet](row) === chosen[facet]) continue
      differing = facet
      if (++differences > 1) break
    }
    if (differences > 1 || !isReleased(row)) continue
    if (differing) count(differing, row)
    else {
      found.push(row)
      for (const facet of FACETS) count(facet, row)
    }
  }
  return { found, counts }
}

function releaseFilter(wanted: string | undefined): (row: KernelRow) => boolean {
  if (wanted === undefined) return () => true
  if (/[*?]/.test(wanted)) return ({ kernel }) => matchGlob(wanted, kernel.release)
  return ({ kernel }) => kernel.release.includes(wanted)
}

function facetOf(
  name: Facet,
  counts: ReadonlyMap<string, number>,
  chosen: Omit<KernelsQuery, 'after'>,
): FacetView {
  const byCount = [...counts].sort((a, b) => b[1] - a[1])
  const kept = new Set(byCount.slice(0, MAX_VALUES).map(([value]) => value))
  return {
    name,
    title: TITLES[name],
    values: [...counts]
      .filter(([value]) => kept.has(value) || chosen[name] === value)
      .map(([value, count]) => ({
        value,
        text: name === 'state' ? STATE_WORDS[value as PageState] : value,
        count,
        chosen: chosen[name] === value,
        href: urlOf('/kernels', { ...chosen, [name]: chosen[name] === value ? undefined : value }),
      })),
    omitted: Math.max(counts.size - MAX_VALUES, 0),
  }
}

/** Characters of a failure's message in a list. */
const MAX_MESSAGE = 160

export function listedKernel(row: KernelRow): ListedKernel {
  const { name, kernel, state, builds, served } = row
  const { package: origin, failure } = served ?? builds[0]!
  return {
    name,
    href: kernelUrl(name),
    ...kernel,
    state,
    packageVersion: origin.version,
    builds: builds.length,
    ...(served && {
      types: served.btf.types,
      size: served.btf.size,
      sha256: served.btf.sha256,
    }),
    ...(!served && failure && { failure: failure.message.slice(0, MAX_MESSAGE) }),
  }
}
