import Type from 'typebox'
import { Failure } from './failure.ts'
import { Kernel } from './kernel.ts'

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })
const Time = Type.String({ format: 'date-time' })

/** How a package's bytes were authenticated. */
export const Authenticated = Type.Union([
  Type.Literal('index'), // all bytes, against a signed index
  Type.Literal('header'), // all bytes, against the signature in the package itself
  Type.Literal('prefix'), // read in part (`--early-stop`), so the digest was never compared
  Type.Literal('digest'), // all bytes, against an unsigned digest that came over TLS
  Type.Literal('none'), // a file or URL that the user gave
])

/** The package that a build's BTF comes from. */
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
  /** number of types, without void */
  types: Type.Integer({ minimum: 0 }),
  /** the kinds that occur, as UAPI names without `BTF_KIND_`, in the order of their numbers */
  kinds: Type.Array(Type.String()),
  byteOrder: Type.Union([Type.Literal('little'), Type.Literal('big')]),
  /** bytes */
  pointerSize: Type.Union([Type.Literal(4), Type.Literal(8)]),
  /** names of several structs or unions with different layouts; absent if there are none */
  ambiguous: Type.Optional(
    Type.Object({
      count: Type.Integer({ minimum: 1 }),
      /** the first of them */
      names: Type.Array(Type.String()),
    }),
  ),
})
export type BtfInfo = Type.Static<typeof BtfInfo>

/** The split BTF of a module. Byte order and pointer size are those of the kernel's BTF. */
export const ModuleInfo = Type.Pick(BtfInfo, ['sha256', 'size', 'types'])
export type ModuleInfo = Type.Static<typeof ModuleInfo>

/** Why a requested module has no BTF, or another requested part of a record is missing. */
export const ModuleFailure = Type.Pick(Failure, ['code', 'message'])
export type ModuleFailure = Type.Static<typeof ModuleFailure>

/** The names of a build's functions, in its image's symbol table; a text, addressed by the digest of its bytes. */
export const SymbolsInfo = Type.Object({
  sha256: Sha256,
  /** raw bytes */
  size: Type.Integer({ minimum: 0 }),
  /** number of names */
  functions: Type.Integer({ minimum: 0 }),
  /** number of them of which some calls are inlined; absent if that was not looked for */
  inlined: Type.Optional(Type.Integer({ minimum: 0 })),
})
export type SymbolsInfo = Type.Static<typeof SymbolsInfo>

/**
 * What BTF made from kernel headers has, and how it was made. Its types are those that the listed headers declare; a type
 * that is not there may be in the kernel all the same.
 */
export const HeadersInfo = Type.Object({
  /** the packages with headers besides the record's own, such as the common ones of all flavours */
  packages: Type.Array(Type.Object({ name: Type.String(), sha256: Sha256 })),
  /** hex SHA-256 of the list of headers that were tried */
  list: Sha256,
  /** number of headers that are in it */
  compiled: Type.Integer({ minimum: 0 }),
  /** number of headers that the kernel was built without, or that its version does not have */
  absent: Type.Integer({ minimum: 0 }),
  /** number of headers that do not compile */
  failed: Type.Integer({ minimum: 0 }),
  /** the first of them, with the compiler's message */
  failures: Type.Array(Type.Object({ header: Type.String(), reason: Type.String() })),
  /** number of named structs and unions */
  structs: Type.Integer({ minimum: 0 }),
  /** number of offsets and sizes that the kernel's build wrote down (`asm-offsets.h`), all of them equal */
  offsets: Type.Integer({ minimum: 0 }),
  /** hex SHA-256 of the configuration that was compiled, `autoconf.h` */
  configuration: Sha256,
  /** the checksums of exported symbols, `Module.symvers`: hex SHA-256 of the file, and number of symbols */
  symbols: Type.Optional(Type.Object({ sha256: Sha256, count: Type.Integer({ minimum: 0 }) })),
  compiler: Type.Object({
    name: Type.Union([Type.Literal('gcc'), Type.Literal('clang')]),
    version: Type.String(),
    /** as in names of cross compilers: `aarch64-linux-gnu` */
    target: Type.String(),
    /** the first line of the version of the compiler that built the kernel; empty if the headers do not tell */
    kernel: Type.String(),
  }),
})
export type HeadersInfo = Type.Static<typeof HeadersInfo>

