/*
 * A source: the description of a distribution's repository of kernels with debug info, as data. `sources.ts` assembles
 * the table; users add rows and override them. A source is a union tagged by the protocol of its index.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { GeneratorError } from '../error.ts'
import { NamingRule, namingOf } from './naming.ts'

const Id = Type.String({ pattern: '^[a-z0-9-]{1,64}$' })
const Path = Type.String({ pattern: '^/' })

/**
 * Files that open a restricted repository. Their contents never leave the machine they are on, except to its server.
 */
export const Access = Type.Object({
  /** a client certificate and its key, PEM */
  certificate: Type.Optional(Path),
  key: Type.Optional(Path),
  /** the certificate authority of the server, PEM */
  authority: Type.Optional(Path),
  /** file with the lines `username=…` and `password=…`, as zypper has it */
  credentials: Type.Optional(Path),
  /** file, or folder of zypper's .repo files, with URLs of repositories whose query is their token */
  tokens: Type.Optional(Path),
})
export type Access = Type.Static<typeof Access>

/** Access with the URLs of repositories whose query is their token. */
export interface RepositoryAccess extends Access {
  urls?: readonly string[]
}

/** Mirrors of a source. A file that none of them has is unlikely to be on the next. */
const MAX_MIRRORS = 4
/** A server, and the path of the repositories on it. */
const MirrorUrl = Type.String({ pattern: '^(https?|file)://[^?#]*$' })

const Common = {
  id: Id,
  /** os-release ID */
  distro: Type.String({ minLength: 1 }),
  /** value of `{mirror}` in the URLs of repositories, without a trailing slash; of several, the first that works is used */
  mirror: Type.Optional(
    Type.Union([MirrorUrl, Type.Array(MirrorUrl, { minItems: 1, maxItems: MAX_MIRRORS })]),
  ),
  /** read only if a run names it, or a version that no other source has: it is slow, or restricted */
  optIn: Type.Optional(Type.Boolean()),
  access: Type.Optional(Access),
  /** the distribution's architecture names by `uname -m` name */
  architectures: Type.Record(Type.String(), Type.String({ pattern: '^[a-z0-9_]+$' })),
  /** rules for packages with debug info; of two packages of one kernel, the earlier rule is preferred */
  packages: Type.Array(NamingRule),
  /** minimum size of a package in bytes: smaller ones only depend on others */
  minSize: Type.Optional(Type.Integer({ minimum: 0 })),
  /** paths of vmlinux in a package, with `{release}` for `uname -r`; the first in the archive is taken */
  vmlinux: Type.Array(Type.String()),
  /** rules for packages with the kernel image: it may have BTF of its own */
  images: Type.Optional(Type.Array(NamingRule, { minItems: 1 })),
  /** paths of vmlinuz in such a package, like `vmlinux` */
  vmlinuz: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
  /** rules for packages with kernel headers and an ELF file that has the kernel's own BTF only */
  headers: Type.Optional(Type.Array(NamingRule, { minItems: 1 })),
  /** paths of this file, like `vmlinux` */
  headersVmlinux: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
  /** rules for packages with kernel headers to compile */
  devel: Type.Optional(Type.Array(NamingRule, { minItems: 1 })),
  /** of an apt index: globs for the names of the packages with the rest of these headers, which they depend on */
  develParts: Type.Optional(Type.Array(Type.String({ minLength: 1 }), { minItems: 1 })),
}

/** Paths where the OpenPGP keys of a distribution may be, binary or armoured. Missing files are ignored. */
const Keyrings = Type.Array(Path, { minItems: 1 })

/** Fingerprints of the OpenPGP keys that a distribution signs with. */
const Fingerprints = Type.Optional(
  Type.Array(Type.String({ pattern: '^[0-9A-F]{40}$' }), { minItems: 1 }),
)

/**
 * Addresses where these keys are published: the distribution's own, then those of distribution-gpg-keys. A file may have
 * several keys, and only those with a known fingerprint are taken from it.
 */
const KeyUrls = Type.Optional(
  Type.Array(Type.String({ pattern: '^(https|file)://' }), { minItems: 1, maxItems: 64 }),
)

/**
 * All versions of a source, or some, get no updates: suites that have expired since are accepted, and signatures whose
 * key has, if it was valid when it signed.
 */
const EndOfLife = Type.Optional(Type.Union([Type.Boolean(), Type.Array(Type.String())]))

