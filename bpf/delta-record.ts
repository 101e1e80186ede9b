/*
 * The numbers of a type's record in a delta, for both directions. A record is written as words like those of BTF, but
 * its names are indexes of strings, and its references ids, both of the BTF that the delta makes. What follows from what
 * went before is predicted, so that most numbers are 0 or 1: the next new string, the type that a member of this name had
 * last, the end of the member before. delta.md describes every rule.
 */

import { type Coder, invalid, STREAM } from './delta-stream.ts'
import { FreeList } from './free-list.ts'
import { HEADER_SIZE, infoFlag, infoKind, infoVlen, KIND, KINDS } from './kind.ts'
import { ScratchLists } from './scratch-lists.ts'

/** Codes of names. */
const NO_NAME = 0
const NEXT_NEW = 1
const GUESSED = 2
const FAR_NAME = 3

/** Codes of references: 0 is the predicted one, then come the near ones, then the others. */
const FAR_TYPE = 0xff

/** The words of an element, by kind: name, reference, and values behind them. */
export interface ElementShape {
  readonly words: number
  /** word of the name, -1 for none */
  readonly name: number
  /** word of the reference, -1 for none */
  readonly id: number
  /** word of the first value, -1 for none */
  readonly value: number
}

/** The kinds that a delta can have: those up to ENUM64. BTF with others is stored plain. */
export const DELTA_KINDS = KINDS.slice(0, KIND.ENUM64 + 1)

/** Shapes of elements; undefined for kinds without elements. */
export const ELEMENTS: readonly (ElementShape | undefined)[] = DELTA_KINDS.map((kind) => {
  if (kind.element === 0) return undefined
  const [words, name, id] = [kind.element / 4, kind.elementName / 4, (kind.elementIds[0] ?? -4) / 4]
  const value = [...Array(words).keys()].find((word) => word !== name && word !== id)
  return { words, name: Math.floor(name), id: Math.floor(id), value: value ?? -1 }
})

/** Words before the elements, by kind. */
export const HEAD_WORDS: Int32Array = Int32Array.from(
  DELTA_KINDS,
  ({ payload }) => (HEADER_SIZE + payload) / 4,
)

/** Words of an element, by kind; 0 for kinds without elements. */
const ELEMENT_WORDS: Int32Array = Int32Array.from(ELEMENTS, (shape) => shape?.words ?? 0)

/** Words of a record with this info. */
export function wordsOfRecord(info: number): number {
  const kind = infoKind(info)
  return HEAD_WORDS[kind]! + ELEMENT_WORDS[kind]! * infoVlen(info)
}

/** Codes records, one after another. Both directions learn the same from each. */
export class RecordCoder {
  /** the words of the current record; long enough for `reserve` */
  words = new Int32Array(1024)
  readonly #coder: Coder
  readonly #types: number
  readonly #strings: number
  /** indexes of new strings, rising */
  readonly #fresh: Int32Array
  /** places in `#fresh` of those that no record has used */
  readonly #unused: FreeList
  /** the first such place after the one that was used last */
  #next = 0
  /** by name: the type of the last element with this name */
  readonly #typeOf: Int32Array
  /** by name: the name of the element that followed last */
  readonly #following: Int32Array
  /** by type: bits from the last member of this type to the member after it */
  readonly #bitsOf: Int32Array
  #indexType = 0

  /** `types` and `strings` are the highest id and string index; `fresh` are the indexes of the new strings. */
  constructor(
    coder: Coder,
    types: number,
    strings: number,
    fresh: Int32Array,
    scratch = new ScratchLists(),
  ) {
    this.#coder = coder
    this.#types = types
    this.#strings = strings
    this.#fresh = fresh
    this.#unused = new FreeList(fresh.length, scratch.take('unused', fresh.length + 1))
    this.#typeOf = scratch.take('typeOf', strings + 1)
    this.#following = scratch.take('following', strings + 1)
    this.#bitsOf = scratch.take('bitsOf', types + 1)
  }

  /** Makes room for a record of so many words. */
  reserve(words: number): void {
    if (words <= this.words.length) return
    const grown = new Int32Array(Math.max(words, this.words.length * 2))
    grown.set(this.words)
    this.words = grown
  }

