/*
 * BTF: one validating pass when it is opened, then everything is read where it lies. Types are named by their ids; a
 * split BTF (of a kernel module) continues the ids and string offsets of its base, and every method here takes ids
 * and offsets of either. `type` decodes a record into a value; code that walks many types asks for single words.
 */

import { type ByteOrder, decodeText, encodeText, findAll, viewOf } from './bytes.ts'
import { decode } from './decode.ts'
import { BtfError } from './error.ts'
import { type BtfHeader, checkStrings, parseHeader } from './header.ts'
import { infoFlag, infoVlen, KIND, type KindName, kindName, MAX_KINDS } from './kind.ts'
import { checkNames, hasLongString } from './name-budget.ts'
import type { BtfType } from './type.ts'
import { type Sizes, sizesOf, validate } from './validate.ts'

export interface ParseOptions {
  /** the BTF that a split BTF continues: that of vmlinux, for a module */
  readonly base?: Btf
  /** bytes of a pointer, where the caller knows better than the guess: 8 in every BPF object */
  readonly pointerSize?: 4 | 8
}

/**
 * Opens raw BTF. The bytes are kept, not copied: they must not change afterwards. Errors: `invalid_header`,
 * `invalid_strings`, `invalid_type`, `truncated`, `invalid_kind`, `invalid_name`, `invalid_type_id`, `too_large`, `unsupported`.
 */
export function parseBtf(bytes: Uint8Array, options: ParseOptions = {}): Btf {
  return new Btf(bytes, options)
}

/** Opened BTF; see `parseBtf`. */
export class Btf {
  /** the blob, without what may follow its strings */
  readonly bytes: Uint8Array
  readonly header: BtfHeader
  readonly base: Btf | undefined
  readonly byteOrder: ByteOrder
  /** its string section */
  readonly strings: Uint8Array
  /** a view over `bytes`, for those who walk records themselves */
  readonly view: DataView
  /** id of the first type of its own: 1, or for split BTF one more than the base's last */
  readonly startId: number
  /** number of types of its own, void not counted */
  readonly typeCount: number
  /** one more than the highest id */
  readonly endId: number
  /** offset of its own first string */
  readonly stringsStart: number
  /** one more than the highest offset of a string */
  readonly stringsEnd: number
  readonly #little: boolean
  readonly #offsets: Uint32Array
  readonly #kinds: Uint8Array
  readonly #counts: Uint32Array
  readonly #sizes: Sizes
  /** whether it, or its base, has a long string */
  readonly #long: boolean
  #pointerSize: 4 | 8 | undefined

  constructor(bytes: Uint8Array, { base, pointerSize }: ParseOptions) {
    this.#pointerSize = pointerSize
    this.header = parseHeader(bytes)
    this.bytes = bytes.subarray(0, Math.max(this.header.strings.end, this.header.types.end))
    this.byteOrder = this.header.byteOrder
    if (base && base.byteOrder !== this.byteOrder) {
      throw new BtfError('invalid_header', 'base and split BTF differ in byte order', 0)
    }
    this.base = base
    this.view = viewOf(this.bytes)
    this.#little = this.byteOrder === 'little'
    const { start, end } = this.header.strings
    this.strings = bytes.subarray(start, end)
    checkStrings(this.strings, start, base !== undefined)

    this.startId = base?.endId ?? 1
    this.stringsStart = base?.stringsEnd ?? 0
    this.stringsEnd = this.stringsStart + this.strings.length
    this.#sizes = sizesOf(this.view, this.header.layout, base ? base.#sizes : undefined)
    const { offsets, kinds, counts } = validate(this.bytes, this.header, this.#sizes, {
      startId: this.startId,
      stringsEnd: this.stringsEnd,
      baseKind: (id) => base?.kind(id) ?? 0,
    })
    this.#offsets = offsets
    this.#kinds = kinds
    this.#counts = counts
    this.typeCount = offsets.length
    this.endId = this.startId + this.typeCount
    this.#long = (base ? base.#long : false) || hasLongString(this.strings)
    if (this.#long) checkNames(this)
  }

