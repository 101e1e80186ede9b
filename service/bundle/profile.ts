/*
 * Profiles: what each consumer of a bundle reads, as a table. Rules come from the readers:
 *
 * - btfhub: the btfhub-archive tree as a tar.
 * - bcc: libbpf-tools/btf_helpers.c `ensure_core_btf`, `tar_file_start`. It inflates the whole, compares the first 100
 *   bytes of each header with `./ID/VERSION_ID/MACHINE/RELEASE.btf` and believes the size there: no links, no long
 *   names. ID keeps the quotes that os-release has; VERSION_ID is only read where it has some.
 * - inspektor-gadget: pkg/operators/btfgen `getBTFFile`, pkg/btfgen `GetOSInfo`. The name in Go's tar reader is
 *   compared with `ID/VERSION_ID/MACHINE/RELEASE.btf`; ID keeps its quotes, and without VERSION_ID nothing is read.
 * - datadog: pkg/ebpf/btf.go. A regular file `ID/RELEASE.btf.tar.xz`, for Ubuntu `ubuntu/VERSION_ID/…`, of a platform
 *   it knows, in a tar.xz whose dictionary has at most 64 MiB (github.com/xi2/xz); in it a tar.xz with `RELEASE.btf`.
 *   The architecture is not named, so a bundle is of one.
 * - tree: `ID/VERSION_ID/ARCH/RELEASE.btf`, for who unpacks or embeds it (Tracee and others).
 */
import { archiveArch, archivePath, encodeName, type KernelName } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'

export const PROFILE_NAMES = ['btfhub', 'bcc', 'inspektor-gadget', 'datadog', 'tree'] as const
export type ProfileName = (typeof PROFILE_NAMES)[number]

/** What to do about kernels on which an object does not work, or whose builds need different BTF. */
export const POLICIES = ['skip', 'include', 'fail'] as const
export type BundlePolicy = (typeof POLICIES)[number]

export type BundleCompression = 'none' | 'gz' | 'xz' | 'zstd'

/** How a member holds BTF: as it is, or as a tar.xz, which is compressed or, where the outer file is, only framed. */
export type MemberForm = 'raw' | 'tar.xz' | 'framed tar.xz'

export interface Profile {
  /** what the bundle is called, where its name matters; else its stem */
  readonly file: string
  readonly compression: BundleCompression
  /** whether zstd will do, too */
  readonly zstd: boolean
  readonly member: MemberForm
  /** whether who unpacks it makes hard links */
  readonly links: boolean
  /** whether the manifest may lie in it; programs that carry a bundle within them should not carry that */
  readonly manifest: 'inside' | 'beside'
  /** whether it can hold kernels of one architecture alone */
  readonly oneArch: boolean
  /** The path of a kernel's member. Errors: `not_representable` where the consumer could not ask for it. */
  readonly path: (kernel: KernelName) => string
}

export const PROFILES: Readonly<Record<ProfileName, Profile>> = {
  btfhub: {
    file: 'btfhub.tar',
    compression: 'none', // its members are
    zstd: false,
    member: 'tar.xz',
    links: true,
    manifest: 'inside',
    oneArch: false,
    path: archivePath,
  },
  bcc: {
    file: 'min_core_btfs.tar.gz',
    compression: 'gz',
    zstd: false,
    member: 'raw',
    links: false,
    manifest: 'beside',
    oneArch: false,
    path: (kernel) => shortPath(`./${[quotedId(kernel), ...rest(kernel)].join('/')}.btf`),
  },
  'inspektor-gadget': {
    file: 'btfs.tar.gz',
    compression: 'gz',
    zstd: false,
    member: 'raw',
    links: false,
    manifest: 'beside',
    oneArch: false,
    path: (kernel) => {
      if (!hasVersionId(kernel))
        throw notRepresentable(kernel, 'its distribution has no VERSION_ID')
      return `${[quotedId(kernel), kernel.version, kernel.arch, plain(kernel)].join('/')}.btf`
    },
  },
  datadog: {
    file: 'minimized-btfs.tar.xz',
    compression: 'xz',
    zstd: false,
    member: 'framed tar.xz',
    links: false,
    manifest: 'beside',
    oneArch: true,
    path: (kernel) => {
      const { distro, version } = kernel
      if (!DATADOG_PLATFORMS.has(distro))
        throw notRepresentable(kernel, `the agent does not know ${distro}`)
      const directory = distro === 'ubuntu' ? `${distro}/${version}` : distro
      return `${directory}/${plain(kernel)}.btf.tar.xz`
    },
  },
  tree: {
    file: 'btfs.tar',
    compression: 'xz',
    zstd: true,
    member: 'raw',
    links: true,
    manifest: 'inside',
    oneArch: false,
    path: ({ distro, version, arch, release }) =>
      [distro, version, archiveArch(arch), `${release}.btf`].map(encodeName).join('/'),
  },
}

/** pkg/ebpf/btf.go `btfPlatformFromString` */
const DATADOG_PLATFORMS: ReadonlySet<string> = new Set([
  'amzn',
  'centos',
  'debian',
  'fedora',
  'ol',
  'opensuse-leap',
  'rhel',
  'sles',
  'ubuntu',
])

/** Distributions whose os-release has no quotes around ID, and around VERSION_ID. All others have both. */
const BARE_VERSION_ID: ReadonlySet<string> = new Set([
  'alpine',
  'cos',
  'fedora',
  'flatcar',
  'photon',
])
const BARE_ID: ReadonlySet<string> = new Set([
  ...BARE_VERSION_ID,
  'arch',
  'debian',
  'gentoo',
  'kali',
  'linuxmint',
  'manjaro',
  'mariner',
  'nixos',
  'raspbian',
  'ubuntu',
])

const quotedId = ({ distro }: KernelName): string => (BARE_ID.has(distro) ? distro : `"${distro}"`)

/** Catalogs name a distribution that has none by its codename, or `rolling`. */
const hasVersionId = ({ version }: KernelName): boolean => /^\d/.test(version)

/** What bcc makes of VERSION_ID, MACHINE and RELEASE. */
function rest(kernel: KernelName): string[] {
  const read = hasVersionId(kernel) && !BARE_VERSION_ID.has(kernel.distro)
  return [read ? kernel.version : '', kernel.arch, plain(kernel)]
}

/** Bytes of a path that a tar header holds with the NUL that ends it. */
const MAX_NAME = 99

function shortPath(path: string): string {
  const size = Buffer.byteLength(path)
  if (size > MAX_NAME)
    throw notRepresentable({ release: path }, `that has ${size} bytes, and bcc reads ${MAX_NAME}`)
  if (/[^ -~]/.test(path)) throw notRepresentable({ release: path }, 'a plain header holds ASCII')
  return path
}

/** A release as a path's end. */
function plain(kernel: KernelName): string {
  for (const name of Object.values(kernel))
    if (/[\p{Cc}/]|^\.{0,2}$/u.test(name)) throw notRepresentable(kernel, 'its name makes no path')
  return kernel.release
}

const notRepresentable = ({ release }: Pick<KernelName, 'release'>, why: string): ServiceError =>
  new ServiceError('not_representable', `${release} cannot be in such a bundle: ${why}`)
