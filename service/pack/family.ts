/*
 * The place of a kernel among its relatives, which decides what it is stored as the difference from. A line is a minor
 * version of Linux, such as 6.12, of one architecture; its kernels have most types in common, whatever their flavour. A
 * branch is the kernels of a line that belong to one series: of one distribution, version and flavour.
 */
import { seriesOf, sortableRelease } from '../../storage/index.ts'
import type { Available } from '../kernel/lookup.ts'

export interface PackPlace {
  arch: string
  line: string
  branch: string
  /** distribution and version */
  origin: string
  /** sorts kernels by branch, and in a branch by release */
  order: string
  /** the numbers of the release, and those of the package's version */
  numbers: readonly number[]
}

/** The place of a record's BTF. */
export function placeOf({ kernel, package: from, btf }: Available): PackPlace {
  const { arch, distro, version, release } = kernel
  const minor = /^\d+\.\d+/.exec(release)?.[0] ?? ''
  const line = [arch, sortableRelease(minor)].join('\0')
  const branch = [arch, distro, sortableRelease(minor), seriesOf(kernel)].join('\0')
  const own = [sortableRelease(release), sortableRelease(from.version), btf.sha256]
  return {
    ...{ arch, line, branch, origin: `${distro}\0${version}` },
    order: [branch, ...own].join('\0'),
    numbers: (release.match(/\d{1,9}/g) ?? []).slice(0, MAX_NUMBERS).map(Number),
  }
}

/** Numbers of a release that are compared. */
const MAX_NUMBERS = 8

/** Compares how near two releases are to a third: less than 0 if the first one is nearer. */
export function compareNearness(to: PackPlace, a: PackPlace, b: PackPlace): number {
  for (let i = 0; i < MAX_NUMBERS; i++) {
    const wanted = to.numbers[i] ?? 0
    const difference =
      Math.abs((a.numbers[i] ?? 0) - wanted) - Math.abs((b.numbers[i] ?? 0) - wanted)
    if (difference !== 0) return difference
  }
  return 0
}