  /** The kinds its own types use, by UAPI name without `BTF_KIND_`, in order of their numbers. */
  kinds(): string[] {
    return [...this.#counts.keys()].filter((kind) => this.#counts[kind]! > 0).map(kindName)
  }

  /** How many types of its own are of this kind. */
  countOf(kind: KindName): number {
    return this.#counts[KIND[kind]]!
  }

  /**
   * Bytes of a pointer, guessed as libbpf's `determine_ptr_size` does: from the size of `long`, the base's first.
   * Where there is no `long`, 8.
   */
  get pointerSize(): 4 | 8 {
    this.#pointerSize ??= this.base?.pointerSize ?? guessPointerSize(this) ?? 8
    return this.#pointerSize
  }

  /** Decodes one type. Errors: `invalid_type_id`. */
  type(id: number): BtfType {
    if (id === 0) return { kind: 'VOID', id, name: '' }
    const owner = this.owner(id)
    return decode(owner, id, owner.#offsets[id - owner.startId]!)
  }

  /** Decodes its own types one by one, in order of their ids. */
  *types(): Generator<BtfType> {
    for (let id = this.startId; id < this.endId; id++) yield this.type(id)
  }

  /** Kind number of a type. Errors, as for the next five: `invalid_type_id`. */
  kind(id: number): number {
    if (id === 0) return KIND.VOID
    const ownerOf = this.owner(id)
    return ownerOf.#kinds[id - ownerOf.startId]!
  }

  /**
   * Ids of all types, the base's too, of these kinds (by number), in order, of whose names the first two bytes, as one
   * number in little endian, are an index of `heads` at which there is no 0; others may be among them. What decides is
   * hardly ever so, and foreseen by the processor, which reads on meanwhile: records and names lie far apart.
   */
  idsOf(kinds: ReadonlySet<number>, heads: Uint8Array): number[] {
    const ids = this.base?.idsOf(kinds, heads) ?? []
    const wanted = Uint8Array.from({ length: MAX_KINDS }, (_, kind) => Number(kinds.has(kind)))
    const [own, offsets, view, little] = [this.#kinds, this.#offsets, this.view, this.#little]
    const { strings, stringsStart } = this
    for (let i = 0; i < own.length; i++) {
      if (wanted[own[i]!] === 0) continue
      const name = view.getUint32(offsets[i]!, little)
      const head =
        name < stringsStart ? this.base!.#head(name) : headAt(strings, name - stringsStart)
      if (heads[head] !== 0) ids.push(this.startId + i)
    }
    return ids
  }

  /** Number of elements: members, values, parameters, variables; for a FUNC its linkage. */
  vlen(id: number): number {
    return id === 0 ? 0 : infoVlen(this.word(id, 4))
  }

  /** kind_flag */
  flag(id: number): boolean {
    return id !== 0 && infoFlag(this.word(id, 4))
  }

  name(id: number): string {
    return id === 0 ? '' : this.string(this.word(id, 0))
  }

  /** The third word of its header: a size in bytes, or the id of a type, as its kind has it. */
  sizeOrType(id: number): number {
    return id === 0 ? 0 : this.word(id, 8)
  }

  /** The 32-bit word at a byte offset within a type's record, which the caller knows to be there. */
  word(id: number, at: number): number {
    const owner = this.owner(id)
    return owner.view.getUint32(owner.#offsets[id - owner.startId]! + at, this.#little)
  }

  /** The BTF that holds a type itself: this one, or a base. Errors: `invalid_type_id`. */
  owner(id: number): Btf {
    let owner: Btf = this
    while (id < owner.startId && owner.base) owner = owner.base
    if (!(id >= owner.startId && id < owner.endId)) {
      throw new BtfError('invalid_type_id', `type ${id} of ${this.endId}`)
    }
    return owner
  }

  /** Where the record of a type begins in the `bytes` of its owner. Errors: `invalid_type_id`. */
  recordAt(id: number): number {
    const owner = this.owner(id)
    return owner.#offsets[id - owner.startId]!
  }

  /** The string at an offset, decoded as UTF-8. Errors: `invalid_name`. */
  string(offset: number): string {
    if (offset === 0) return ''
    return decodeText(this.stringBytes(offset))
  }

  /** The bytes of the string at an offset, without NUL. Errors: `invalid_name`. */
  stringBytes(offset: number): Uint8Array {
    const owner = this.#stringsOf(offset)
    const start = offset - owner.stringsStart
    if (!(start >= 0 && start < owner.strings.length)) {
      throw new BtfError('invalid_name', `name at ${offset}, strings end at ${this.stringsEnd}`)
    }
    return owner.strings.subarray(start, owner.strings.indexOf(0, start))
  }

  #head(offset: number): number {
    const { strings, stringsStart } = this.#stringsOf(offset)
    return headAt(strings, offset - stringsStart)
  }

  /** Whether the string at an offset is exactly these bytes. */
  stringIs(offset: number, bytes: Uint8Array): boolean {
    const { strings, stringsStart } = this.#stringsOf(offset)
    const start = offset - stringsStart
    for (let i = 0; i < bytes.length; i++) if (strings[start + i] !== bytes[i]) return false
    return strings[start + bytes.length] === 0
  }

  /** The BTF that holds the string at an offset: this one, or a base. */
  #stringsOf(offset: number): Btf {
    let owner: Btf = this
    while (offset < owner.stringsStart && owner.base) owner = owner.base
    return owner
  }

  /**
   * The first type of that name, of that kind where one is given; the base's types come first. The name is looked for
   * among the strings, then its offset among the types, so a handful of names needs no index. The empty name finds
   * nothing.
   */
  find(name: string, kind?: KindName): number | undefined {
    if (name === '') return undefined
    const inBase = this.base?.find(name, kind)
    if (inBase !== undefined) return inBase
    const offsets = this.#offsetsOf(name)
    if (offsets.size === 0) return undefined
    const wanted = kind === undefined ? undefined : KIND[kind]
    if (wanted !== undefined && this.#counts[wanted] === 0) return undefined
    for (let i = 0; i < this.typeCount; i++) {
      if (wanted !== undefined && this.#kinds[i] !== wanted) continue
      if (offsets.has(this.view.getUint32(this.#offsets[i]!, this.#little))) return this.startId + i
    }
    return undefined
  }

  /** All offsets at which exactly this string begins: a name may be stored twice, or be the tail of another. */
  #offsetsOf(name: string): Set<number> {
    const offsets = new Set<number>()
    const needle = encodeText(`${name}\0`)
    for (let owner: Btf | undefined = this; owner; owner = owner.base) {
      for (const at of findAll(owner.strings, needle)) offsets.add(owner.stringsStart + at)
    }
    return offsets
  }
}

/** The first byte of a string and, times 256, the one after it; of a shorter one the latter is anything. */
function headAt(strings: Uint8Array, at: number): number {
  return at + 1 < strings.length ? strings[at]! | (strings[at + 1]! << 8) : 0
}

const LONGS = new Set([
  'long',
  'long int',
  'int long',
  'unsigned long',
  'long unsigned',
  'unsigned long int',
  'unsigned int long',
  'long unsigned int',
  'long int unsigned',
  'int unsigned long',
  'int long unsigned',
])

function guessPointerSize(btf: Btf): 4 | 8 | undefined {
  for (let id = btf.startId; id < btf.endId; id++) {
    if (btf.kind(id) !== KIND.INT) continue
    const size = btf.sizeOrType(id)
    if ((size === 4 || size === 8) && LONGS.has(btf.name(id))) return size
  }
  return undefined
}
