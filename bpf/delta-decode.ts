/*
 * Applies deltas. A `DeltaChain` keeps the types of a BTF as handles: a handle is a number that a type keeps through all
 * deltas, while its id changes. Records refer to handles of types and of strings, so an unchanged type costs a delta
 * nothing. Ids, offsets and bytes are made once, at the end. The ids and the order of strings are lists of handles.
 */

import type { Btf } from './btf.ts'
import { type ByteOrder, HOST_LITTLE, viewOf } from './bytes.ts'
import { readOrder, STRING_ORDER, TYPE_ORDER } from './delta-order.ts'
import { ELEMENTS, HEAD_WORDS, RecordCoder, wordsOfRecord } from './delta-record.ts'
import { DeltaReader, invalid, MAX_RESULT, STREAM } from './delta-stream.ts'
import { type BtfWords, NO_WORDS, wordsOfBtf } from './delta-words.ts'
import { BTF_HEADER_SIZE, BTF_MAGIC, BTF_VERSION } from './header.ts'
import { infoFlag, infoKind, infoVlen, KIND, KINDS } from './kind.ts'
import { ScratchLists } from './scratch-lists.ts'

export interface DeltaOptions {
  /** the largest result in bytes (default: 64 MiB); a larger one is refused before anything is made */
  readonly maxSize?: number
}

/**
 * The bytes that a delta makes of its parent; without a parent, of a root. The delta is not compressed. A wrong parent is
 * not always noticed, so the caller checks the digest of the result. Errors: `invalid_delta`.
 */
export function applyDelta(
  delta: Uint8Array,
  parent?: Uint8Array | Btf,
  options: DeltaOptions = {},
): Uint8Array {
  const chain = new DeltaChain(parent, options)
  chain.apply(delta)
  return chain.bytes()
}

/** Tells whether a delta needs its parent: a root or a plain one does not. Errors: `invalid_delta`. */
export function needsParent(delta: Uint8Array): boolean {
  const { plain, parentTypes, parentStrings } = new DeltaReader(delta, MAX_RESULT).header
  return !plain && (parentTypes > 0 || parentStrings > 0)
}

/** The words of an edit operation's low bits; delta.md describes them. */
export const EDIT = { SKIP: 0, COPY: 1, INSERT: 2, MODIFY: 3 } as const
/** Bits of a modified element: its reference, the shift of values from here on, its last word. */
export const MODIFY = { TYPE: 1, SHIFT: 2, LAST: 4 } as const
const ANY_CHANGE = MODIFY.TYPE | MODIFY.SHIFT | MODIFY.LAST

/** An arena is large when it has so many times what was of use, and so much more. */
const GROWTH = 3
const GROWTH_SPARE = 2 ** 21

/**
 * The common part of a chain and its copies: records, strings, and the numbers of handles. All of it is only ever
 * appended to, so each chain may append, and a copy costs little.
 */
class Arena {
  words: Int32Array
  wordsEnd: number
  /** type handles that were given */
  types: number
  text: Uint8Array
  textEnd: number
  /** by handle of a string: where it begins in the text */
  starts: Int32Array
  /** string handles that were given */
  strings: number
  readonly scratch = new ScratchLists()
  /** how much of each it had when it was last known to be of use */
  #settled = { words: 0, types: 0, text: 0 }

  constructor({ words, at, text, starts }: BtfWords) {
    this.words = words
    this.wordsEnd = words.length
    this.types = at.length - 1
    this.text = text
    this.textEnd = text.length
    this.starts = starts
    this.strings = starts.length
    this.settle()
  }

  /** Takes all that there is for what is of use. */
  settle(): void {
    this.#settled = { words: this.wordsEnd, types: this.types, text: this.textEnd }
  }

  /** True if most of it may be of no use to any one chain. */
  isLarge(): boolean {
    const { words, types, text } = this.#settled
    const isOver = (end: number, first: number) => end > GROWTH * first + GROWTH_SPARE
    return isOver(this.wordsEnd, words) || isOver(this.types, types) || isOver(this.textEnd, text)
  }