/** The program that made the BTF. */
export const Tool = Type.Object({
  name: Type.Union([Type.Literal('pahole'), Type.Literal('none')]),
  version: Type.String(),
  options: Type.Array(Type.String()),
  /** everything that can change the resulting bytes; if it differs from a new run's, the package is due again */
  fingerprint: Type.String(),
})
export type Tool = Type.Static<typeof Tool>

/** A service or archive that a record's BTF was taken over from, and how far it vouches for it. */
export const TakenFrom = Type.Object({
  kind: Type.Union([
    Type.Literal('btfmill'),
    Type.Literal('btfhub'),
    Type.Literal('datadog'),
    Type.Literal('openanolis'),
  ]),
  /** without credentials */
  url: Type.String(),
  vouched: Type.Union([
    Type.Literal('signature'), // its signed catalog names the BTF's digest
    Type.Literal('digest'), // its unsigned catalog, or the header of its answer, names the digest
    Type.Literal('none'), // no digest was compared
  ]),
  /** the minisign public key of the signature */
  publicKey: Type.Optional(Type.String()),
  takenAt: Time,
})
export type TakenFrom = Type.Static<typeof TakenFrom>

/**
 * The JSON document that the catalog keeps for a build. It has the BTF or the failure. It has both if a run with a
 * newer fingerprint failed: the older BTF is then still served.
 */
export const BuildRecord = Type.Object({
  schema: Type.Literal(1),
  kernel: Kernel,
  package: Package,
  /** whether the kernel image has its own `.BTF` section */
  embedded: Type.Optional(Type.Boolean()),
  /** the kernel image has the digest of this BTF (`.BTF.link`): it is what the kernel's own build made */
  proven: Type.Optional(Type.Boolean()),
  /** `headers`: the BTF is partial; such records are in the store of partial BTF only (partial.ts) */
  origin: Type.Union([
    Type.Literal('pahole'),
    Type.Literal('embedded'),
    Type.Literal('import'),
    Type.Literal('headers'),
  ]),
  /** only with the origin `headers` */
  headers: Type.Optional(HeadersInfo),
  btf: Type.Optional(BtfInfo),
  /** split BTF of modules, by module name */
  modules: Type.Optional(Type.Record(Type.String(), ModuleInfo)),
  /** names of the requested modules; `*` stands for all */
  wantedModules: Type.Optional(Type.Array(Type.String())),
  /** requested modules that are not in `modules`, by name */
  moduleFailures: Type.Optional(Type.Record(Type.String(), ModuleFailure)),
  /** absent if the image has no symbol table, or the record is older than this property */
  symbols: Type.Optional(SymbolsInfo),
  /** why it is not known which functions are inlined somewhere, though that was asked for */
  inlinedFailure: Type.Optional(ModuleFailure),
  tool: Tool,
  failure: Type.Optional(Failure),
  /** absent for BTF that was made here or imported; the nearest service first, then where that one has it from */
  takenFrom: Type.Optional(Type.Array(TakenFrom)),
  createdAt: Time,
  updatedAt: Time,
})
export type BuildRecord = Type.Static<typeof BuildRecord>

/** The failed discovery of a source. There is no kernel yet whose record could have the failure. */
export const SourceFailure = Type.Object({
  schema: Type.Literal(1),
  source: Type.String(),
  /** the suite, repository or directory within the source */
  suite: Type.String(),
  url: Type.String(),
  failure: Failure,
})
export type SourceFailure = Type.Static<typeof SourceFailure>

/** An index of a source that was read. */
export const SourceRead = Type.Object({
  ...Type.Omit(SourceFailure, ['failure']).properties,
  readAt: Time,
})
export type SourceRead = Type.Static<typeof SourceRead>

/** How the last discovery of an index of a source ended. */
export const SourceResult = Type.Union([SourceFailure, SourceRead])
export type SourceResult = Type.Static<typeof SourceResult>
