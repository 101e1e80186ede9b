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
  const found = table.rows.filter((row) => matches(row, chosen))
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
    facets: FACETS.map((facet) => facetOf(facet, table, chosen)).filter(
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

function matches(row: KernelRow, chosen: Omit<KernelsQuery, 'after'>, except?: Facet): boolean {
  for (const facet of FACETS) {
    const wanted = chosen[facet]
    if (facet !== except && wanted !== undefined && FACET_VALUES[facet](row) !== wanted)
      return false
  }
  const { release } = chosen
  if (release === undefined) return true
  return /[*?]/.test(release)
    ? matchGlob(release, row.kernel.release)
    : row.kernel.release.includes(release)
}

function facetOf(name: Facet, table: KernelTable, chosen: Omit<KernelsQuery, 'after'>): FacetView {
  const counts = new Map<string, number>()
  for (const row of table.rows) {
    if (!matches(row, chosen, name)) continue
    const value = FACET_VALUES[name](row)
    counts.set(value, (counts.get(value) ?? 0) + 1)
  }
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