  /** Makes room for a record behind the others. Returns its first word. */
  append(length: number): number {
    this.words = reserved(this.words, this.wordsEnd, length)
    const start = this.wordsEnd
    this.wordsEnd += length
    return start
  }

  /** Makes room for records of about so many words. */
  reserve(length: number): void {
    if (this.wordsEnd + length <= this.words.length) return
    const grown = new Int32Array(this.wordsEnd + length)
    grown.set(this.words.subarray(0, this.wordsEnd))
    this.words = grown
  }

  /** Appends `count` strings, each with its NUL. Returns the handle of the first; they follow each other. */
  addStrings(text: Uint8Array, count: number): number {
    if (this.textEnd + text.length > this.text.length) {
      const grown = new Uint8Array(Math.ceil((this.textEnd + text.length) * 1.25))
      grown.set(this.text.subarray(0, this.textEnd))
      this.text = grown
    }
    this.text.set(text, this.textEnd)
    this.starts = reserved(this.starts, this.strings, count)
    const first = this.strings
    let at = 0
    for (let i = 0; i < count; i++) {
      const end = text.indexOf(0, at)
      if (end < 0) invalid('the text of the new strings is cut off')
      this.starts[first + i] = this.textEnd + at
      at = end + 1
    }
    if (at !== text.length) invalid('text after the last new string')
    this.strings += count
    this.textEnd += text.length
    return first
  }

  /** The end of a string in the text, after its NUL. Strings lie one after another. */
  endOf(handle: number): number {
    return handle + 1 < this.strings ? this.starts[handle + 1]! : this.textEnd
  }
}

/** A BTF to which deltas are applied, one after another. After an error it refuses all calls. */
export class DeltaChain {
  readonly #maxSize: number
  /** the current BTF if it is odd, and so has no types */
  #plain: Uint8Array | undefined
  /** a delta failed, so what there is now is half of something */
  #broken = false
  #byteOrder: ByteOrder = 'little'
  #size: number | undefined
  #arena = new Arena(NO_WORDS)
  /** by handle: the word of the arena at which the record begins */
  #at: Int32Array = new Int32Array(1)
  /** by id: the handle */
  #order: Int32Array = new Int32Array(1)
  /** by index: the handle of a string */
  #strings: Int32Array = new Int32Array(1)

  /** A chain that begins with a BTF, or with nothing: then its first delta is a root. */
  constructor(parent?: Uint8Array | Btf | BtfWords, { maxSize = MAX_RESULT }: DeltaOptions = {}) {
    this.#maxSize = maxSize
    if (!parent) return
    const words = 'starts' in parent ? parent : wordsOfBtf(parent)
    if (words) this.#start(words)
    else this.#plain = parent instanceof Uint8Array ? parent : (parent as Btf).bytes
  }

