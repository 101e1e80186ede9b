/* Series: kernels of one distribution, version, architecture and flavour, which differ little from each other. */
import type { KernelName } from '../../storage/index.ts'

/** The suffix of a release that names the kernel's flavour, such as `-cloud-amd64`. */
export const flavourOf = (release: string): string => /(?:-[a-z][^.]*)?$/i.exec(release)?.[0] ?? ''

/** A text that sorts as the release does, with its numbers compared as numbers. */
export const sortableRelease = (release: string): string =>
  release.replace(/\d+/g, (digits) => digits.padStart(12, '0'))

/** A text that is equal for the kernels of one series. Related series sort beside each other. */
export const seriesOf = ({ distro, version, arch, release }: KernelName): string =>
  [arch, distro, sortableRelease(version), flavourOf(release)].join('\0')
