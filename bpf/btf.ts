/*
 * BTF, validated in one pass when it is opened, then read in place. Types are named by their ids. Split BTF (of a kernel
 * module) continues the ids and string offsets of its base, so every method accepts ids and offsets of both. `type`
 * decodes a record into a value; code that walks many types reads single words.
 */

import { type ByteOrder, decodeText, encodeText, findAll, viewOf } from './bytes.ts'
import { decode } from './decode.ts'
import { BtfError } from './error.ts'
import { type BtfHeader, checkStrings, parseHeader } from './header.ts'
import { infoFlag, infoVlen, KIND, type KindName, kindName } from './kind.ts'
import { checkNames, hasLongString } from './name-budget.ts'
import type { NameQuery } from './name-query.ts'
import type { BtfType } from './type.ts'
import { type Sizes, sizesOf, validate } from './validate.ts'

export interface ParseOptions {
  /** the BTF that a split BTF continues: vmlinux, for a module */
  readonly base?: Btf
  /** bytes of a pointer; guessed where it is not given; 8 in every BPF object */
  readonly pointerSize?: 4 | 8
}

/**
 * Opens raw BTF. The bytes are kept, not copied, and must not change afterwards. Errors: `invalid_header`,
 * `invalid_strings`, `invalid_type`, `truncated`, `invalid_kind`, `invalid_name`, `invalid_type_id`, `too_large`,
 * `unsupported`.
 */
export function parseBtf(bytes: Uint8Array, options: ParseOptions = {}): Btf {
  return new Btf(bytes, options)
}

/** BTF that `parseBtf` has opened. */
export class Btf {
  /** the BTF itself, without trailing bytes of the input */
  readonly bytes: Uint8Array
  readonly header: BtfHeader
  readonly base: Btf | undefined
  readonly byteOrder: ByteOrder
  /** the string section of this BTF, without its base's */
  readonly strings: Uint8Array
  /** a view over `bytes`, for code that walks records itself */
  readonly view: DataView
  /** id of its own first type: 1, or the base's `endId` for split BTF */
  readonly startId: number
  /** number of its own types, without void */
  readonly typeCount: number
  /** one more than the highest id */
  readonly endId: number
  /** offset of its own first string */
  readonly stringsStart: number
  /** end of its own strings, as an offset */
  readonly stringsEnd: number
  readonly #little: boolean
  readonly #offsets: Uint32Array
  readonly #kinds: Uint8Array
  readonly #counts: Uint32Array
  readonly #sizes: Sizes
  /** whether this BTF or its base has a long string */
  readonly #long: boolean
  #pointerSize: 4 | 8 | undefined