  #start(btf: BtfWords): void {
    this.#plain = undefined
    this.#byteOrder = btf.byteOrder
    this.#size = undefined
    this.#arena = new Arena(btf)
    this.#at = btf.at.slice()
    this.#order = identity(btf.at.length - 1)
    this.#strings = identity(btf.starts.length)
  }

  /**
   * A chain of its own with the same BTF. It takes a megabyte for a distribution's kernel. What either appends stays in
   * memory as long as one of them does.
   */
  clone(): DeltaChain {
    this.#refuseBroken()
    this.#compact()
    const copy = new DeltaChain(undefined, { maxSize: this.#maxSize })
    copy.#plain = this.#plain
    copy.#byteOrder = this.#byteOrder
    copy.#size = this.#size
    copy.#arena = this.#arena
    copy.#at = this.#at.slice()
    copy.#order = this.#order
    copy.#strings = this.#strings
    return copy
  }

  /** Applies one delta. Errors: `invalid_delta`. */
  apply(delta: Uint8Array): void {
    this.#refuseBroken()
    this.#broken = true
    this.#apply(new DeltaReader(delta, this.#maxSize))
    this.#broken = false
  }

  #refuseBroken(): void {
    if (this.#broken) invalid('an earlier delta of the chain failed')
  }

  #apply(reader: DeltaReader): void {
    const { header } = reader
    if (header.plain) {
      this.#start(NO_WORDS)
      this.#plain = new Uint8Array(reader.plain())
      const words = wordsOfBtf(this.#plain)
      if (words) this.#start(words)
      return
    }
    const parentless = header.parentTypes === 0 && header.parentStrings === 0
    if (parentless) this.#start(NO_WORDS)
    const types = this.#order.length - 1
    const strings = this.#strings.length - 1
    if (this.#plain || header.parentTypes !== types || header.parentStrings !== strings) {
      invalid(
        `made for a parent of ${header.parentTypes} types and ${header.parentStrings} strings, not ${types} and ${strings}`,
      )
    }
    // no encoder continues odd BTF, so only a hostile chain could grow without end
    if (!this.#compact()) invalid('it continues BTF that is odd')
    // a delta has a byte or more for most words, so no header alone makes it large
    if (parentless) this.#arena.reserve(Math.min(header.size >>> 2, reader.length))
    const newStrings = this.#readStrings(reader)
    this.#readTypes(reader, newStrings)
    if (header.byUse) this.#orderByUse(reader)
    reader.finish()
    if (parentless) this.#arena.settle()
    this.#byteOrder = header.byteOrder
    this.#size = header.size
  }

  #readStrings(reader: DeltaReader): Int32Array {
    const { strings } = reader.header
    const { values, fresh } = readOrder(
      reader,
      STRING_ORDER,
      this.#strings,
      strings,
      this.#arena.scratch,
    )
    let handle = this.#arena.addStrings(reader.rest(STREAM.text), fresh.length)
    for (const index of fresh) values[index] = handle++
    this.#strings = values
    return fresh
  }

  #readTypes(reader: DeltaReader, newStrings: Int32Array): void {
    const { types, strings } = reader.header
    const { values, fresh } = readOrder(reader, TYPE_ORDER, this.#order, types, this.#arena.scratch)
    const arena = this.#arena
    this.#at = reserved(this.#at, arena.types, fresh.length)
    for (const id of fresh) values[id] = arena.types++
    this.#order = values
    const records = new RecordCoder(reader, types, strings, newStrings, arena.scratch)
    let next = 0
    for (let id = 0; !reader.ended(STREAM.changed); ) {
      const code = reader.unsigned(STREAM.changed, 0)
      id += code >>> 1
      if (code < 2 || id > types) invalid(`type ${id} is changed, of ${types}`)
      for (; next < fresh.length && fresh[next]! < id; next++) this.#read(records, fresh[next]!)
      if (fresh[next] === id) invalid(`type ${id} is both new and changed`)
      if (code & 1) this.#read(records, id)
      else this.#edit(reader, records, id)
    }
    for (; next < fresh.length; next++) this.#read(records, fresh[next]!)
  }

  /** Puts the strings into the order of their first use, and then into the order that the delta tells of it. */
  #orderByUse(reader: DeltaReader): void {
    const strings = this.#strings
    // handles of strings that the types may use: those of the delta, each once
    const open = new Uint8Array(this.#arena.strings)
    for (let index = 1; index < strings.length; index++) open[strings[index]!] = 1
    const used = this.#arena.scratch.take('used', strings.length)
    let count = 1
    const use = (handle: number) => {
      if (open[handle] === 0) return
      open[handle] = 0
      used[count++] = handle
    }
    const { words } = this.#arena
    for (let id = 1; id < this.#order.length; id++) {
      const start = this.#at[this.#order[id]!]!
      use(words[start]!)
      const info = words[start + 1]!
      const shape = ELEMENTS[infoKind(info)]
      if (!shape || shape.name < 0) continue
      const end = start + wordsOfRecord(info)
      for (let at = start + HEAD_WORDS[infoKind(info)]!; at < end; at += shape.words)
        use(words[at]!)
    }
    for (let index = 1; index < strings.length; index++) use(strings[index]!)
    const { values, fresh } = readOrder(
      reader,
      STRING_ORDER,
      used,
      strings.length - 1,
      this.#arena.scratch,
    )
    if (fresh.length > 0) invalid('new strings in the order of use')
    this.#strings = values
  }

  /** Reads the record of a type. */
  #read(records: RecordCoder, id: number): void {
    const length = records.record(id)
    const source = records.words
    const start = this.#arena.append(length)
    const { words } = this.#arena
    for (let i = 0; i < length; i++) words[start + i] = source[i]!
    const kind = infoKind(source[1]!)
    words[start] = this.#strings[source[0]!]!
    if (IS_ID[kind] === 1) words[start + 2] = this.#order[source[2]!]!
    else if (kind === KIND.ARRAY) {
      words[start + 3] = this.#order[source[3]!]!
      words[start + 4] = this.#order[source[4]!]!
    }
    const shape = ELEMENTS[kind]
    if (shape) {
      for (let at = HEAD_WORDS[kind]!; at < length; at += shape.words) {
        this.#toHandles(start + at, shape.name, shape.id)
      }
    }
    this.#at[this.#order[id]!] = start
  }

  /** Makes handles of the name and the reference of an element. */
  #toHandles(at: number, name: number, id: number): void {
    const { words } = this.#arena
    if (name >= 0) words[at + name] = this.#strings[words[at + name]!]!
    if (id >= 0) words[at + id] = this.#order[words[at + id]!]!
  }

  /** Reads the changes of a record, element by element. */
  #edit(reader: DeltaReader, records: RecordCoder, id: number): void {
    const arena = this.#arena
    const handle = this.#order[id]!
    const old = this.#at[handle]!
    const info = arena.words[old + 1]!
    const kind = infoKind(info)
    const flag = infoFlag(info)
    const shape = ELEMENTS[kind] ?? invalid(`type ${id} has no elements to change`)
    const head = HEAD_WORDS[kind]!
    const start = arena.append(head)
    for (let i = 0; i < head; i++) arena.words[start + i] = arena.words[old + i]!
    if (kind !== KIND.FUNC_PROTO) arena.words[start + 2]! += reader.signed(STREAM.edits, 0)
    else if (reader.unsigned(STREAM.edits, 0) !== 0) {
      records.type(STREAM.results, 2, id, 0)
      arena.words[start + 2] = this.#order[records.words[2]!]!
    }
    const { words: width, value } = shape
    const end = old + head + infoVlen(info) * width
    let from = old + head
    let shift = 0
    const copy = (count: number) => {
      const at = arena.append(count * width)
      const { words } = arena
      words.copyWithin(at, from, from + count * width)
      from += count * width
      if (value < 0 || shift === 0) return
      for (let word = at + value; word < arena.wordsEnd; word += width) words[word]! += shift
    }
    for (;;) {
      const code = reader.unsigned(STREAM.edits, 0)
      const count = code >>> 2
      const left = (end - from) / width
      if (code === 0) {
        copy(left)
        break
      }
      if (count === 0) invalid(`unknown edit ${code}`)
      switch (code & 3) {
        case EDIT.SKIP:
          if (count > left) invalid(`${count} elements to skip, of ${left}`)
          from += count * width
          break
        case EDIT.COPY:
          if (count > left) invalid(`${count} elements to copy, of ${left}`)
          copy(count)
          break
        case EDIT.INSERT: {
          // the element before, without its name and type, which have no numbers in this delta
          const before = records.words
          before.fill(0, 0, width)
          const last = arena.wordsEnd - width
          if (last >= start + head) {
            for (let i = 0; i < width; i++) {
              if (i !== shape.name && i !== shape.id) before[i] = arena.words[last + i]!
            }
          }
          for (let i = 0; i < count; i++) {
            records.element(kind, flag, id, width, last < start + head && i === 0 ? -1 : 0)
            const at = arena.append(width)
            for (let word = 0; word < width; word++) {
              arena.words[at + word] = records.words[width + word]!
            }
            this.#toHandles(at, shape.name, shape.id)
            records.words.copyWithin(0, width, width * 2)
          }
          break
        }
        default: {
          if (left === 0) invalid('an element to change, of none')
          if (count > ANY_CHANGE) invalid(`unknown change ${count}`)
          if (count & (MODIFY.SHIFT | MODIFY.LAST) && value < 0)
            invalid('a value to change, of none')
          if (count & MODIFY.SHIFT) shift = (shift + reader.signed(STREAM.edits, 0)) | 0
          copy(1)
          const at = arena.wordsEnd - width
          if (count & MODIFY.TYPE) {
            if (shape.id < 0) invalid('an element without a type to change')
            records.type(STREAM.memberTypes, 0, id, -1)
            arena.words[at + shape.id] = this.#order[records.words[0]!]!
          }
          if (count & MODIFY.LAST) {
            const word = at + width - 1
            arena.words[word] = reader.signed(STREAM.edits, 0)
          }
        }
      }
    }
    const vlen = (arena.wordsEnd - start - head) / width
    if (vlen > 0xffffff) invalid(`a type with ${vlen} elements`)
    arena.words[start + 1] = (info & 0xff000000) | vlen
    this.#at[handle] = start
  }

  /** Takes an arena of its own, with what is valid, once there may be much else in it. False for BTF that is odd. */
  #compact(): boolean {
    if (!this.#arena.isLarge()) return true
    const words = wordsOfBtf(this.#encode())
    if (words) this.#start(words)
    return words !== undefined
  }

  /** Words of all records. */
  #countWords(): number {
    const { words } = this.#arena
    let count = 0
    for (let id = 1; id < this.#order.length; id++) {
      count += wordsOfRecord(words[this.#at[this.#order[id]!]! + 1]!)
    }
    return count
  }

  /** The bytes of the BTF as it is now. Errors: `invalid_delta`. */
  bytes(): Uint8Array {
    this.#refuseBroken()
    return this.#encode()
  }

  #encode(): Uint8Array {
    if (this.#plain) return new Uint8Array(this.#plain)
    const { offsets, size: stringsSize } = this.#stringOffsets()
    const rest = BTF_HEADER_SIZE + stringsSize
    const size = this.#size ?? rest + this.#countWords() * 4
    const typesSize = size - rest
    if (typesSize < 0 || typesSize % 4 !== 0) invalid(`a result of ${size} bytes`)
    const bytes = new Uint8Array(size)
    const little = this.#byteOrder === 'little'
    const view = viewOf(bytes)
    view.setUint16(0, BTF_MAGIC, little)
    view.setUint8(2, BTF_VERSION)
    const header = [BTF_HEADER_SIZE, 0, typesSize, typesSize, stringsSize]
    header.forEach((field, i) => {
      view.setUint32(4 + i * 4, field, little)
    })
    const words = new Int32Array(bytes.buffer, BTF_HEADER_SIZE, typesSize >>> 2)
    this.#writeRecords(words, offsets)
    if (little !== HOST_LITTLE) swapWords(bytes, BTF_HEADER_SIZE, typesSize)
    this.#writeStrings(bytes.subarray(BTF_HEADER_SIZE + typesSize))
    return bytes
  }

  /** By handle: the offset of a string in the result; -1 for one that it does not have. */
  #stringOffsets(): { offsets: Int32Array; size: number } {
    const arena = this.#arena
    const offsets = arena.scratch.take('offsets', arena.strings, -1)
    offsets[0] = 0
    let size = 1
    for (let index = 1; index < this.#strings.length; index++) {
      const handle = this.#strings[index]!
      offsets[handle] = size
      size += arena.endOf(handle) - arena.starts[handle]!
    }
    return { offsets, size }
  }

  #writeStrings(target: Uint8Array): void {
    const arena = this.#arena
    const strings = this.#strings
    let at = 1
    for (let first = 1; first < strings.length; ) {
      // strings that follow each other in the text are copied at once
      let last = first
      while (last + 1 < strings.length && strings[last + 1] === strings[last]! + 1) last++
      const start = arena.starts[strings[first]!]!
      const end = arena.endOf(strings[last]!)
      target.set(arena.text.subarray(start, end), at)
      at += end - start
      first = last + 1
    }
  }

  #writeRecords(target: Int32Array, offsets: Int32Array): void {
    const ids = this.#arena.scratch.take('ids', this.#arena.types, -1)
    ids[0] = 0
    const order = this.#order
    for (let id = 1; id < order.length; id++) ids[order[id]!] = id
    const { words } = this.#arena
    // all ids and offsets OR-ed: negative if one is gone
    let all = 0
    let to = 0
    for (let id = 1; id < order.length; id++) {
      let from = this.#at[order[id]!]!
      const info = words[from + 1]!
      const kind = infoKind(info)
      const end = from + wordsOfRecord(info)
      const head = HEAD_WORDS[kind]!
      const name = offsets[words[from]!]!
      const third = IS_ID[kind] === 1 ? ids[words[from + 2]!]! : words[from + 2]!
      all |= name | (IS_ID[kind] === 1 ? third : 0)
      target[to] = name
      target[to + 1] = info
      target[to + 2] = third
      if (kind === KIND.ARRAY) {
        const element = ids[words[from + 3]!]!
        const index = ids[words[from + 4]!]!
        all |= element | index
        target[to + 3] = element
        target[to + 4] = index
        target[to + 5] = words[from + 5]!
      } else if (head > 3) target[to + 3] = words[from + 3]!
      from += head
      to += head
      if (from === end) continue
      // one loop for each shape of elements, which is faster than one with branches
      if (kind === KIND.FUNC_PROTO) {
        for (; from < end; from += 2, to += 2) {
          const offset = offsets[words[from]!]!
          const type = ids[words[from + 1]!]!
          all |= offset | type
          target[to] = offset
          target[to + 1] = type
        }
      } else if (kind === KIND.STRUCT || kind === KIND.UNION) {
        for (; from < end; from += 3, to += 3) {
          const offset = offsets[words[from]!]!
          const type = ids[words[from + 1]!]!
          all |= offset | type
          target[to] = offset
          target[to + 1] = type
          target[to + 2] = words[from + 2]!
        }
      } else if (kind === KIND.DATASEC) {
        for (; from < end; from += 3, to += 3) {
          const type = ids[words[from]!]!
          all |= type
          target[to] = type
          target[to + 1] = words[from + 1]!
          target[to + 2] = words[from + 2]!
        }
      } else {
        const width = ELEMENTS[kind]!.words // ENUM, ENUM64
        for (; from < end; from += width, to += width) {
          const offset = offsets[words[from]!]!
          all |= offset
          target[to] = offset
          target[to + 1] = words[from + 1]!
          if (width === 3) target[to + 2] = words[from + 2]!
        }
      }
    }
    if (all < 0) invalid('a reference to a type or string that is gone')
    if (to !== target.length) invalid(`${to} words of types: expected ${target.length}`)
  }
}

/** By kind: 1 where the third word is a reference. */
const IS_ID = Uint8Array.from(KINDS, ({ third }) => (third === 'type' ? 1 : 0))

/** Swaps the bytes of each word from `start` on. */
function swapWords(bytes: Uint8Array, start: number, length: number): void {
  const view = viewOf(bytes)
  for (let at = start; at < start + length; at += 4) {
    view.setUint32(at, view.getUint32(at, true), false)
  }
}

function identity(length: number): Int32Array<ArrayBuffer> {
  const numbers = new Int32Array(length)
  for (let i = 0; i < length; i++) numbers[i] = i
  return numbers
}

/** The numbers, or a longer copy, with room for `more` behind the first `used`. */
function reserved(numbers: Int32Array, used: number, more: number): Int32Array {
  if (used + more <= numbers.length) return numbers
  const grown = new Int32Array(Math.max(used + more, Math.ceil(used * 1.25)))
  grown.set(numbers.subarray(0, used))
  return grown
}
