import Type from 'typebox'
import { Failure } from './failure.ts'
import { Kernel } from './kernel.ts'

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })
const Time = Type.String({ format: 'date-time' })

/** How far the bytes of a package are vouched for. */
export const Authenticated = Type.Union([
  Type.Literal('index'), // whole, against a signed index
  Type.Literal('header'), // whole, against the signature in the package itself
  Type.Literal('prefix'), // `--early-stop`: read in part, so its digest was never compared
  Type.Literal('digest'), // whole, against a digest that came unsigned over TLS
  Type.Literal('none'), // a file given by its user
])

export const Package = Type.Object({
  name: Type.String(),
  version: Type.String(),
  url: Type.String(),
  sha256: Type.Optional(Sha256),
  /** bytes of the package file */
  size: Type.Optional(Type.Integer({ minimum: 0 })),
  authenticated: Authenticated,
})
export type Package = Type.Static<typeof Package>

/** The BTF of a build, addressed by the digest of its raw bytes. */
export const BtfInfo = Type.Object({
  sha256: Sha256,
  /** raw bytes */
  size: Type.Integer({ minimum: 0 }),
  /** without void */
  types: Type.Integer({ minimum: 0 }),
  /** the kinds used, by their UAPI names without `BTF_KIND_`, in order of their numbers */
  kinds: Type.Array(Type.String()),
  byteOrder: Type.Union([Type.Literal('little'), Type.Literal('big')]),
  /** bytes */
  pointerSize: Type.Union([Type.Literal(4), Type.Literal(8)]),
})
export type BtfInfo = Type.Static<typeof BtfInfo>

/** The split BTF of a module over its kernel's, whose byte order and pointers it shares. */
export const ModuleInfo = Type.Pick(BtfInfo, ['sha256', 'size', 'types'])
export type ModuleInfo = Type.Static<typeof ModuleInfo>

/** Why a module that was wanted has no BTF. */
export const ModuleFailure = Type.Pick(Failure, ['code', 'message'])
export type ModuleFailure = Type.Static<typeof ModuleFailure>

export const Tool = Type.Object({
  name: Type.Union([Type.Literal('pahole'), Type.Literal('none')]),
  version: Type.String(),
  options: Type.Array(Type.String()),
  /** what a new run would have to differ in to give other bytes; a changed one means the package is due again */
  fingerprint: Type.String(),
})
export type Tool = Type.Static<typeof Tool>

/**
 * The JSON document the catalog keeps for a build. It holds the BTF, or the failure, or (while a newer fingerprint
 * version fails) both: then the BTF of the older version is still served.
 */
export const BuildRecord = Type.Object({
  schema: Type.Literal(1),
  kernel: Kernel,
  package: Package,
  /** does the kernel carry `.BTF` itself */
  embedded: Type.Optional(Type.Boolean()),
  origin: Type.Union([Type.Literal('pahole'), Type.Literal('embedded'), Type.Literal('import')]),
  btf: Type.Optional(BtfInfo),
  /** split BTF of modules, by module name */
  modules: Type.Optional(Type.Record(Type.String(), ModuleInfo)),
  /** names of the modules that were wanted, `*` for all, and why some are not among `modules` */
  wantedModules: Type.Optional(Type.Array(Type.String())),
  moduleFailures: Type.Optional(Type.Record(Type.String(), ModuleFailure)),
  tool: Tool,
  failure: Type.Optional(Failure),
  createdAt: Time,
  updatedAt: Time,
})
export type BuildRecord = Type.Static<typeof BuildRecord>

/** A source that could not be discovered: there is no kernel to hang the failure on. */
export const SourceFailure = Type.Object({
  schema: Type.Literal(1),
  source: Type.String(),
  /** the suite, repository or directory within the source */
  suite: Type.String(),
  url: Type.String(),
  failure: Failure,
})
export type SourceFailure = Type.Static<typeof SourceFailure>