const Repository = {
  /** its architectures by `uname -m` name, if it does not have all of the source's */
  only: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
  /** it has kernel images only, no debug info: `--from debug` does not read it */
  images: Type.Optional(Type.Boolean()),
  /** skipped where it does not exist or no access is given, such as one with a subscription of its own */
  optional: Type.Optional(Type.Boolean()),
}

/** A URL with `{mirror}`, `{version}` and `{arch}` (the distribution's architecture name); its query is a token. */
const Url = Type.String({ pattern: '^(https?://|file://|\\{mirror\\}).*$' })

/** The name of a repository within its source. */
const Name = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' })

const Suite = Type.Object({
  ...Repository,
  /** a URL, or only its last part: the repository is then where `--mirror` or apt on this machine has it */
  url: Type.Union([Url, Type.String({ pattern: '^[a-z0-9-]+$' })]),
  suite: Type.String({ pattern: '^[a-z0-9][a-z0-9./-]*$' }),
})

export const AptSource = Type.Object({
  ...Common,
  protocol: Type.Literal('apt'),
  keyrings: Keyrings,
  fingerprints: Fingerprints,
  keyUrls: KeyUrls,
  endOfLife: EndOfLife,
  components: Type.Array(Type.String({ pattern: '^[a-z/-]+$' }), { minItems: 1 }),
  versions: versions(Suite),
})
export type AptSource = Type.Static<typeof AptSource>

const RpmMdSource = Type.Object({
  ...Common,
  protocol: Type.Literal('rpm-md'),
  /** for repomd.xml and packages; without any, no signature is checked */
  keyrings: Type.Optional(Keyrings),
  fingerprints: Fingerprints,
  keyUrls: KeyUrls,
  endOfLife: EndOfLife,
  /** repomd.xml is always signed: without its signature it is rejected */
  signed: Type.Optional(Type.Boolean()),
  versions: versions(
    Type.Object({
      ...Repository,
      name: Name,
      url: Url,
      /** the URL leads to a list of mirrors; `plain`: the list came over TLS, but may name mirrors without TLS */
      list: Type.Optional(Type.Union([Type.Boolean(), Type.Literal('plain')])),
    }),
  ),
})
export type RpmMdSource = Type.Static<typeof RpmMdSource>

const ListingSource = Type.Object({
  ...Common,
  protocol: Type.Literal('listing'),
  /** for packages */
  keyrings: Type.Optional(Keyrings),
  fingerprints: Fingerprints,
  keyUrls: KeyUrls,
  versions: versions(Type.Object({ ...Repository, name: Name, url: Url })),
})
export type ListingSource = Type.Static<typeof ListingSource>

const LaunchpadSource = Type.Object({
  ...Common,
  protocol: Type.Literal('launchpad'),
  /** hosts that files may be on, besides the API's own */
  hosts: Type.Array(Type.String()),
  versions: versions(Type.Object({ ...Repository, url: Url, series: Name })),
})
export type LaunchpadSource = Type.Static<typeof LaunchpadSource>

const SnapshotSource = Type.Object({
  ...Common,
  protocol: Type.Literal('snapshot'),
  versions: versions(
    Type.Object({
      ...Repository,
      url: Url,
      /** the source package that kernels are built from */
      package: Name,
      /** regular expression for its versions that belong to the release */
      matching: Type.String({ minLength: 1 }),
    }),
  ),
})
export type SnapshotSource = Type.Static<typeof SnapshotSource>

/** Files that a user names. There is no index, only rules for their names. */
const CustomSource = Type.Object({
  ...Common,
  protocol: Type.Literal('files'),
  versions: Type.Record(Type.String(), Type.Array(Type.Object(Repository), { maxItems: 0 })),
})

const SCHEMAS = {
  apt: Compile(AptSource),
  'rpm-md': Compile(RpmMdSource),
  listing: Compile(ListingSource),
  launchpad: Compile(LaunchpadSource),
  snapshot: Compile(SnapshotSource),
  files: Compile(CustomSource),
} as const

export type Source =
  | AptSource
  | RpmMdSource
  | ListingSource
  | LaunchpadSource
  | SnapshotSource
  | Type.Static<typeof CustomSource>

/** Schema of the repositories by VERSION_ID, in the catalog's spelling (`namesOf`). */
function versions<R extends Type.TSchema>(repository: R) {
  return Type.Record(Type.String(), Type.Array(repository, { minItems: 1 }))
}

