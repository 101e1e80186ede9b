/*
 * What is done with the objects of strangers, and what takes long, in a thread of its own (`pool.ts` says with which limits). A task is a
 * call with plain bytes; what is wrong with these is an answer, since errors lose their class between threads.
 */
import { hash } from 'node:crypto'
import { zstdDecompressSync } from 'node:zlib'
import {
  type BpfObject,
  type Btf,
  BtfError,
  type BtfErrorCode,
  type ByteOrder,
  type Check,
  checkObject,
  type Dialect,
  mergeBtf,
  minimizeBtf,
  openObject,
  parseBtf,
  toDialect,
} from '../../bpf/index.ts'
import { type JsonText, jsonOf } from '../json.ts'

/** What an object turned out to be. */
export interface ObjectSummary {
  byteOrder: ByteOrder
  programs: number
  relocations: number
}

/** Why an object does not work on a kernel. */
export interface Misfit {
  /** its place among the objects of the task */
  object: number
  /** a code of `BtfError`; `does_not_load` where libbpf or the verifier would refuse it */
  code: BtfErrorCode | 'does_not_load'
  message: string
}

/** A kernel's BTF for some objects: see `fit`. */
export interface Fitted {
  btf: Uint8Array
  /** objects that do not work on this kernel, in their order */
  misfits: readonly Misfit[]
}

/** A blob as a store has it. */
export interface Stored {
  /** zstd */
  frame: Uint8Array
  /** of the raw bytes: digest, and how many there are */
  sha256: string
  size: number
}

/** BTF: raw, or as a store has it, so that all work on it is done in the thread. */
export type BtfInput = Uint8Array | Stored

/** Some objects, and a kernel's BTF that they are worked on for. */
export interface ObjectInput {
  objects: readonly Uint8Array[]
  btf: BtfInput
}

/** What each task takes and gives; objects and BTF are bytes. Those that take a `Stored` may find it `Damaged`. */
export interface Tasks {
  /** Opens objects. Errors: those of `openObject`. */
  open: (task: { objects: readonly Uint8Array[] }) => ObjectSummary[]
  /** Minimises for all. Errors: those of `openObject`, `parseBtf` and `minimizeBtf`. */
  minimize: (task: ObjectInput) => Uint8Array
  /**
   * Checks each object, and gives that as JSON: a `Check`, or `{ error: { code, message } }` with an error of
   * `checkObject`, or `too_large` where there is too much to say. Errors: those of `openObject` and `parseBtf`.
   */
  check: (task: ObjectInput) => JsonText[]
  /**
   * Minimises for all objects, and says which of them do not work on this kernel. Where one cannot be minimised for, it
   * is the BTF as it is: against that the object meets its refusal as against the kernel. Errors: those of `openObject`
   * and `parseBtf`.
   */
  fit: (task: ObjectInput) => Fitted
  /**
   * Merges the split BTF of modules in, then replaces what a dialect lacks. Errors: those of `parseBtf`, `mergeBtf` and
   * `toDialect`.
   */
  derive: (task: {
    btf: Uint8Array
    modules: readonly Uint8Array[]
    dialect?: Dialect
  }) => Uint8Array
}

/** What a task came to; `damaged` says of a blob why it is not what its record says. */
export type WorkerAnswer<T> =
  | { value: T }
  | { error: { code: BtfErrorCode; message: string } }
  | { damaged: string }

class Damaged extends Error {}

function rawOf(source: BtfInput): Uint8Array {
  return 'frame' in source ? decode(source) : source
}

/**
 * Works on the raw bytes, which are gone afterwards, with the frame: left to the collector, they would have it run for
 * every tenth kernel, and the next kernel's would lie in memory that the system has to find.
 */
function withRaw<T>(source: BtfInput, work: (raw: Uint8Array) => T): T {
  const raw = rawOf(source)
  try {
    return work(raw)
  } finally {
    if ('frame' in source) for (const bytes of [raw, source.frame]) free(bytes)
  }
}

/** Bytes of what may be a piece of Node's. */
const PIECE = 1024 ** 2

function free({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength > PIECE) buffer.transfer(0)
}

