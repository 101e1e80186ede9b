/*
 * Tasks that run in threads, because they take untrusted input or much time; `pool.ts` sets their limits. A task is a
 * function of plain bytes. It returns expected errors as values, since errors lose their class between threads.
 */
import { hash } from 'node:crypto'
import { constants as zlib, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { LRUCache } from 'lru-cache'
import {
  asksForFunctions,
  type BpfObject,
  type Btf,
  BtfError,
  type BtfErrorCode,
  type ByteOrder,
  type Check,
  checkObject,
  constantsOf,
  DeltaChainCache,
  type Dialect,
  describeKernelBtf,
  diffBtf,
  encodeDelta,
  FunctionList,
  isElf,
  type KernelBtf,
  type KernelConstant,
  kernelIdsIn,
  kindName,
  listType,
  mergeBtf,
  minimizeBtf,
  needsModules,
  openObject,
  parseBtf,
  printHeader,
  type Reason,
  readBtf,
  searchNames,
  type TypeListing,
  type TypeName,
  type TypeSource,
  TypeTrace,
  type TypeUsers,
  toDialect,
  usersOf,
  wrapInElf,
} from '../../bpf/index.ts'
import type { PackedBtf } from '../../storage/index.ts'
import { type JsonText, jsonOf } from '../json.ts'
import type { KernelFacts } from '../kernel/lookup.ts'

/** A summary of a valid BPF object. */
export interface ObjectSummary {
  byteOrder: ByteOrder
  programs: number
  relocations: number
  /** the types whose id in the kernel it asks for, as C */
  kernelIds: readonly string[]
  /** whether it asks for the version of the kernel */
  usesRelease: boolean
  /** whether it is attached to functions */
  usesFunctions: boolean
}

/** Why an object does not work on a kernel. */
export interface Misfit {
  /** index of the object in the task */
  object: number
  /** a code of `BtfError`, or `does_not_load` if libbpf or the verifier would refuse the object */
  code: BtfErrorCode | 'does_not_load'
  message: string
}

/** A task for a kernel whose answer others may share. The thread looks whether modules are needed. */
export interface TracedInput extends Omit<ObjectInput, 'modules'> {
  /** whether there is BTF of modules */
  hasModules: boolean
}

/** An answer, and the names by which types were read for it. */
export interface TracedAnswer<T> {
  /** undefined if it depends on the BTF of modules */
  value: T | undefined
  /** whether the objects need types that modules may have */
  needsModules: boolean
  /**
   * keys of names (`TypeTrace`): kernels that have the same types of these names have the same answer, and need modules
   * or not. Undefined if no other kernel has.
   */
  keys: readonly number[] | undefined
  /** whether kernels of another version may have another answer */
  usesVersion: boolean
}

/** The result of `fit`: a kernel's BTF for some objects. */
export interface Fitted {
  btf: Uint8Array
  /** objects that do not work on this kernel, ordered by index */
  misfits: readonly Misfit[]
}

/** A compressed blob of a store, not yet checked against its digest. */
export interface CompressedBtf {
  /** one zstd frame */
  frame: Uint8Array
  /** of the raw bytes, in hex */
  sha256: string
  /** of the raw bytes */
  size: number
}

/** Raw BTF, or BTF as a store has it: the thread decompresses and checks it. */
export type BtfInput = Uint8Array | CompressedBtf | PackedBtf

/** BPF objects, and the BTF of the kernel to apply them to. */
export interface ObjectInput {
  objects: readonly Uint8Array[]
  btf: BtfInput
  /** the split BTF of the kernel's modules */
  modules?: readonly BtfInput[]
  /** the kernel's functions, as `FunctionList` encodes them; only a check needs them */
  functions?: Uint8Array | undefined
  facts?: KernelFacts
  /** the form of the BTF that the task makes; default: as it is */
  dialect?: Dialect | undefined
}

/** Tells whether a task needs the BTF of modules; a check also looks for `symbols` in it. */
export interface ModuleQuery extends Omit<ObjectInput, 'modules'> {
  symbols: boolean
}

/** The types and functions with one name, and what uses the types. */
export interface TypesOfName {
  /** types first, then functions */
  listings: readonly TypeListing[]
  /** types that are not listed, since there are so many of the name */
  omitted: number
  users: TypeUsers
  /** whether a function with the name is one that BPF programs may call */
  isKfunc: boolean
}

/** The tasks, by name. A task that takes BTF as a store has it may also fail with `Damaged`. */
export interface Tasks {
  /** Opens objects. Errors: those of `openObject`. */
  open: (task: { objects: readonly Uint8Array[] }) => ObjectSummary[]
  /** Tells whether an object needs a type that the BTF lacks, and modules may have. Errors: those of `openObject`, `parseBtf`. */
  modulesNeeded: (task: ModuleQuery) => boolean
  /** A C header of what objects use. Errors: those of `openObject`, `parseBtf`, `mergeBtf` and `printHeader`. */
  header: (task: ObjectInput) => Uint8Array
  /** Minimizes BTF for all objects. Errors: those of `openObject`, `parseBtf`, `minimizeBtf` and `toDialect`. */
  minimize: (task: ObjectInput) => Uint8Array
  /**
   * Checks each object. Returns one JSON text for each: a `Check`, or `{ error: { code, message } }` with an error of
   * `checkObject`, or with `too_large` if the `Check` is too long. Errors: those of `openObject` and `parseBtf`.
   */
  check: (task: ObjectInput) => JsonText[]
  /**
   * Minimizes BTF for all objects, and reports the objects that do not work on this kernel. If such an object makes
   * `minimizeBtf` fail, the result is the whole BTF: the object then fails on it as it fails on the kernel. Errors:
   * those of `openObject`, `parseBtf`, `minimizeBtf` and `toDialect`.
   */
  fit: (task: ObjectInput) => Fitted
  /** `minimize`, `check` and `fit` of vmlinux alone, with what shows which other kernels have the same answer. */
  tracedMinimize: (task: TracedInput) => TracedAnswer<Uint8Array>
  tracedCheck: (task: TracedInput) => TracedAnswer<JsonText[]>
  tracedFit: (task: TracedInput) => TracedAnswer<Fitted>
  /**
   * The constants of a list, each by the first of its paths that the BTF has. Errors: those of `parseBtf` and
   * `constantsOf`.
   */
  constants: (task: { btf: BtfInput; entries: readonly (readonly string[])[] }) => KernelConstant[]
  /**
   * Merges the split BTF of modules into the BTF, then replaces the kinds that a dialect lacks, then wraps it; or prints it as
   * C. Errors: those of `parseBtf`, `mergeBtf`, `toDialect` and `printHeader`.
   */
  derive: (task: {
    btf: Uint8Array
    modules: readonly Uint8Array[]
    dialect?: Dialect
    container?: 'elf'
    /** prints a C header in place of BTF */
    header?: true
  }) => Uint8Array
  /**
   * Unpacks a kernel's BTF that another service has sent, raw or in an ELF file, and describes it. Errors: those of
   * `readBtf` and `describeKernelBtf`, `Damaged`.
   */
  inspect: (task: {
    bytes: Uint8Array
    encoding: 'identity' | 'zstd'
    /** `uname -m` */
    arch: string
  }) => { raw: Uint8Array; btf: KernelBtf & { sha256: string } }
  /**
   * Makes the delta from one BTF to another, as a zstd frame. Errors: none but `Damaged`.
   */
  delta: (task: { child: BtfInput; parent: BtfInput }) => Uint8Array
  /** Rebuilds BTF that a pack has. Errors: none but `Damaged`. */
  unpack: (task: { btf: PackedBtf }) => Uint8Array
  /** `TypesOfName` of a name as JSON; undefined if the BTF has none. Errors: those of `parseBtf` and `listType`. */
  describe: (task: { btf: BtfInput; name: string }) => JsonText | undefined
  /** A list of `TypeName` as JSON. Errors: those of `parseBtf`. */
  search: (task: { btf: BtfInput; text: string; limit: number }) => JsonText
  /** A `BtfDiff` as JSON. Errors: those of `parseBtf` and `diffBtf`; `too_large` if it is too long. */
  diff: (task: { before: BtfInput; after: BtfInput }) => JsonText
}

/** Chains that a thread keeps for the next kernels of their series. */
const CHAINS = 4

/** The result of a task; `damaged` is the message of a blob that differs from its digest or size. */
export type WorkerAnswer<T> =
  | { value: T }
  | { error: { code: BtfErrorCode; message: string } }
  | { damaged: string }

/** A blob or a pack that does not decompress, or BTF that differs from its digest or size. */
class Damaged extends Error {}

function rawOf(source: BtfInput): Uint8Array {
  if (source instanceof Uint8Array) return source
  return 'frame' in source ? decompress(source) : rebuild(source)
}

/** The buffers that a source takes apart from the raw bytes. */
const buffersOf = (source: CompressedBtf | PackedBtf): Uint8Array[] =>
  'frame' in source ? [source.frame] : source.steps.map(({ frame }) => frame)

/**
 * Calls `work` with the raw bytes. Frees decompressed bytes and their frame at once: left to the garbage collector,
 * they trigger a collection every ten kernels, and the next kernel needs new memory from the system.
 */
function withRaw<T>(source: BtfInput, work: (raw: Uint8Array) => T): T {
  const raw = rawOf(source)
  try {
    return work(raw)
  } finally {
    if (!(source instanceof Uint8Array))
      for (const bytes of [raw, ...buffersOf(source)]) free(bytes)
  }
}

/** Buffers up to this many bytes are not freed: they may be slices of Node's shared pool. */
const MAX_POOLED = 1024 ** 2

function free({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength > MAX_POOLED) buffer.transfer(0)
}

/**
 * Decompresses and checks a blob. It does not use storage/ for that: a thread that loads all of storage/ takes four
 * times as long to start. Errors: `Damaged`.
 */
function decompress({ frame, sha256, size }: CompressedBtf): Buffer {
  let raw: Buffer
  try {
    raw = zstdDecompressSync(frame, { maxOutputLength: size, chunkSize: size + SPARE })
  } catch (error) {
    throw new Damaged(`blob ${sha256} does not decompress: ${(error as Error).message}`)
  }
  if (raw.length === size && hash('sha256', raw) === sha256) return raw
  throw new Damaged(`blob ${sha256} does not match its SHA-256 digest or its size of ${size} bytes`)
}

/** The chains of the kernels that this thread read last. */
const chains = new DeltaChainCache(CHAINS)

/** Applies the steps of a pack. Errors: `Damaged`. */
function rebuild({ steps, sha256, size }: PackedBtf): Uint8Array {
  const { chain, applied } = chains.take(
    steps.map(({ sha256: name, isShared }) => ({ name, isShared })),
  )
  let raw: Uint8Array
  try {
    for (const { frame, unpacked } of steps.slice(applied))
      chain.apply(unpackFrame(frame, unpacked))
    raw = chain.bytes()
  } catch (error) {
    throw new Damaged(`BTF ${sha256} in a pack: ${(error as Error).message}`)
  }
  if (raw.length !== size || hash('sha256', raw) !== sha256)
    throw new Damaged(`BTF ${sha256} in a pack does not match its SHA-256 digest or its size`)
  chains.keep(sha256, chain)
  return raw
}

/** Decompresses a frame of a pack. Errors: those of zlib; `Error` for another size. */
function unpackFrame(frame: Uint8Array, size: number): Buffer {
  const delta = zstdDecompressSync(frame, {
    maxOutputLength: Math.max(size, 1),
    chunkSize: Math.min(size + SPARE, MAX_CHUNK),
    params: { [zlib.ZSTD_d_windowLogMax]: 26 },
  })
  if (delta.length === size) return delta
  throw new Error(`a member has ${delta.length} bytes decompressed: expected ${size}`)
}

/** The largest chunk of output that is allocated at once, in bytes. */
const MAX_CHUNK = 1024 * 1024

/** Bytes to spare in the output chunk: zlib allocates a second chunk when the first is exactly full. */
const SPARE = 64

/** Bytes of BTF that a thread keeps open, for another object or version: four kernels. `service/memory.ts` counts on it. */
const OPENED = 24 * 1024 * 1024
const openedBtf = new LRUCache<string, { raw: Uint8Array; btf: Btf }>({
  maxSize: OPENED,
  sizeCalculation: ({ raw }) => raw.length,
  dispose: ({ raw }) => free(raw),
})

/** Calls `work` with BTF of a store that is opened; keeps it open. */
function withOpened<T>(source: BtfInput, work: (btf: Btf, raw: Uint8Array) => T): T {
  if (source instanceof Uint8Array) return work(parseBtf(source), source)
  const known = openedBtf.get(source.sha256)
  if (known) {
    for (const bytes of buffersOf(source)) free(bytes)
    return work(known.btf, known.raw)
  }
  const raw = rawOf(source)
  for (const bytes of buffersOf(source)) free(bytes)
  const opened = { raw, btf: parseBtf(raw) }
  openedBtf.set(source.sha256, opened)
  try {
    return work(opened.btf, raw)
  } finally {
    if (!openedBtf.has(source.sha256)) free(raw)
  }
}

/** The objects that this thread opened last: all tasks of a request have the same objects. */
let last: { key: string; objects: BpfObject[] } | undefined

function opened(files: readonly Uint8Array[]): BpfObject[] {
  const key = files.map((file) => hash('sha256', file)).join()
  if (last?.key !== key) last = { key, objects: files.map((file, n) => openNth(file, n)) }
  return last.objects
}

function openNth(file: Uint8Array, n: number): BpfObject {
  try {
    return openObject(file)
  } catch (error) {
    if (!(error instanceof BtfError)) throw error
    throw new BtfError(error.code, `object ${n + 1}: ${error.message}`)
  }
}

const TASKS: Tasks = {
  open: ({ objects }) =>
    opened(objects).map((object) => {
      const { byteOrder, programs, ext } = object
      return {
        byteOrder,
        programs: programs.length,
        relocations: ext.relocations.length,
        kernelIds: kernelIdsIn(object),
        usesRelease: object.externs.some(({ name }) => name === 'LINUX_KERNEL_VERSION'),
        usesFunctions: asksForFunctions(object),
      }
    }),
  modulesNeeded: ({ objects, btf, symbols }) => {
    const kernel = parseBtf(rawOf(btf))
    return opened(objects).some((object) => needsModules(object, kernel, { symbols }))
  },
  header: (task) =>
    withKernel(task, (kernel, modules) => {
      const whole = modules.length > 0 ? parseBtf(mergeBtf(kernel, modules)) : kernel
      return Buffer.from([...printHeader(whole, { objects: opened(task.objects) })].join(''))
    }),
  minimize: (task) => withKernel(task, (kernel, modules) => minimized(kernel, task, modules)),
  check: (task) => withKernel(task, (kernel, modules) => checked(kernel, task, modules).lines),
  fit: (task) =>
    withKernel(task, (kernel, modules, raw) => fitted(kernel, task, modules, raw).fitted),
  tracedMinimize: (task) =>
    traced(task, false, (types) => ({
      value: minimized(types, task),
      isShared: true,
      usesVersion: false,
    })),
  tracedCheck: (task) =>
    traced(task, true, (types) => {
      const { lines, ...sharing } = checked(types, task)
      return { value: lines, ...sharing }
    }),
  tracedFit: (task) =>
    traced(task, true, (types, raw) => {
      const { fitted: value, ...sharing } = fitted(types, task, [], raw)
      return { value, ...sharing }
    }),
  constants: ({ btf, entries }) =>
    withRaw(btf, (raw) => {
      const values = constantsOf(parseBtf(raw), entries.flat())
      let at = 0
      return entries.map(({ length }) => {
        const own = values.slice(at, at + length)
        at += length
        const isFound = ({ kind }: KernelConstant) => kind !== 'missing' && kind !== 'indirect'
        return own.find(isFound) ?? own.find(({ kind }) => kind === 'indirect') ?? own[0]!
      })
    }),
  derive: ({ btf, modules, dialect, container, header }) => {
    const base = parseBtf(btf)
    const opened = modules.map((bytes) => parseBtf(bytes, { base }))
    const merged = opened.length > 0 ? mergeBtf(base, opened) : btf
    if (header) return Buffer.from([...printHeader(parseBtf(merged))].join(''))
    const raw = inDialect(merged, dialect)
    return container ? wrapInElf(raw, base) : raw
  },
  inspect: ({ bytes, encoding, arch }) => {
    const file = encoding === 'zstd' ? decompressSent(bytes) : bytes
    const raw = isElf(file) ? new Uint8Array(readBtf(file).bytes) : file
    return { raw, btf: { ...describeKernelBtf(raw, arch), sha256: hash('sha256', raw) } }
  },
  delta: ({ child, parent }) =>
    withRaw(child, (to) => withRaw(parent, (from) => compressDelta(encodeDelta(to, from)))),
  unpack: ({ btf }) => rebuild(btf),
  describe: ({ btf, name }) =>
    withRaw(btf, (raw) => {
      const found = describeName(parseBtf(raw), name)
      return found && jsonOf(found)
    }),
  search: ({ btf, text, limit }) =>
    withRaw(btf, (raw) => jsonOf(searchNames(parseBtf(raw), text, limit) satisfies TypeName[])),
  diff: ({ before, after }) =>
    withRaw(before, (old) =>
      withRaw(after, (now) => {
        const json = jsonOf(diffBtf(parseBtf(old), parseBtf(now)))
        if (json.length > MAX_DIFF)
          throw new BtfError('too_large', `the diff has more than ${MAX_DIFF} bytes of JSON`)
        return json
      }),
    ),
}

/** Calls `work` with the BTF of a kernel and its modules. */
function withKernel<T>(
  { btf, modules = [] }: ObjectInput,
  work: (kernel: Btf, modules: readonly Btf[], raw: Uint8Array) => T,
): T {
  return withRaw(btf, (raw) => {
    const kernel = parseBtf(raw)
    return work(
      kernel,
      modules.map((module) => parseBtf(rawOf(module), { base: kernel })),
      raw,
    )
  })
}

/** Which kernels may share an answer. */
interface AnswerScope {
  /** false if the answer may have the number of a type in it */
  isShared: boolean
  /** whether it depends on the kernel's version */
  usesVersion: boolean
}

/**
 * Calls `work` with types that remember how they are read. Its answer is shared if it says so: a number of a type must
 * not be part of it.
 */
function traced<T>(
  { objects, btf, hasModules, facts }: TracedInput,
  symbols: boolean,
  work: (types: TypeSource, raw: Uint8Array) => { value: T } & AnswerScope,
): TracedAnswer<T> {
  return withOpened(btf, (kernel, raw) => {
    const trace = facts?.partial ? undefined : new TypeTrace(kernel) // of partial BTF all types are read
    const types = trace ?? kernel
    const needs = opened(objects).some((object) => needsModules(object, types, { symbols }))
    if (needs && hasModules)
      return { value: undefined, needsModules: true, keys: trace?.keys(), usesVersion: false }
    const { value, isShared, usesVersion } = work(types, raw)
    return { value, needsModules: needs, keys: isShared ? trace?.keys() : undefined, usesVersion }
  })
}

type MinimizeTask = Pick<ObjectInput, 'objects' | 'dialect'>

const minimized = (
  kernel: TypeSource,
  { objects, dialect }: MinimizeTask,
  modules: readonly Btf[] = [],
): Uint8Array => inDialect(minimizeBtf(kernel, opened(objects), modules), dialect)

type CheckTask = Pick<ObjectInput, 'objects' | 'functions' | 'facts'>

/** Checks the objects. The answer is shared if no number of a type is in it. */
function checked(
  kernel: TypeSource,
  { objects, functions: names, facts }: CheckTask,
  modules: readonly Btf[] = [],
): { lines: JsonText[] } & AnswerScope {
  const functions = names && FunctionList.decode(names)
  let [isShared, usesVersion] = [true, false]
  const onVersion = () => {
    usesVersion = true
  }
  const options = { ...facts, modules, onVersion, ...(functions && { functions }) }
  const lines = opened(objects).map((object) => {
    try {
      const check = checkObject(object, kernel, options)
      isShared &&= !isRefused(check) && !asksForIds(check)
      return boundedJson(check)
    } catch (error) {
      if (!(error instanceof BtfError)) throw error
      isShared = false
      return jsonOf({ error: { code: error.code, message: error.message } })
    }
  })
  return { lines, isShared, usesVersion }
}

/** Whether a relocation has failed in a way whose message may have the number of a type. */
const isRefused = ({ programs }: Check): boolean =>
  programs.some(({ relocations }) => relocations.some(({ outcome }) => outcome.is === 'fatal'))

/** Whether an outcome is the number of a type. */
const asksForIds = ({ programs }: Check): boolean =>
  programs.some(({ relocations }) => relocations.some(({ kind }) => kind === 'target_type_id'))

/** Fits BTF to the objects. `raw` is the whole BTF, for kernels on which they cannot be minimized. */
function fitted(
  kernel: TypeSource,
  task: MinimizeTask & CheckTask,
  modules: readonly Btf[],
  raw: Uint8Array,
): { fitted: Fitted } & AnswerScope {
  const all = opened(task.objects)
  let [isShared, usesVersion] = [true, false]
  const onVersion = () => {
    usesVersion = true
  }
  const options = { ...task.facts, modules, onVersion }
  const misfits = all.flatMap((object, n) => {
    try {
      const check = checkObject(object, kernel, options)
      isShared &&= !isRefused(check)
      const misfit = misfitIn(check)
      return misfit ? [{ object: n, ...misfit }] : []
    } catch (error) {
      if (!(error instanceof BtfError)) throw error
      isShared = false
      return [{ object: n, code: error.code, message: error.message }]
    }
  })
  let btf: Uint8Array
  try {
    btf = minimizeBtf(kernel, all, modules)
  } catch (error) {
    if (!(error instanceof BtfError) || misfits.length === 0) throw error
    btf = Uint8Array.from(raw) // the caller frees it
    isShared = false
  }
  return { fitted: { btf: inDialect(btf, task.dialect), misfits }, isShared, usesVersion }
}

/** The level for deltas of some kilobytes, and for those of megabytes, which are hardly of use. */
const DELTA_LEVELS = { small: 19, large: 6 }
const LARGE_DELTA = 1024 * 1024

function compressDelta(delta: Uint8Array): Buffer {
  const level = delta.length > LARGE_DELTA ? DELTA_LEVELS.large : DELTA_LEVELS.small
  return zstdCompressSync(delta, { params: { [zlib.ZSTD_c_compressionLevel]: level } })
}

/** The largest BTF that is unpacked for others, in bytes, and log2 of the largest window of its frame. */
const MAX_SENT_SIZE = 64 * 1024 * 1024
const MAX_SENT_WINDOW = 26

function decompressSent(frame: Uint8Array): Buffer {
  const params = { [zlib.ZSTD_d_windowLogMax]: MAX_SENT_WINDOW }
  try {
    return zstdDecompressSync(frame, { params, maxOutputLength: MAX_SENT_SIZE })
  } catch (error) {
    throw new Damaged(`the BTF does not decompress: ${(error as Error).message}`)
  }
}

/** Types of one name that are listed, and users of each sort. */
const MAX_NAMED = 8
const MAX_USERS = 60

/** The maximum number of bytes of a diff in JSON; two kernels four years apart need 2 MB. */
const MAX_DIFF = 16 * 1024 * 1024

function describeName(btf: Btf, name: string): TypesOfName | undefined {
  const [types, functions]: [number[], number[]] = [[], []]
  const forwards: number[] = []
  for (const id of idsNamed(btf, name)) {
    const kind = kindName(btf.kind(id))
    if (kind === 'FUNC') functions.push(id)
    else if (kind === 'FWD') forwards.push(id)
    else if (LISTED.has(kind)) types.push(id)
  }
  const all = [...(types.length > 0 ? types : forwards), ...functions]
  if (all.length === 0) return undefined
  return {
    listings: all.slice(0, MAX_NAMED).map((id) => listType(btf, id)),
    omitted: Math.max(all.length - MAX_NAMED, 0),
    users: usersOf(btf, new Set([...types, ...forwards]), MAX_USERS),
    isKfunc: functions.length > 0 && isKfunc(btf, functions[0]!),
  }
}

const LISTED = new Set(['STRUCT', 'UNION', 'ENUM', 'ENUM64', 'TYPEDEF'])

function* idsNamed(btf: Btf, name: string): Generator<number> {
  const first = btf.find(name)
  if (first === undefined) return
  const wanted = new TextEncoder().encode(name)
  for (let id = first; id < btf.endId; id++) if (btf.stringIs(btf.word(id, 0), wanted)) yield id
}

function isKfunc(btf: Btf, func: number): boolean {
  for (let id = btf.startId; id < btf.endId; id++)
    if (
      kindName(btf.kind(id)) === 'DECL_TAG' &&
      btf.sizeOrType(id) === func &&
      btf.name(id) === 'bpf_kfunc'
    )
      return true
  return false
}

const inDialect = (btf: Uint8Array, dialect: Dialect | undefined): Uint8Array =>
  dialect ? toDialect(parseBtf(btf), dialect) : btf

/** The maximum number of bytes of a `Check` in JSON; the objects of large agents need some hundred thousand. */
export const MAX_JSON = 4 * 1024 * 1024

function boundedJson({ programs, reasons, ...verdicts }: Check): JsonText {
  let left = MAX_JSON
  const bounded = (value: unknown): JsonText => {
    const json = jsonOf(value)
    left -= Buffer.byteLength(json)
    if (left < 0)
      throw new BtfError('too_large', `the check has more than ${MAX_JSON} bytes of JSON`)
    return json
  }
  const parts = programs.map(({ relocations, reasons: own, ...program }) => {
    const lists = `"reasons":[${own.map(bounded)}],"relocations":[${relocations.map(bounded)}]`
    return `${jsonOf(program).slice(0, -1)},${lists}}`
  })
  const start = jsonOf(verdicts).slice(0, -1)
  return `${start},"reasons":[${reasons.map(bounded)}],"programs":[${parts.join()}]}` as JsonText
}

/** Why libbpf or the verifier would refuse an object. */
function misfitIn({ loads, reasons, programs }: Check): Omit<Misfit, 'object'> | undefined {
  if (loads !== 'no') return undefined
  const named = programs.flatMap((program) =>
    program.reasons.map((reason) => ({ reason, where: `${program.name}: ` })),
  )
  const all = [...reasons.map((reason) => ({ reason, where: '' })), ...named]
  const { reason, where } = all.find(({ reason }) => isFatal(reason))!
  return { code: 'does_not_load', message: `${where}${reason.message}` }
}

const isFatal = ({ stage, verdict }: Reason): boolean => stage === 'load' && verdict === 'no'

/** Wraps a task so that it returns expected errors as values. */
function withErrors<K extends keyof Tasks>(
  name: K,
): (task: Parameters<Tasks[K]>[0]) => WorkerAnswer<ReturnType<Tasks[K]>> {
  const work = TASKS[name] as (task: Parameters<Tasks[K]>[0]) => ReturnType<Tasks[K]>
  return (task) => {
    try {
      return { value: work(task) }
    } catch (error) {
      if (error instanceof BtfError) return { error: { code: error.code, message: error.message } }
      if (error instanceof Damaged) return { damaged: error.message }
      throw error
    }
  }
}

// the pool calls the tasks by these names
export const open = withErrors('open')
export const modulesNeeded = withErrors('modulesNeeded')
export const header = withErrors('header')
export const minimize = withErrors('minimize')
export const check = withErrors('check')
export const fit = withErrors('fit')
export const tracedMinimize = withErrors('tracedMinimize')
export const tracedCheck = withErrors('tracedCheck')
export const tracedFit = withErrors('tracedFit')
export const constants = withErrors('constants')
export const derive = withErrors('derive')
export const inspect = withErrors('inspect')
export const delta = withErrors('delta')
export const unpack = withErrors('unpack')
export const describe = withErrors('describe')
export const search = withErrors('search')
export const diff = withErrors('diff')
