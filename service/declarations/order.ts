/* The kernels of an index in the order of their series, with what questions need to know of them. */
import type { DatabaseSync } from 'node:sqlite'
import {
  compareVersions,
  flavourOf,
  type KernelName,
  seriesOf,
  sortableRelease,
} from '../../storage/index.ts'
import type { IndexedKernel, SeriesName } from './answers.ts'
import type { Parents } from './tree.ts'

/** A series with its kernels in order, and the numbers of their BTFs. */
export interface OrderedSeries {
  name: SeriesName
  kernels: IndexedKernel[]
  btfs: number[]
}

/** What an index has, besides its declarations. */
export interface IndexedKernels {
  parents: Parents
  series: OrderedSeries[]
  count: number
}

/** Reads the kernels of an index, and the tree of their BTFs. */
export function readKernels(database: DatabaseSync): IndexedKernels {
  const rows = database.prepare('SELECT number, parent FROM btfs').all()
  const parents = new Int32Array(
    rows.reduce((most, row) => Math.max(most, (row.number as number) + 1), 0),
  ).fill(-1)
  for (const { number, parent } of rows) parents[number as number] = (parent as number | null) ?? -1
  const placed = database
    .prepare(
      'SELECT kernels.*, btfs.sha256 FROM kernels JOIN btfs ON btfs.number = kernels.btf ORDER BY kernels.key',
    )
    .all()
    .map((row) => {
      const text = (name: string) => row[name] as string
      const kernel = {
        ...{ distro: text('distro'), version: text('version'), arch: text('arch') },
        release: text('release'),
        ...(row.build !== null && { build: text('build') }),
        ...{ packageVersion: text('package'), sha256: text('sha256') },
      }
      return {
        kernel,
        btf: row.btf as number,
        series: seriesOf(kernel),
        release: sortableRelease(kernel.release),
      }
    })
  placed.sort(
    (a, b) =>
      compareText(a.series, b.series) ||
      compareText(a.release, b.release) ||
      compareVersions(a.kernel.packageVersion, b.kernel.packageVersion),
  )
  const series: OrderedSeries[] = []
  let last: string | undefined
  for (const { kernel, btf, series: name } of placed) {
    if (name !== last) series.push({ name: seriesName(kernel), kernels: [], btfs: [] })
    last = name
    const { kernels, btfs } = series.at(-1)!
    kernels.push(kernel)
    btfs.push(btf)
  }
  return { parents, series, count: placed.length }
}

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** The name of a kernel's series. */
export const seriesName = ({ distro, version, arch, release }: KernelName): SeriesName => ({
  ...{ distro, version, arch },
  flavour: flavourOf(release),
})

/** The kernels of a series that have a name, in order. */
export const isNamed = (
  kernel: KernelName,
  { distro, version, arch, release }: KernelName,
): boolean =>
  kernel.release === release &&
  kernel.distro === distro &&
  kernel.version === version &&
  kernel.arch === arch