/** The raw bytes. A thread that loads all of storage/ for this starts four times as slowly. */
function decode({ frame, sha256, size }: Stored): Buffer {
  let raw: Buffer
  try {
    raw = zstdDecompressSync(frame, { maxOutputLength: size, chunkSize: size + SPARE })
  } catch (error) {
    throw new Damaged(`blob ${sha256} does not decompress: ${(error as Error).message}`)
  }
  if (raw.length === size && hash('sha256', raw) === sha256) return raw
  throw new Damaged(`blob ${sha256} has other bytes`)
}

/** Bytes: a chunk that is just full would have zlib set aside another. */
const SPARE = 64

/** Objects that this thread opened last: the tasks of one request bring the same ones again and again. */
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
    opened(objects).map(({ byteOrder, programs, ext }) => {
      return { byteOrder, programs: programs.length, relocations: ext.relocations.length }
    }),
  minimize: ({ objects, btf }) =>
    withRaw(btf, (raw) => minimizeBtf(parseBtf(raw), opened(objects))),
  check: ({ objects, btf }) =>
    withRaw(btf, (raw) => {
      const kernel = parseBtf(raw)
      return opened(objects).map((object) => {
        try {
          return shortJson(checkObject(object, kernel))
        } catch (error) {
          if (!(error instanceof BtfError)) throw error
          return jsonOf({ error: { code: error.code, message: error.message } })
        }
      })
    }),
  fit: ({ objects, btf: source }) => {
    const btf = rawOf(source)
    const kernel = parseBtf(btf)
    const all = opened(objects)
    try {
      const least = minimizeBtf(kernel, all)
      // objects relocate against this as against the whole, and there is less to look through
      const { pointerSize } = kernel
      return { btf: least, misfits: misfitsOf(all, parseBtf(least, { pointerSize })) }
    } catch (error) {
      const misfits = error instanceof BtfError ? misfitsOf(all, kernel) : []
      if (misfits.length === 0) throw error
      return { btf, misfits }
    }
  },
  derive: ({ btf, modules, dialect }) => {
    const base = parseBtf(btf)
    const opened = modules.map((bytes) => parseBtf(bytes, { base }))
    const merged = opened.length > 0 ? mergeBtf(base, opened) : btf
    return dialect ? toDialect(parseBtf(merged), dialect) : merged
  },
}

/** Characters of what is said of an object; those of large agents come to some hundred thousand. */
const MAX_JSON = 64 * 1024 * 1024

function shortJson(check: Check): JsonText {
  let left = MAX_JSON
  const parts = check.programs.map(({ relocations, ...program }) => {
    const said = relocations.map((relocation) => {
      const json = jsonOf(relocation)
      left -= json.length
      if (left < 0) throw new BtfError('too_large', `more than ${MAX_JSON} characters to say of it`)
      return json
    })
    return `${jsonOf(program).slice(0, -1)},"relocations":[${said.join()}]}`
  })
  return `{"loads":"${check.loads}","programs":[${parts.join()}]}` as JsonText
}

function misfitsOf(objects: readonly BpfObject[], kernel: Btf): Misfit[] {
  return objects.flatMap((object, n) => {
    const why = misfitOf(() => checkObject(object, kernel))
    return why ? [{ object: n, ...why }] : []
  })
}

function misfitOf(check: () => Check): Omit<Misfit, 'object'> | undefined {
  try {
    const { loads, programs } = check()
    if (loads !== 'no') return undefined
    for (const { name, relocations } of programs) {
      const wrong = relocations.find(
        ({ outcome, guard }) => outcome.is === 'fatal' || guard?.is === 'unguarded',
      )
      if (!wrong) continue
      const { access, kind, outcome } = wrong
      const why = outcome.is === 'fatal' ? outcome.message : 'is not as this kernel has it'
      return { code: 'does_not_load', message: `${name}: ${access} (${kind}): ${why}` }
    }
    return { code: 'does_not_load', message: 'libbpf or the verifier refuses it' }
  } catch (error) {
    if (!(error instanceof BtfError)) throw error
    return { code: error.code, message: error.message }
  }
}

function answered<K extends keyof Tasks>(
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

// by their names the pool calls them
export const open = answered('open')
export const minimize = answered('minimize')
export const check = answered('check')
export const fit = answered('fit')
export const derive = answered('derive')
