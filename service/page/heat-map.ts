/* A table of kernels, for check and the list: distributions and architectures down, versions of Linux across. */
import type { KernelRow } from './kernel-table.ts'
import { urlOf } from './url.ts'

/** What the table needs of a kernel. */
type PlacedKernel = Pick<KernelRow, 'kernel' | 'line'>

/** Rows and columns that are shown; facets and filters lead to the others. */
const MAX_ROWS = 60
const COLUMNS = { least: 7, most: 40 }
/** Cells that are shown, as far as the least number of columns allows. */
const MAX_CELLS = 360

export interface HeatMap {
  readonly columns: readonly string[]
  readonly rows: readonly HeatRow[]
  /** rows and columns that are left out */
  readonly omitted: { readonly rows: number; readonly columns: number }
}

interface HeatRow {
  readonly distro: string
  readonly version: string
  readonly arch: string
  /** rows of the same distribution and version; 0 for all but the first */
  readonly span: number
  /** one for each column */
  readonly cells: readonly (HeatCell | null)[]
}

interface HeatCell {
  readonly counts: readonly { readonly state: string; readonly count: number }[]
  readonly href: string
  /** the counts in words */
  readonly words: string
}

export interface HeatState {
  readonly state: string
  /** after a number: `3 made` */
  readonly words: string
}

/**
 * Counts kernels by the states that `stateOf` gives. `states` is the order in a cell; `hrefOf` is the address of a cell.
 */
export function heatMapOf<R extends PlacedKernel>(
  rows: Iterable<R>,
  states: readonly HeatState[],
  stateOf: (row: R) => string | undefined,
  hrefOf: (place: { distro: string; version: string; arch: string; line: string }) => string,
): HeatMap {
  const counts = new Map<string, Map<string, Map<string, number>>>()
  const places = new Map<string, Pick<HeatRow, 'distro' | 'version' | 'arch'>>()
  const lines = new Set<string>()
  for (const row of rows) {
    const state = stateOf(row)
    if (state === undefined) continue
    const { distro, version, arch } = row.kernel
    const key = [distro, version, arch].join('\0')
    places.set(key, { distro, version, arch })
    lines.add(row.line)
    const byLine = getOrAdd(counts, key, () => new Map<string, Map<string, number>>())
    const byState = getOrAdd(byLine, row.line, () => new Map<string, number>())
    byState.set(state, (byState.get(state) ?? 0) + 1)
  }
  const columns = [...lines].sort(LINES.compare)
  const shown = [...places].slice(0, MAX_ROWS)
  const fitting = Math.floor(MAX_CELLS / Math.max(shown.length, 1))
  const width = Math.min(Math.max(fitting, COLUMNS.least), COLUMNS.most)
  const shownColumns = columns.slice(-width)
  const cellOf = (
    place: Pick<HeatRow, 'distro' | 'version' | 'arch'>,
    key: string,
    line: string,
  ) => {
    const byState = counts.get(key)?.get(line)
    if (!byState) return null
    const found = states
      .map(({ state, words }) => ({ state, words, count: byState.get(state) ?? 0 }))
      .filter(({ count }) => count > 0)
    return {
      counts: found.map(({ state, count }) => ({ state, count })),
      href: hrefOf({ ...place, line }),
      words: found.map(({ count, words }) => `${count} ${words}`).join(', '),
    }
  }
  return {
    columns: shownColumns,
    rows: shown.map(([key, place], i) => ({
      ...place,
      span: spanAt(shown, i),
      cells: shownColumns.map((line) => cellOf(place, key, line)),
    })),
    omitted: {
      rows: places.size - shown.length,
      columns: columns.length - shownColumns.length,
    },
  }
}

/** The order of versions of Linux; `other` comes last. */
const LINES = new Intl.Collator('en', { numeric: true })

type Places = readonly (readonly [string, Pick<HeatRow, 'distro' | 'version'>])[]

function spanAt(places: Places, at: number): number {
  const isSame = (i: number) =>
    places[i]?.[1].distro === places[at]![1].distro &&
    places[i]?.[1].version === places[at]![1].version
  if (at > 0 && isSame(at - 1)) return 0
  let span = 1
  while (isSame(at + span)) span++
  return span
}

function getOrAdd<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key)
  if (known !== undefined) return known
  const made = make()
  map.set(key, made)
  return made
}

/** The list of kernels of one cell. */
export const kernelsHref = (place: {
  distro: string
  version: string
  arch: string
  line: string
}): string => urlOf('/kernels', place)
