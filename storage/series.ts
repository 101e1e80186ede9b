/* Series: kernels of one distribution, version, architecture and flavour, which differ little from each other. */
import type { KernelName } from './kernel.ts'
import { compareVersions } from './version.ts'

/** The suffix of a release that names the kernel's flavour, such as `-cloud-amd64`. */
export const flavourOf = (release: string): string => /(?:-[a-z][^.]*)?$/i.exec(release)?.[0] ?? ''

/** A text that sorts as the release does, with its numbers compared as numbers. */
export const sortableRelease = (release: string): string =>
  release.replace(/\d+/g, (digits) => digits.padStart(12, '0'))

/** A text that is equal for the kernels of one series. Related series sort beside each other. */
export const seriesOf = ({ distro, version, arch, release }: KernelName): string =>
  [arch, distro, sortableRelease(version), flavourOf(release)].join('\0')

/** The items of the newest `count` releases of each series, in the given order: by the order of versions, not of their making. */
export function newestOfSeries<T>(
  items: readonly T[],
  count: number,
  kernelOf: (item: T) => KernelName,
): T[] {
  const series = Map.groupBy(items, (item) => seriesOf(kernelOf(item)))
  const newest = [...series.entries()].map(([name, ours]) => {
    const releases = [...new Set(ours.map((item) => kernelOf(item).release))]
    const kept = releases.sort((a, b) => compareVersions(b, a)).slice(0, count)
    return [name, new Set(kept)] as const
  })
  const kept = new Map(newest)
  return items.filter((item) => {
    const kernel = kernelOf(item)
    return kept.get(seriesOf(kernel))!.has(kernel.release)
  })
}
