/*
 * Profiles: a table with the archive format that each consumer of a bundle reads. The rules come from the consumers'
 * sources:
 *
 * - btfhub: the tree of btfhub-archive as a tar.
 * - bcc: libbpf-tools/btf_helpers.c `ensure_core_btf`, `tar_file_start`. It decompresses the whole file, compares the
 *   first 100 bytes of each header with `./ID/VERSION_ID/MACHINE/RELEASE.btf`, and uses the size there: no links, no
 *   long names. ID keeps its quotes from os-release; VERSION_ID is read only if it is quoted.
 * - inspektor-gadget: pkg/operators/btfgen `getBTFFile`, pkg/btfgen `GetOSInfo`. It compares the name in Go's tar
 *   reader with `ID/VERSION_ID/MACHINE/RELEASE.btf`. ID keeps its quotes; without VERSION_ID nothing is read.
 * - datadog: pkg/ebpf/btf.go. It reads a regular file `ID/RELEASE.btf.tar.xz` (Ubuntu: `ubuntu/VERSION_ID/…`) of a known
 *   platform, from a tar.xz with a dictionary of at most 64 MiB (github.com/xi2/xz). The file is a tar.xz with
 *   `RELEASE.btf`. The path does not name the architecture, so a bundle has one architecture only.
 * - inspektor-gadget-embed: pkg/btfgen/btfgen.go `initialize`, btfgen_amd64.go, btfgen_arm64.go. The binary `ig` reads
 *   `btfs/GOARCH/ID/VERSION_ID/MACHINE/RELEASE.btf` from what was embedded at build time, with x86 for amd64. ID keeps
 *   its quotes from os-release, and go:embed takes no file whose name has quotes: such kernels are never found.
 * - auditbeat: module/file_integrity/kprobes/verifier.go `loadEmbeddedSpecs`. It tries each file `*.btf` below `embed`,
 *   whatever its name; upstream names them `RELEASE.btf`. The name does not tell the architecture.
 * - tree: `ID/VERSION_ID/ARCH/RELEASE.btf`, for consumers that unpack or embed it (Tracee and others).
 */