/** Checks a row of the source table. Errors: `invalid_index`, with the field at fault. */
export function parseSource(value: unknown): Source {
  const protocol = (value as Partial<Source> | null | undefined)?.protocol
  const schema = protocol !== undefined && Object.hasOwn(SCHEMAS, protocol) && SCHEMAS[protocol]
  if (!schema) throw invalidSource(`/protocol must be one of ${Object.keys(SCHEMAS).join(', ')}`)
  if (!schema.Check(value)) {
    const [first] = schema.Errors(value)
    throw invalidSource(`${first?.instancePath} ${first?.message}`)
  }
  const source = value as Source
  const { packages, images = [], headers = [], devel = [] } = source
  namingOf([...packages, ...images, ...headers, ...devel])
  if (packages.length + devel.length === 0)
    throw invalidSource('/packages or /devel must have a rule')
  if (packages.length > 0 && source.vmlinux.length === 0)
    throw invalidSource('/packages and /vmlinux must be given together')
  if (!source.images !== !source.vmlinuz)
    throw invalidSource('/images and /vmlinuz must be given together')
  if (!source.headers !== !source.headersVmlinux)
    throw invalidSource('/headers and /headersVmlinux must be given together')
  return source
}

/** The paths where the keys of a distribution version may be. */
export function keyringsOf(source: Source, version: string): string[] {
  const keyrings = ('keyrings' in source && source.keyrings) || []
  return keyrings.map((path) => path.replaceAll('{version}', () => version))
}

/** Tells whether a distribution version gets no updates any more. */
export function isEndOfLife(source: Source, version: string): boolean {
  const endOfLife = ('endOfLife' in source && source.endOfLife) || false
  return typeof endOfLife === 'boolean' ? endOfLife : endOfLife.includes(version)
}

/** The name of a repository within its version. */
export function nameOfRepository(repository: Source['versions'][string][number]): string {
  if ('suite' in repository) return repository.suite
  if ('series' in repository) return repository.series
  if ('package' in repository) return repository.package
  return 'name' in repository ? repository.name : ''
}

const invalidSource = (why: string): GeneratorError =>
  new GeneratorError('invalid_index', `invalid source: ${why}`)

/** The digest of a file in an index. */
export const Checksum = Type.Object({
  algorithm: Type.Union([
    Type.Literal('sha1'),
    Type.Literal('sha256'),
    Type.Literal('sha384'),
    Type.Literal('sha512'),
  ]),
  hex: Type.String({ pattern: '^[0-9a-f]{40,128}$' }),
})
export type Checksum = Type.Static<typeof Checksum>

/** What authenticates an index: its signature (`index`), TLS or the user's own folder (`digest`), or nothing. */
export const Trust = Type.Union([
  Type.Literal('index'),
  Type.Literal('digest'),
  Type.Literal('none'),
])
export type Trust = Type.Static<typeof Trust>

/**
 * What a package has of its kernel, the smallest package first. BTF is taken from the first that has it. `devel` is not
 * among those: headers to compile, of which only partial BTF is made, and only if a run asks for it.
 */
export const PackageRole = Type.Union([
  Type.Literal('headers'),
  Type.Literal('image'),
  Type.Literal('debug'),
  Type.Literal('devel'),
])
export type PackageRole = Type.Static<typeof PackageRole>
export const PACKAGE_ROLES = ['headers', 'image', 'debug'] as const satisfies PackageRole[]

/** A further package with headers of the same kernel. */
export interface HeaderPart {
  name: string
  url: string
  /** bytes, if the index has them */
  size?: number
  checksum?: Checksum
  format: 'deb' | 'rpm'
}

/** A package of a source, and the kernel whose BTF it yields. */
export interface KernelPackage {
  /** id of the source */
  source: string
  kernel: { distro: string; version: string; arch: string; release: string }
  name: string
  version: string
  url: string
  /** bytes, if the index has them */
  size?: number
  checksum?: Checksum
  /** authenticates `checksum` */
  trust: Trust
  /** kind of archive */
  format: 'deb' | 'rpm'
  /** index of the source's rule that matched (default: 0); of two packages of one build, the lower rank is taken */
  rank?: number
  /** paths of OpenPGP keys, like `keyrings`; one of them must have signed the package's own header */
  keys?: readonly string[]
  /** paths of vmlinux, or of vmlinuz in a package with the kernel image */
  vmlinux: readonly string[]
  role: PackageRole
  /** with the role `devel`: the packages that have the rest of the headers */
  parts?: readonly HeaderPart[]
  /** larger packages of the same build, used in this order if this one has no BTF */
  fallbacks?: readonly KernelPackage[]
}
