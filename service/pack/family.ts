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
  /** the minor version of Linux as a number, and the numbers of the release */
  minor: number
  numbers: readonly number[]
}

/** The place of a record's BTF. */
export function placeOf({ kernel, package: from, btf }: Available): PackPlace {
  const { arch, distro, version, release } = kernel
  const numbers = (release.match(/\d{1,9}/g) ?? []).slice(0, MAX_NUMBERS).map(Number)
  const minor = (numbers[0] ?? 0) * MINORS + Math.min(numbers[1] ?? 0, MINORS - 1)
  const line = `${arch}\0${sortableRelease(String(minor))}`
  const branch = [line, distro, seriesOf(kernel)].join('\0')
  const own = [sortableRelease(release), sortableRelease(from.version), btf.sha256]
  return {
    ...{ arch, line, branch, minor, numbers, origin: `${distro}\0${version}` },
    order: [branch, ...own].join('\0'),
  }
}

/** Numbers of a release that are compared, and the most minor versions of a major one. */
const MAX_NUMBERS = 8
const MINORS = 1000

/**
 * Sorts records so that each one has its relatives before it. An architecture begins with its largest line, whose kernels
 * then have short chains; newer lines follow, then older ones. In a line the branches follow each other, and in a branch
 * the releases.
 */
export function inOrder(records: readonly Available[]): Available[] {
  const placed = records.map((record) => ({ record, place: placeOf(record) }))
  const sizes = new Map<string, number>()
  for (const { place } of placed) sizes.set(place.line, (sizes.get(place.line) ?? 0) + 1)
  const homes = new Map<string, PackPlace>()
  for (const { place } of placed) {
    const home = homes.get(place.arch)
    const more = sizes.get(place.line)! - (home ? sizes.get(home.line)! : 0)
    if (!home || more > 0 || (more === 0 && place.minor > home.minor)) homes.set(place.arch, place)
  }
  /** newer lines in their order, then older ones from the newest on */
  const rank = ({ arch, minor }: PackPlace) => {
    const distance = minor - homes.get(arch)!.minor
    return distance >= 0 ? distance : FAR - distance
  }
  const compare = (a: PackPlace, b: PackPlace): number => {
    if (a.arch !== b.arch) return a.arch < b.arch ? -1 : 1
    return rank(a) - rank(b) || (a.order < b.order ? -1 : 1)
  }
  return placed.sort((a, b) => compare(a.place, b.place)).map(({ record }) => record)
}

/** More than any distance between two minor versions. */
const FAR = MINORS * 1e9

/** Compares how near two releases are to a third: less than 0 if the first one is nearer. */
export function compareNearness(to: PackPlace, a: PackPlace, b: PackPlace): number {
  const lines = Math.abs(a.minor - to.minor) - Math.abs(b.minor - to.minor)
  if (lines !== 0) return lines
  for (let i = 0; i < MAX_NUMBERS; i++) {
    const wanted = to.numbers[i] ?? 0
    const difference =
      Math.abs((a.numbers[i] ?? 0) - wanted) - Math.abs((b.numbers[i] ?? 0) - wanted)
    if (difference !== 0) return difference
  }
  return 0
}
