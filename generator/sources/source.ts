/*
 * Where a distribution keeps its kernels with debug info, as data: `sources.ts` has the table, users add rows and
 * override them. A source is tagged by the protocol of its index; what all have in common is said once.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { GeneratorError } from '../error.ts'
import { NamingRule, namingOf } from './naming.ts'

const Id = Type.String({ pattern: '^[a-z0-9-]{1,64}$' })
const Path = Type.String({ pattern: '^/' })

/** Files that open a repository which is not for everybody; what they hold never leaves the machine they are on. */
export const Access = Type.Object({
  /** a client certificate and its key, PEM */
  certificate: Type.Optional(Path),
  key: Type.Optional(Path),
  /** the authority that the server's certificate is of, PEM */
  authority: Type.Optional(Path),
  /** lines `username=…` and `password=…`, as zypper keeps them */
  credentials: Type.Optional(Path),
})
export type Access = Type.Static<typeof Access>

const Common = {
  id: Id,
  /** os-release ID */
  distro: Type.String({ minLength: 1 }),
  /** `{mirror}` in the URLs of repositories, without a slash at its end */
  mirror: Type.Optional(Type.String({ pattern: '^(https?|file)://' })),
  /** asked only where a run names it, or a version that no other has: it is slow, or not for everybody */
  optIn: Type.Optional(Type.Boolean()),
  access: Type.Optional(Access),
  /** the distribution's names of architectures by `uname -m` name */
  architectures: Type.Record(Type.String(), Type.String({ pattern: '^[a-z0-9_]+$' })),
  /** what packages with debug info are called, the better of two of one kernel first */
  packages: Type.Array(NamingRule, { minItems: 1 }),
  /** bytes that a package has at least, where smaller ones only depend on others */
  minSize: Type.Optional(Type.Integer({ minimum: 0 })),
  /** paths of vmlinux in a package, `{release}` for `uname -r`, whichever comes first in the archive */
  vmlinux: Type.Array(Type.String(), { minItems: 1 }),
  /** what packages with the kernel itself are called: `--embedded` takes BTF from there */
  images: Type.Optional(Type.Array(NamingRule, { minItems: 1 })),
  /** paths of vmlinuz in such a package, as `vmlinux` */
  vmlinuz: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
}

/** Where the OpenPGP keys of a distribution may lie, binary or armoured; those that are there count. */
const Keyrings = Type.Array(Path, { minItems: 1 })

const Repository = {
  /** its architectures, by `uname -m` name, where they are not all of the source's */
  only: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
  /** it has packages with kernels, but none with debug info: it is asked for `--embedded` alone */
  images: Type.Optional(Type.Boolean()),
}

/** A URL, with `{mirror}`, `{version}`, and `{arch}` in the distribution's words. */
const Url = Type.String({ pattern: '^(https?://|file://|\\{mirror\\}).*$' })

/** What a repository is called among those of its source. */
const Name = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' })

const Suite = Type.Object({
  ...Repository,
  /** or the last part of the URL: the repository is then where this machine's apt or `--mirror` has it */
  url: Type.Union([Url, Type.String({ pattern: '^[a-z0-9-]+$' })]),
  suite: Type.String({ pattern: '^[a-z0-9][a-z0-9./-]*$' }),
})

export const AptSource = Type.Object({
  ...Common,
  protocol: Type.Literal('apt'),
  keyrings: Keyrings,
  /** it gets nothing new any more: signatures and suites that have expired since are good */
  endOfLife: Type.Optional(Type.Boolean()),
  components: Type.Array(Type.String({ pattern: '^[a-z/-]+$' }), { minItems: 1 }),
  versions: versions(Suite),
})
export type AptSource = Type.Static<typeof AptSource>

const RpmMdSource = Type.Object({
  ...Common,
  protocol: Type.Literal('rpm-md'),
  /** of repomd.xml and of packages; without any, neither is looked at */
  keyrings: Type.Optional(Keyrings),
  /** repomd.xml is always signed: without its signature it is refused */
  signed: Type.Optional(Type.Boolean()),
  versions: versions(
    Type.Object({
      ...Repository,
      name: Name,
      url: Url,
      /** the URL is that of a list of mirrors */
      list: Type.Optional(Type.Boolean()),
    }),
  ),
})
export type RpmMdSource = Type.Static<typeof RpmMdSource>