  /** Codes the record in `words` of the type `id`. Returns its number of words. */
  record(id: number): number {
    const coder = this.#coder
    const { words } = this
    const info = words[1]!
    const code = coder.byte(STREAM.kinds, infoKind(info) | (infoFlag(info) ? 0x80 : 0))
    const kind = code & 0x7f
    const flag = code >= 0x80
    if (kind === 0 || kind >= DELTA_KINDS.length) invalid(`unknown kind ${kind}`)
    const shape = ELEMENTS[kind]
    let vlen = 0
    if (shape) vlen = coder.unsigned(STREAM.counts, infoVlen(info))
    else if (kind === KIND.FUNC) vlen = coder.unsigned(STREAM.linkages, infoVlen(info))
    if (vlen > 0xffffff) invalid(`a type with ${vlen} elements`)
    words[1] = (flag ? 1 << 31 : 0) | (kind << 24) | vlen
    this.name(STREAM.typeNames, 0, 0)
    this.#head(kind, id)
    if (!shape) return HEAD_WORDS[kind]!
    let at = HEAD_WORDS[kind]!
    for (let i = 0; i < vlen; i++, at += shape.words) {
      this.reserve(at + shape.words)
      this.element(kind, flag, id, at, i === 0 ? -1 : at - shape.words)
    }
    this.#size(kind, flag, at)
    return at
  }

  /** The words between the info and the elements. */
  #head(kind: number, id: number): void {
    const coder = this.#coder
    const { words } = this
    switch (kind) {
      case KIND.PTR:
        this.type(STREAM.pointers, 2, id, -1)
        break
      case KIND.FUNC:
        this.type(STREAM.prototypes, 2, id, -1)
        break
      case KIND.FUNC_PROTO:
        this.type(STREAM.results, 2, id, 0)
        break
      case KIND.ARRAY:
        words[2] = coder.unsigned(STREAM.sizes, words[2]!)
        this.type(STREAM.otherTypes, 3, id, -1)
        this.type(STREAM.otherTypes, 4, id, this.#indexType)
        this.#indexType = words[4]!
        words[5] = coder.unsigned(STREAM.sizes, words[5]!)
        break
      case KIND.STRUCT:
      case KIND.UNION:
        break // the size comes after the members
      case KIND.VAR:
      case KIND.DECL_TAG:
        this.type(STREAM.otherTypes, 2, id, -1)
        words[3] = coder.signed(STREAM.payloads, words[3]!)
        break
      case KIND.INT:
        words[2] = coder.unsigned(STREAM.sizes, words[2]!)
        words[3] = coder.unsigned(STREAM.payloads, words[3]!)
        break
      default:
        if (KINDS[kind]!.third === 'type') this.type(STREAM.otherTypes, 2, id, -1)
        else words[2] = coder.unsigned(STREAM.sizes, words[2]!)
    }
  }

  /** The size of a struct or union, whose members end before the word `end`. */
  #size(kind: number, flag: boolean, end: number): void {
    if (kind !== KIND.STRUCT && kind !== KIND.UNION) return
    const first = HEAD_WORDS[kind]!
    const bytes = end === first ? 0 : (this.#endOf(flag, end - 3) + 7) >>> 3
    this.words[2] = this.#coder.signed(STREAM.sizes, (this.words[2]! - bytes) | 0) + bytes
  }

