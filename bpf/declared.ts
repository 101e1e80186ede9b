/*
 * The declarations of a BTF, by kind and name: its types and functions, and what follows from them: the tracepoints, kfuncs,
 * helpers and map types of the kernel. Each has a key of 64 bits, and a form as text, which is made when it is asked for.
 * Equal keys in two BTFs mean equal forms; equal forms may have different keys. So whoever knows the keys of one kernel
 * needs the forms of the next one only where it differs.
 *
 * - A tracepoint is the typedef `btf_trace_NAME` that the kernel has for each (include/trace/bpf_probe.h).
 * - A kfunc is a function with the tag `bpf_kfunc`, which pahole writes from version 1.26 on.
 * - A helper is a value of `enum bpf_func_id`, a map type one of `enum bpf_map_type` (include/uapi/linux/bpf.h).
 */

import type { Btf } from './btf.ts'
import { encodeText } from './bytes.ts'
import { hashDeclarations, hashInto, hashStrings } from './declaration.ts'
import { wordsOfBtf } from './delta-words.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import { sizeOf } from './layout.ts'
import type { DeclTagType } from './type.ts'
import { Describer, SORT_OF_KIND, TYPE_SORTS, type TypeShape, textOf } from './type-shape.ts'

/** Kinds of declarations: those of types, then those that follow from them. */
export const DECLARATION_KINDS = [
  ...TYPE_SORTS,
  'kfunc',
  'tracepoint',
  'helper',
  'map_type',
] as const
export type DeclarationKind = (typeof DECLARATION_KINDS)[number]

/** The form of a declaration: all that it says, besides its kind and name. */
export type DeclarationForm = Omit<TypeShape, 'kind' | 'name'>

const TRACE = 'btf_trace_'
const TRACE_BYTES = encodeText(TRACE)
const KFUNC = encodeText('bpf_kfunc')

/** The enums whose values are helpers and map types, with the prefix of their names. */
const CONSTANTS = [
  { kind: 'helper', of: 'bpf_func_id', prefix: 'BPF_FUNC_' },
  { kind: 'map_type', of: 'bpf_map_type', prefix: 'BPF_MAP_TYPE_' },
] as const

/** Separates the keys of declarations that share a type. */
const SALT = { kfunc: 0x6b66756e, tracepoint: 0x74726163 } as const

/** The declarations of a BTF, by index. Errors of all methods: `cycle`, `too_large`. */
export class DeclaredForms {
  readonly #btf: Btf
  readonly #describer: Describer
  #count = 0
  /** by index: places in DECLARATION_KINDS, type ids, for constants the index of the value, and both halves of the key */
  #kinds = new Uint8Array(1 << 16)
  #ids = new Int32Array(1 << 16)
  #values = new Int32Array(1 << 16)
  #low = new Int32Array(1 << 16)
  #high = new Int32Array(1 << 16)

  /** Errors: `cycle`, `too_large`. */
  constructor(btf: Btf) {
    this.#btf = btf
    this.#describer = new Describer(btf)
    this.#addTypes()
  }

  get length(): number {
    return this.#count
  }

  kind(index: number): DeclarationKind {
    return DECLARATION_KINDS[this.#kinds[index]!]!
  }

  /** The lower half of the key. */
  low(index: number): number {
    return this.#low[index]!
  }

  /** The upper half of the key. */
  high(index: number): number {
    return this.#high[index]!
  }

  name(index: number): string {
    const [kind, id] = [this.kind(index), this.#ids[index]!]
    if (kind === 'helper' || kind === 'map_type') return this.#valueOf(index).name
    const name = this.#btf.name(id)
    return kind === 'tracepoint' ? name.slice(TRACE.length) : name
  }

  form(index: number): DeclarationForm {
    const [kind, id] = [this.kind(index), this.#ids[index]!]
    if (kind === 'helper' || kind === 'map_type') {
      const { name, value } = this.#valueOf(index)
      return {
        ...{ size: undefined, declaration: undefined, members: undefined },
        values: [{ name, value: String(value) }],
      }
    }
    if (kind === 'tracepoint') {
      const declaration = this.#describer.tracepoint(id, this.name(index))
      return { size: undefined, declaration, members: undefined, values: undefined }
    }
    const { size, declaration, members, values } = this.#describer.describe(id)!
    return { size, declaration, members, values }
  }

  #valueOf(index: number): { name: string; value: number | bigint } {
    const type = this.#btf.type(this.#ids[index]!)
    if (type.kind !== 'ENUM' && type.kind !== 'ENUM64') throw new Error('not an enum')
    return type.values[this.#values[index]!]!
  }

  #addTypes(): void {
    const btf = this.#btf
    const keys = this.#keys()
    const defined = definedTags(btf)
    for (let id = 1; id < btf.endId; id++) {
      const name = btf.word(id, 0)
      if (name === 0) continue
      const number = btf.kind(id)
      if (number === KIND.DECL_TAG) {
        this.#addKfunc(id, keys)
        continue
      }
      const kind = SORT_OF_KIND[number]
      if (kind === undefined) continue
      const isForward = kind === 'fwd' || (number === KIND.ENUM && btf.vlen(id) === 0)
      if (isForward && defined.has(btf.name(id))) continue
      const [low, high] = keys(id)
      this.#add(isForward ? 'fwd' : kind, id, low, high)
      if (kind === 'typedef') this.#addTracepoint(id, low, high)
      if (kind === 'enum') this.#addConstants(id)
    }
  }

  #addKfunc(tag: number, keys: (id: number) => readonly [number, number]): void {
    const btf = this.#btf
    const func = btf.sizeOrType(tag)
    if (!btf.stringIs(btf.word(tag, 0), KFUNC) || btf.kind(func) !== KIND.FUNC) return
    if ((btf.type(tag) as DeclTagType).component !== -1 || btf.word(func, 0) === 0) return
    const [low, high] = keys(func)
    this.#add('kfunc', func, low ^ SALT.kfunc, high)
  }

  #addTracepoint(id: number, low: number, high: number): void {
    const btf = this.#btf
    const name = btf.stringBytes(btf.word(id, 0))
    if (name.length <= TRACE.length || !TRACE_BYTES.every((byte, i) => byte === name[i])) return
    if (btf.kind(btf.sizeOrType(id)) !== KIND.PTR) return
    this.#add('tracepoint', id, low ^ SALT.tracepoint, high)
  }

