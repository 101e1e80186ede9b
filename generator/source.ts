/*
 * Where a distribution keeps its kernels with debug info, as data: `sources.ts` has the table, users add rows and
 * override them. A source is tagged by the protocol of its index; what all have in common is said once.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { GeneratorError } from './error.ts'
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
  /** asked only where a run names it, or names its version: it is slow, or not for everybody */
  onRequest: Type.Optional(Type.Boolean()),
  access: Type.Optional(Access),
  /** the distribution's names of architectures by `uname -m` name */
  architectures: Type.Record(Type.String(), Type.String({ pattern: '^[a-z0-9_]+$' })),
  /** what packages with debug info are called, the better of two of one kernel first */
  packages: Type.Array(NamingRule, { minItems: 1 }),
  /** bytes that a package has at least, where smaller ones only depend on others */
  smallest: Type.Optional(Type.Integer({ minimum: 0 })),
  /** paths of vmlinux in a package, `{release}` for `uname -r`, whichever comes first in the archive */
  vmlinux: Type.Array(Type.String(), { minItems: 1 }),
  /** what packages with the kernel itself are called: `--embedded` takes BTF from there */
  images: Type.Optional(Type.Array(NamingRule, { minItems: 1 })),
  /** paths of vmlinuz in such a package, as `vmlinux` */
  vmlinuz: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
}

/** Where the OpenPGP keys of a distribution may lie, binary or armoured; those that are there count. */
const Keyrings = Type.Array(Path, { minItems: 1 })

/** Which architectures a repository has, by `uname -m` name, where that is not all of the source's. */
const Only = Type.Optional(Type.Array(Type.String(), { minItems: 1 }))

const Suite = Type.Object({
  /** a URL, or the last part of it: the repository is then where this machine's apt or `--mirror` has it */
  repository: Type.String({ pattern: '^([a-z0-9-]+|(https?|file)://.*|\\{mirror\\}.*)$' }),
  suite: Type.String({ pattern: '^[a-z0-9][a-z0-9./-]*$' }),
  only: Only,
})

export const AptSource = Type.Object({
  ...Common,
  protocol: Type.Literal('apt'),
  keyrings: Keyrings,
  /** it gets nothing new any more: signatures and suites that have expired since are good */
  frozen: Type.Optional(Type.Boolean()),
  components: Type.Array(Type.String({ pattern: '^[a-z-]+$' }), { minItems: 1 }),
  /** the suites of each VERSION_ID */
  versions: Type.Record(Type.String(), Type.Array(Suite, { minItems: 1 })),
})
export type AptSource = Type.Static<typeof AptSource>

export type Source = AptSource

const SCHEMAS = { apt: Compile(AptSource) } as const

/** Checks what claims to be a source. Errors: `bad_index`, with what is wrong. */
export function parseSource(value: unknown): Source {
  const protocol = (value as Partial<Source> | null | undefined)?.protocol
  const schema = protocol !== undefined && Object.hasOwn(SCHEMAS, protocol) && SCHEMAS[protocol]
  if (!schema) throw bad(`/protocol must be one of ${Object.keys(SCHEMAS).join(', ')}`)
  if (!schema.Check(value)) {
    const [first] = schema.Errors(value)
    throw bad(`${first?.instancePath} ${first?.message}`)
  }
  namingOf([...value.packages, ...(value.images ?? [])])
  return value
}

const bad = (why: string): GeneratorError =>
  new GeneratorError('bad_index', `a source is not as it should be: ${why}`)

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
export const Vouched = Type.Union([
  Type.Literal('index'),
  Type.Literal('digest'),
  Type.Literal('none'),
])
export type Vouched = Type.Static<typeof Vouched>

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
  vouched: Vouched
  /** what kind of archive it is */
  format: 'deb' | 'rpm'
  /** paths of OpenPGP keys as `keyrings`, of which one must have signed the package's own header */
  keys?: readonly string[]
  /** paths of vmlinux in it */
  vmlinux: readonly string[]
}