  /** The bit at which the member at the word `at` ends, as far as its type is known. */
  #endOf(flag: boolean, at: number): number {
    const value = this.words[at + 2]!
    const bits = flag ? value >>> 24 : 0
    const offset = flag ? value & 0xffffff : value
    return (offset + (bits === 0 ? this.#bitsOf[this.words[at + 1]!]! : bits)) | 0
  }

  /** Codes the element at the word `at` of a record of the type `id`, `before` the element at that word; -1 for none. */
  element(kind: number, flag: boolean, id: number, at: number, before: number): void {
    const coder = this.#coder
    const { words } = this
    switch (kind) {
      case KIND.STRUCT:
      case KIND.UNION: {
        const previous = before < 0 ? 0 : words[before]!
        this.name(STREAM.memberNames, at, this.#following[previous]!)
        this.#following[previous] = words[at]!
        const name = words[at]!
        this.type(STREAM.memberTypes, at + 1, id, this.#typeOf[name]!)
        this.#typeOf[name] = words[at + 1]!
        const guess = kind === KIND.UNION || before < 0 ? 0 : this.#endOf(flag, before)
        const value = words[at + 2]!
        const bits = flag ? coder.byte(STREAM.bitfields, value >>> 24) : 0
        const offset = flag ? value & 0xffffff : value
        const found = coder.signed(STREAM.offsets, (offset - guess) | 0) + guess
        words[at + 2] = flag ? (bits << 24) | (found & 0xffffff) : found
        if (kind === KIND.STRUCT && before >= 0 && (!flag || words[before + 2]! >>> 24 === 0)) {
          const start = flag ? words[before + 2]! & 0xffffff : words[before + 2]!
          this.#bitsOf[words[before + 1]!] = (found - start) | 0
        }
        break
      }
      case KIND.ENUM:
        this.name(STREAM.valueNames, at, 0)
        this.#value(at + 1, before < 0 ? 0 : (words[before + 1]! + 1) | 0)
        break
      case KIND.ENUM64:
        this.name(STREAM.valueNames, at, 0)
        this.#value(at + 1, before < 0 ? 0 : (words[before + 1]! + 1) | 0)
        this.#value(at + 2, before < 0 ? 0 : words[before + 2]!)
        break
      case KIND.FUNC_PROTO: {
        const previous = before < 0 ? 0 : words[before]!
        this.name(STREAM.parameterNames, at, this.#following[previous]!)
        this.#following[previous] = words[at]!
        this.type(STREAM.parameterTypes, at + 1, id, this.#typeOf[words[at]!]!)
        this.#typeOf[words[at]!] = words[at + 1]!
        break
      }
      default: // DATASEC
        this.type(STREAM.otherTypes, at, id, before < 0 ? -1 : words[before]! + 1)
        this.#value(at + 1, before < 0 ? 0 : (words[before + 1]! + words[before + 2]!) | 0)
        words[at + 2] = coder.unsigned(STREAM.payloads, words[at + 2]!)
    }
  }

  #value(at: number, guess: number): void {
    const { words } = this
    words[at] = this.#coder.signed(STREAM.values, (words[at]! - guess) | 0) + guess
  }

  /** Codes the name at the word `at`. */
  name(stream: number, at: number, guess: number): void {
    const coder = this.#coder
    const { words } = this
    let value = words[at]!
    const next = this.#next < this.#fresh.length ? this.#fresh[this.#next]! : -1
    const code = coder.byte(
      stream,
      value === 0 ? NO_NAME : value === next ? NEXT_NEW : value === guess ? GUESSED : FAR_NAME,
    )
    if (code === NO_NAME) value = 0
    else if (code === NEXT_NEW) value = next
    else if (code === GUESSED) value = guess
    else if (code === FAR_NAME) {
      const high = coder.unsigned(STREAM.farNamesHigh, value >>> 8)
      value = high * 256 + coder.byte(STREAM.farNamesLow, value & 0xff)
    } else invalid(`unknown code ${code} of a name`)
    if (!(value >= 0 && value <= this.#strings)) invalid(`string ${value} of ${this.#strings}`)
    words[at] = value
    if (value === next) this.#use(this.#next)
    else if (code === FAR_NAME) this.#use(this.#placeOf(value))
  }

  /** Notes that a new string is used; -1 for another one. */
  #use(place: number): void {
    if (place < 0 || !this.#unused.isFree(place)) return
    this.#unused.take(place)
    this.#next = this.#unused.from(place)
  }

  /** The place of a string among the new ones; -1 for another one. */
  #placeOf(index: number): number {
    const fresh = this.#fresh
    if (fresh.length === this.#strings) return index - 1
    let [low, high] = [0, fresh.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (fresh[middle]! < index) low = middle + 1
      else high = middle
    }
    return fresh[low] === index ? low : -1
  }

  /** Codes the reference at the word `at` of a record of the type `id`. */
  type(stream: number, at: number, id: number, guess: number): void {
    const coder = this.#coder
    const { words } = this
    let value = words[at]!
    const distance = id - value
    const zigzag = distance > 0 ? distance * 2 - 1 : distance * -2
    const near = Math.min(zigzag + 1, FAR_TYPE)
    const code = coder.byte(stream, value === guess ? 0 : near)
    if (code === 0) value = guess
    else if (code === FAR_TYPE) {
      const high = coder.unsigned(STREAM.farTypesHigh, value >>> 8)
      value = high * 256 + coder.byte(STREAM.farTypesLow, value & 0xff)
    } else value = id - ((code & 1) === 0 ? code >>> 1 : -((code - 1) >>> 1))
    if (!(value >= 0 && value <= this.#types)) invalid(`type ${value} of ${this.#types}`)
    words[at] = value
  }
}