  constructor(bytes: Uint8Array, { base, pointerSize }: ParseOptions) {
    this.#pointerSize = pointerSize
    this.header = parseHeader(bytes)
    this.bytes = bytes.subarray(0, Math.max(this.header.strings.end, this.header.types.end))
    this.byteOrder = this.header.byteOrder
    if (base && base.byteOrder !== this.byteOrder) {
      throw new BtfError(
        'invalid_header',
        `split BTF is ${this.byteOrder}-endian, but its base is ${base.byteOrder}-endian`,
        0,
      )
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

  /** The kinds of its own types, as UAPI names without `BTF_KIND_`, in order of their numbers. */
  kinds(): string[] {
    return [...this.#counts.keys()].filter((kind) => this.#counts[kind]! > 0).map(kindName)
  }

  /** The number of its own types of a kind. */
  countOf(kind: KindName): number {
    return this.#counts[KIND[kind]]!
  }

  /**
   * Bytes of a pointer. Where `ParseOptions` does not give them, they follow from the size of `long`, the base's first,
   * as in libbpf's `determine_ptr_size`; 8 where there is no `long`.
   */
  get pointerSize(): 4 | 8 {
    this.#pointerSize ??= this.base?.pointerSize ?? guessPointerSize(this)
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

  /** Kind number of a type. Errors of all methods that take an id: `invalid_type_id`. */
  kind(id: number): number {
    if (id === 0) return KIND.VOID
    const ownerOf = this.owner(id)
    return ownerOf.#kinds[id - ownerOf.startId]!
  }

  /**
   * Ids of all types, the base's too, whose kind and head of the name one group of a query wants, in order. The result is
   * a superset: callers compare the whole names. The test rarely succeeds, so the processor predicts it and reads ahead;
   * records and names lie far apart in memory. With `own`, the base's types are left out.
   */
  idsOf(query: NameQuery, own = false): number[] {
    const { kinds, heads } = query
    const ids = (own ? undefined : this.base?.idsOf(query)) ?? []
    const [all, offsets, view, little] = [this.#kinds, this.#offsets, this.view, this.#little]
    const { strings, stringsStart, startId } = this
    for (let i = 0; i < all.length; i++) {
      const groups = kinds[all[i]!]!
      if (groups === 0) continue
      const name = view.getUint32(offsets[i]!, little)
      const head =
        name < stringsStart ? this.base!.#head(name) : headAt(strings, name - stringsStart)
      if ((heads[head]! & groups) !== 0) ids.push(startId + i)
    }
    return ids
  }

  /** Number of elements (members, values, parameters, variables); of a FUNC its linkage. */
  vlen(id: number): number {
    return id === 0 ? 0 : infoVlen(this.word(id, 4))
  }

  /** kind_flag, whose meaning depends on the kind. */
  flag(id: number): boolean {
    return id !== 0 && infoFlag(this.word(id, 4))
  }

  /** The name of a type, '' for none. */
  name(id: number): string {
    return id === 0 ? '' : this.string(this.word(id, 0))
  }

  /** The third word of the header: a size in bytes or a type id, depending on the kind. */
  sizeOrType(id: number): number {
    return id === 0 ? 0 : this.word(id, 8)
  }

  /** The 32-bit word at a byte offset within a type's record. The caller knows that the record is that long. */
  word(id: number, at: number): number {
    const owner = this.owner(id)
    return owner.view.getUint32(owner.#offsets[id - owner.startId]! + at, this.#little)
  }

  /** The BTF that stores a type: this one or a base. Errors: `invalid_type_id`. */
  owner(id: number): Btf {
    let owner: Btf = this
    while (id < owner.startId && owner.base) owner = owner.base
    if (!(id >= owner.startId && id < owner.endId)) {
      throw new BtfError(
        'invalid_type_id',
        `invalid type id ${id}: expected less than ${this.endId}`,
      )
    }
    return owner
  }

  /** The byte offset of a type's record in the `bytes` of its owner. Errors: `invalid_type_id`. */
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
      throw new BtfError(
        'invalid_name',
        `invalid string offset ${offset}: the strings end at ${this.stringsEnd}`,
      )
    }
    return owner.strings.subarray(start, owner.strings.indexOf(0, start))
  }

  /** The first two bytes of the string at an offset, as `idsOf` takes them. */
  head(offset: number): number {
    return this.#head(offset)
  }

  #head(offset: number): number {
    const { strings, stringsStart } = this.#stringsOf(offset)
    return headAt(strings, offset - stringsStart)
  }

  /** True if the string at an offset equals these bytes. */
  stringIs(offset: number, bytes: Uint8Array): boolean {
    const { strings, stringsStart } = this.#stringsOf(offset)
    const start = offset - stringsStart
    // most names have another length, and many begin alike
    if (strings[start + bytes.length] !== 0) return false
    for (let i = 0; i < bytes.length; i++) if (strings[start + i] !== bytes[i]) return false
    return true
  }

  /** The BTF that stores the string at an offset: this one or a base. */
  #stringsOf(offset: number): Btf {
    let owner: Btf = this
    while (offset < owner.stringsStart && owner.base) owner = owner.base
    return owner
  }

  /**
   * The id of the first type with a name, optionally of one kind; the base's types come first. Searches the strings for
   * the name, then the types for its offset, so a few names need no index. The empty name finds nothing.
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

  /** All offsets of a string: it may be stored twice, or be the tail of a longer one. */
  #offsetsOf(name: string): Set<number> {
    const offsets = new Set<number>()
    const needle = encodeText(`${name}\0`)
    for (let owner: Btf | undefined = this; owner; owner = owner.base) {
      for (const at of findAll(owner.strings, needle)) offsets.add(owner.stringsStart + at)
    }
    return offsets
  }
}

/** The first two bytes of a string as a little-endian number. Past the end of a short string the second is arbitrary. */
function headAt(strings: Uint8Array, at: number): number {
  return at + 1 < strings.length ? strings[at]! | (strings[at + 1]! << 8) : 0
}

/** Names of `long`. */
export const LONGS: ReadonlySet<string> = new Set([
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

function guessPointerSize(btf: Btf): 4 | 8 {
  const long = longAmong(btf, ownIds(btf))
  return long !== undefined && btf.sizeOrType(long) === 4 ? 4 : 8
}

function* ownIds({ startId, endId }: Btf): Generator<number> {
  for (let id = startId; id < endId; id++) yield id
}

/** The first `long` among some types; a reader takes the size of a pointer from the first of a whole BTF. */
export function longAmong(
  btf: Pick<Btf, 'kind' | 'sizeOrType' | 'name'>,
  ids: Iterable<number>,
): number | undefined {
  for (const id of ids) {
    if (btf.kind(id) !== KIND.INT) continue
    const size = btf.sizeOrType(id)
    if ((size === 4 || size === 8) && LONGS.has(btf.name(id))) return id
  }
  return undefined
}