const ListingSource = Type.Object({
  ...Common,
  protocol: Type.Literal('listing'),
  /** of packages */
  keyrings: Type.Optional(Keyrings),
  versions: versions(Type.Object({ ...Repository, name: Name, url: Url })),
})
export type ListingSource = Type.Static<typeof ListingSource>

const LaunchpadSource = Type.Object({
  ...Common,
  protocol: Type.Literal('launchpad'),
  /** hosts, but for the API's own, that files may be on */
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
      /** the source package that kernels are built from, and a regular expression of those of its versions */
      package: Name,
      matching: Type.String({ minLength: 1 }),
    }),
  ),
})
export type SnapshotSource = Type.Static<typeof SnapshotSource>

/** What users give by themselves: there is no index of it, only what its files may be called. */
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

/** The repositories of each VERSION_ID, in the words of the catalog (`namesOf`). */
function versions<R extends Type.TSchema>(repository: R) {
  return Type.Record(Type.String(), Type.Array(repository, { minItems: 1 }))
}

/** Checks what claims to be a source. Errors: `invalid_index`, with what is wrong. */
export function parseSource(value: unknown): Source {
  const protocol = (value as Partial<Source> | null | undefined)?.protocol
  const schema = protocol !== undefined && Object.hasOwn(SCHEMAS, protocol) && SCHEMAS[protocol]
  if (!schema) throw bad(`/protocol must be one of ${Object.keys(SCHEMAS).join(', ')}`)
  if (!schema.Check(value)) {
    const [first] = schema.Errors(value)
    throw bad(`${first?.instancePath} ${first?.message}`)
  }
  const source = value as Source
  namingOf([...source.packages, ...(source.images ?? [])])
  if (!source.images !== !source.vmlinuz) throw bad('/images and /vmlinuz belong together')
  return source
}

/** Where the keys of a version of a distribution may lie. */
export function keyringsOf(source: Source, version: string): string[] {
  const keyrings = ('keyrings' in source && source.keyrings) || []
  return keyrings.map((path) => path.replaceAll('{version}', () => version))
}

/** What a repository is called among those of its version. */
export function nameOfRepository(repository: Source['versions'][string][number]): string {
  if ('suite' in repository) return repository.suite
  if ('series' in repository) return repository.series
  if ('package' in repository) return repository.package
  return 'name' in repository ? repository.name : ''
}

const bad = (why: string): GeneratorError =>
  new GeneratorError('invalid_index', `a source is not as it should be: ${why}`)

/** A digest that an index has of a file. */
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

/** How far what an index says is vouched for: by its signature, by TLS (or the user, for a folder), or not at all. */
export const Trust = Type.Union([
  Type.Literal('index'),
  Type.Literal('digest'),
  Type.Literal('none'),
])
export type Trust = Type.Static<typeof Trust>

/** A package that a source offers, with the kernel whose BTF it can give. */
export interface KernelPackage {
  /** its id */
  source: string
  kernel: { distro: string; version: string; arch: string; release: string }
  name: string
  version: string
  url: string
  /** bytes, and digest, where the index has them */
  size?: number
  checksum?: Checksum
  /** by whom `checksum` is */
  trust: Trust
  /** what kind of archive it is */
  format: 'deb' | 'rpm'
  /** which rule of the source it goes by, else the first: of two packages of one build that of the earlier is taken */
  rank?: number
  /** paths of OpenPGP keys as `keyrings`, of which one must have signed the package's own header */
  keys?: readonly string[]
  /** paths of vmlinux in it */
  vmlinux: readonly string[]
  /** it has the kernel itself, not its debug info: those are paths of vmlinuz */
  image?: boolean
  /** the one with debug info, for a kernel without BTF of its own */
  fallback?: KernelPackage
}