  #addConstants(id: number): void {
    const btf = this.#btf
    const constants = CONSTANTS.find(({ of }) => btf.stringIs(btf.word(id, 0), encodeText(of)))
    if (!constants) return
    const type = btf.type(id)
    if (type.kind !== 'ENUM' && type.kind !== 'ENUM64') return
    const half = new Int32Array(2)
    for (const [index, { name, value }] of type.values.entries()) {
      if (!name.startsWith(constants.prefix)) continue
      const text = encodeText(`${constants.kind} ${name} ${value}`)
      hashInto(text, 0, text.length, half.subarray(0, 1), half.subarray(1), 0)
      this.#add(constants.kind, id, half[0]!, half[1]!, index)
    }
  }

  #add(kind: DeclarationKind, id: number, low: number, high: number, value = 0): void {
    const at = this.#count++
    if (at === this.#ids.length) this.#grow()
    this.#kinds[at] = DECLARATION_KINDS.indexOf(kind)
    this.#ids[at] = id
    this.#values[at] = value
    this.#low[at] = low
    this.#high[at] = high
  }

  #grow(): void {
    const length = this.#count * 2
    const grown = (old: Int32Array<ArrayBuffer>) => {
      const larger = new Int32Array(length)
      larger.set(old)
      return larger
    }
    const kinds = new Uint8Array(length)
    kinds.set(this.#kinds)
    this.#kinds = kinds
    this.#ids = grown(this.#ids)
    this.#values = grown(this.#values)
    this.#low = grown(this.#low)
    this.#high = grown(this.#high)
  }

  /** The keys of types by id: of their declarations; of BTF that has no such form, of the texts of their shapes. */
  #keys(): (id: number) => readonly [number, number] {
    const btf = this.#btf
    const words = wordsOfBtf(btf)
    if (words) {
      const { low, high } = hashDeclarations(words, hashStrings(words), (id) => bytesOf(btf, id))
      return (id) => [low[id]!, high[id]!]
    }
    const half = new Int32Array(2)
    return (id) => {
      const shape = this.#describer.describe(id)
      const text = encodeText(shape ? textOf(shape) : '')
      hashInto(text, 0, text.length, half.subarray(0, 1), half.subarray(1), 0)
      return [half[0]!, half[1]!]
    }
  }
}

/** The bytes of a type; 0 for a type without a size. */
function bytesOf(btf: Btf, id: number): number {
  try {
    return sizeOf(btf, id) ?? 0
  } catch (error) {
    if (error instanceof BtfError) return 0 // its form has the error
    throw error
  }
}

/** The names of structs, unions and enums that a BTF defines. */
function definedTags(btf: Btf): Set<string> {
  const forward = new Set<string>()
  for (let id = 1; id < btf.endId; id++) {
    const kind = btf.kind(id)
    const isForward = kind === KIND.FWD || (kind === KIND.ENUM && btf.vlen(id) === 0)
    if (isForward && btf.word(id, 0) !== 0) forward.add(btf.name(id))
  }
  const defined = new Set<string>()
  if (forward.size === 0) return defined
  for (let id = 1; id < btf.endId; id++) {
    const kind = btf.kind(id)
    const defines =
      kind === KIND.STRUCT ||
      kind === KIND.UNION ||
      kind === KIND.ENUM64 ||
      (kind === KIND.ENUM && btf.vlen(id) > 0)
    if (!defines || btf.word(id, 0) === 0) continue
    const name = btf.name(id)
    if (forward.has(name)) defined.add(name)
  }
  return defined
}