import {
  archiveArch,
  archivePath,
  encodeName,
  type KernelName,
  versionIdsOf,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'

export const PROFILE_NAMES = [
  'btfhub',
  'bcc',
  'inspektor-gadget',
  'inspektor-gadget-embed',
  'datadog',
  'auditbeat',
  'tree',
] as const
export type ProfileName = (typeof PROFILE_NAMES)[number]

/** The treatment of kernels on which an object does not work, or whose builds have different BTF. */
export const POLICIES = ['skip', 'include', 'fail'] as const
export type BundlePolicy = (typeof POLICIES)[number]

export type BundleCompression = 'none' | 'gz' | 'xz' | 'zstd'

/** The format of a member: raw BTF, a compressed tar.xz, or a tar.xz with stored data (if the outer file is compressed). */
export type MemberForm = 'raw' | 'tar.xz' | 'framed tar.xz'

export interface Profile {
  /** default name of the archive; with `zstd` an extension is appended */
  readonly file: string
  readonly compression: BundleCompression
  /** whether zstd is supported, too */
  readonly zstd: boolean
  readonly member: MemberForm
  /** whether the consumer supports hard links */
  readonly hardLinks: boolean
  /** `beside` for bundles that are embedded in a program, which has no use for the manifest */
  readonly manifest: 'inside' | 'beside'
  /** whether a bundle holds kernels of one architecture only */
  readonly singleArch: boolean
  /** whether the consumer asks with VERSION_ID as it is: a kernel then has a member for each that its machines may have */
  readonly versionIds: boolean
  /** Returns the path of a kernel's member. Errors: `not_representable` if the consumer cannot look it up. */
  readonly path: (kernel: KernelName) => string
}

export const PROFILES: Readonly<Record<ProfileName, Profile>> = {
  btfhub: {
    file: 'btfhub.tar',
    compression: 'none', // the members are compressed
    zstd: false,
    member: 'tar.xz',
    hardLinks: true,
    manifest: 'inside',
    singleArch: false,
    versionIds: false,
    path: archivePath,
  },
  bcc: {
    file: 'min_core_btfs.tar.gz',
    compression: 'gz',
    zstd: false,
    member: 'raw',
    hardLinks: false,
    manifest: 'beside',
    singleArch: false,
    versionIds: true,
    path: (kernel) => shortPath(`./${[quotedId(kernel), ...bccNames(kernel)].join('/')}.btf`),
  },
  'inspektor-gadget': {
    file: 'btfs.tar.gz',
    compression: 'gz',
    zstd: false,
    member: 'raw',
    hardLinks: false,
    manifest: 'beside',
    singleArch: false,
    versionIds: true,
    path: (kernel) => {
      if (!hasVersionId(kernel))
        throw notRepresentable(kernel, 'its distribution has no numeric VERSION_ID')
      return `${[quotedId(kernel), kernel.version, kernel.arch, plainRelease(kernel)].join('/')}.btf`
    },
  },
  'inspektor-gadget-embed': {
    file: 'btfs.tar.xz',
    compression: 'xz',
    zstd: false,
    member: 'raw',
    hardLinks: true,
    manifest: 'beside',
    singleArch: false,
    versionIds: true,
    path: (kernel) => {
      const goArch = GO_ARCHS[kernel.arch]
      if (goArch === undefined)
        throw notRepresentable(kernel, `the program is built for x86_64 and aarch64 only`)
      if (!BARE_ID.has(kernel.distro))
        throw notRepresentable(kernel, 'the program looks for ID with quotes, which go:embed lacks')
      if (!hasVersionId(kernel))
        throw notRepresentable(kernel, 'its distribution has no numeric VERSION_ID')
      const { distro, version, arch } = kernel
      return `btfs/${[goArch, distro, version, arch, embeddable(kernel)].join('/')}.btf`
    },
  },
  datadog: {
    file: 'minimized-btfs.tar.xz',
    compression: 'xz',
    zstd: false,
    member: 'framed tar.xz',
    hardLinks: false,
    manifest: 'beside',
    singleArch: true,
    versionIds: false,
    path: (kernel) => {
      const { distro, version } = kernel
      if (!DATADOG_PLATFORMS.has(distro))
        throw notRepresentable(kernel, `the agent does not know the distribution ${distro}`)
      const directory = distro === 'ubuntu' ? `${distro}/${version}` : distro
      return `${directory}/${plainRelease(kernel)}.btf.tar.xz`
    },
  },
  auditbeat: {
    file: 'embed.tar.xz',
    compression: 'xz',
    zstd: false,
    member: 'raw',
    hardLinks: true,
    manifest: 'beside',
    singleArch: true,
    versionIds: false,
    path: (kernel) => `embed/${embeddable(kernel)}.btf`,
  },
  tree: {
    file: 'btfs.tar',
    compression: 'xz',
    zstd: true,
    member: 'raw',
    hardLinks: true,
    manifest: 'inside',
    singleArch: false,
    versionIds: true,
    path: ({ distro, version, arch, release }) =>
      [distro, version, archiveArch(arch), `${release}.btf`].map(encodeName).join('/'),
  },
}

/**
 * Returns the paths of a kernel's members: one, or one for each VERSION_ID of its machines. Errors: `not_representable`
 * if the consumer cannot look it up.
 */
export function pathsOf(profile: Profile, kernel: KernelName): string[] {
  if (!profile.versionIds) return [profile.path(kernel)]
  const versions = versionIdsOf(kernel)
  if (!versions)
    throw notRepresentable(
      kernel,
      `the values of VERSION_ID for ${kernel.distro} ${kernel.version} are not known`,
    )
  return versions.map((version) => profile.path({ ...kernel, version }))
}

/** The directories of pkg/btfgen/btfs, which the binary for an architecture embeds. */
const GO_ARCHS: Readonly<Record<string, string>> = { x86_64: 'x86', aarch64: 'arm64' }

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

/** Distributions whose os-release has VERSION_ID, and ID, without quotes. All others quote both. */
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

/** Tells whether the version is a VERSION_ID. Otherwise the catalog has a codename or `rolling` in its place. */
const hasVersionId = ({ version }: KernelName): boolean => /^\d/.test(version)

/** VERSION_ID, MACHINE and RELEASE as bcc reads them. */
function bccNames(kernel: KernelName): string[] {
  const isRead = hasVersionId(kernel) && !BARE_VERSION_ID.has(kernel.distro)
  return [isRead ? kernel.version : '', kernel.arch, plainRelease(kernel)]
}

/** bytes of the longest path in a tar header with its final NUL */
const MAX_PATH = 99

function shortPath(path: string): string {
  const size = Buffer.byteLength(path)
  if (size > MAX_PATH)
    throw notRepresentable({ release: path }, `it has ${size} bytes, but bcc reads ${MAX_PATH}`)
  if (/[^ -~]/.test(path))
    throw notRepresentable({ release: path }, 'a plain tar header holds ASCII only')
  return path
}

/** Returns the release, if every part of the name is safe in a path. Errors: `not_representable`. */
function plainRelease(kernel: KernelName): string {
  for (const name of Object.values(kernel))
    if (/[\p{Cc}/]|^\.{0,2}$/u.test(name))
      throw notRepresentable(kernel, `"${name}" is not a valid path component`)
  return kernel.release
}

/**
 * Returns the release, if go:embed takes files of that name (cmd/go `isBadEmbedName`, golang.org/x/mod/module
 * `CheckFilePath`; names that begin with . or _ are left out silently). Errors: `not_representable`.
 */
function embeddable(kernel: KernelName): string {
  const { release } = kernel
  if (!/^(?![._])[\w!#$%&()+,.=@[\]^{}~ -]+$/.test(release))
    throw notRepresentable(kernel, 'go:embed takes no file of that name')
  return plainRelease(kernel)
}

const notRepresentable = ({ release }: Pick<KernelName, 'release'>, why: string): ServiceError =>
  new ServiceError('not_representable', `the profile cannot hold ${release}: ${why}`)
