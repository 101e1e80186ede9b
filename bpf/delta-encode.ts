/*
 * Makes deltas. The types of the child are matched with those of the parent; what translates word for word costs
 * nothing, and the rest is written as changed or new. The delta is applied before it is returned: what does not give
 * the child back is stored as it is.
 */

import type { Btf } from './btf.ts'
import { DeltaChain, EDIT, MODIFY } from './delta-decode.ts'
import { type HashedBtf, hashedBtf, type Matches, matchBtf } from './delta-match.ts'
import { STRING_ORDER, TYPE_ORDER, writeOrder } from './delta-order.ts'
import { ELEMENTS, type ElementShape, HEAD_WORDS, RecordCoder } from './delta-record.ts'
import { DeltaWriter, plainDelta, STREAM } from './delta-stream.ts'
import { type BtfWords, NO_WORDS, wordsOfBtf } from './delta-words.ts'
import { infoFlag, infoKind, infoVlen, KIND, KINDS } from './kind.ts'

/** The parent of a root. */
const NOTHING = hashedBtf(NO_WORDS)!

/**
 * A delta that makes `child`, any bytes, of `parent`; without a parent, a root. `applyDelta` reverses it. The delta is not
 * compressed; its keeper compresses it, best with zstd. A child or parent that is odd (see `wordsOfBtf`) gives a delta
 * that needs no parent.
 */
export function encodeDelta(child: Uint8Array, parent?: Uint8Array | Btf): Uint8Array {
  const to = hashed(child)
  if (!to) return plainDelta(child)
  const from = parent && hashed(parent)
  const delta = new DeltaEncoder(to, from ?? NOTHING).encode(child.length)
  const chain = new DeltaChain(from?.btf, { maxSize: child.length })
  chain.apply(delta)
  return sameBytes(chain.bytes(), child) ? delta : plainDelta(child)
}

function hashed(input: Uint8Array | Btf): HashedBtf | undefined {
  const words = wordsOfBtf(input)
  return words && hashedBtf(words)
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

class DeltaEncoder {
  readonly #child: BtfWords
  readonly #parent: BtfWords
  readonly #matches: Matches
  /** by id, and by index: the parent's number of a type and of a string; -1 for what is new; 0 for void and '' */
  readonly #typeIn: Int32Array
  readonly #stringIn: Int32Array
  /** the final order of the strings by that of their use; undefined where the delta has it at once */
  readonly #byUse: Int32Array | undefined
  readonly #writer = new DeltaWriter()
  readonly #records: RecordCoder

  constructor(to: HashedBtf, from: HashedBtf) {
    const matches = matchBtf(to, from)
    const [child, parent] = [to.btf, from.btf]
    this.#parent = parent
    const text = this.#writer
    for (let i = 1; i < child.starts.length; i++) {
      if (matches.strings[i] !== 0) continue
      const end = i + 1 < child.starts.length ? child.starts[i + 1]! : child.text.length
      text.bytes(STREAM.text, child.text.subarray(child.starts[i]!, end))
    }
    const ordered = orderStrings(child, matches.strings, parent.starts.length - 1)
    this.#child = { ...child, words: ordered.words }
    this.#matches = { types: matches.types, strings: ordered.sources }
    this.#byUse = ordered.byUse
    this.#typeIn = inParent(matches.types)
    this.#stringIn = inParent(ordered.sources)
    const { sources } = ordered
    const fresh: number[] = []
    for (let i = 1; i < sources.length; i++) if (sources[i] === 0) fresh.push(i)
    const types = child.at.length - 2
    this.#records = new RecordCoder(this.#writer, types, sources.length - 1, Int32Array.from(fresh))
  }

  /** The delta, for a child of `size` bytes. */
  encode(size: number): Uint8Array {
    const writer = this.#writer
    const { types, strings } = this.#matches
    const [child, parent] = [this.#child, this.#parent]
    writeOrder(writer, STRING_ORDER, parent.starts.length - 1, strings)
    writeOrder(writer, TYPE_ORDER, parent.at.length - 2, types)
    let last = 0
    for (let id = 1; id < types.length; id++) {
      const from = types[id]!
      if (from === 0) {
        this.#write(id)
        continue
      }
      if (this.#translates(id, from)) continue
      const aligned = this.#aligned(id, from)
      writer.unsigned(STREAM.changed, (id - last) * 2 + (aligned ? 0 : 1))
      last = id
      if (aligned) this.#edit(id, from, aligned)
      else this.#write(id)
    }
    if (this.#byUse) writeOrder(writer, STRING_ORDER, strings.length - 1, this.#byUse)
    return writer.finish({
      ...{ plain: false, byteOrder: child.byteOrder, byUse: this.#byUse !== undefined, size },
      ...{ types: types.length - 1, strings: strings.length - 1 },
      ...{ parentTypes: parent.at.length - 2, parentStrings: parent.starts.length - 1 },
    })
  }

  /** Writes the whole record of a type. */
  #write(id: number): void {
    const { words, at } = this.#child
    const [start, end] = [at[id]!, at[id + 1]!]
    this.#records.reserve(end - start)
    this.#records.words.set(words.subarray(start, end))
    this.#records.record(id)
  }

  /** True if a record is that of the parent, with all names and references translated. */
  #translates(id: number, other: number): boolean {
    const { words, at } = this.#child
    const { words: others, at: otherAt } = this.#parent
    const [types, strings] = [this.#typeIn, this.#stringIn]
    let to = at[id]!
    let from = otherAt[other]!
    const length = at[id + 1]! - to
    if (length !== otherAt[other + 1]! - from) return false
    if (words[to + 1] !== others[from + 1]) return false
    if (strings[words[to]!] !== others[from]) return false
    const kind = infoKind(words[to + 1]!)
    const third = words[to + 2]!
    if ((KINDS[kind]!.third === 'type' ? types[third]! : third) !== others[from + 2]) return false
    const head = HEAD_WORDS[kind]!
    for (let word = 3; word < head; word++) {
      const value = words[to + word]!
      const translated = kind === KIND.ARRAY && word < 5 ? types[value]! : value
      if (translated !== others[from + word]) return false
    }
    const shape = ELEMENTS[kind]
    if (!shape) return true
    const { words: width, name, id: type, value } = shape
    const end = to + length
    to += head
    from += head
    for (; to < end; to += width, from += width) {
      if (name >= 0 && strings[words[to + name]!] !== others[from + name]) return false
      if (type >= 0 && types[words[to + type]!] !== others[from + type]) return false
      if (value < 0) continue
      for (let word = value; word < width; word++) {
        if (words[to + word] !== others[from + word]) return false
      }
    }
    return true
  }

  /** For each element of a changed type the parent's element that it continues, or -1; undefined to write it anew. */
  #aligned(id: number, other: number): Int32Array | undefined {
    const { words, at } = this.#child
    const { words: others, at: otherAt } = this.#parent
    const [types, strings] = [this.#typeIn, this.#stringIn]
    const [to, from] = [at[id]!, otherAt[other]!]
    const kind = infoKind(words[to + 1]!)
    const shape = ELEMENTS[kind]
    if (!shape || strings[words[to]!] !== others[from]) return undefined
    if (kind !== infoKind(others[from + 1]!)) return undefined
    if (infoFlag(words[to + 1]!) !== infoFlag(others[from + 1]!)) return undefined
    const head = HEAD_WORDS[kind]!
    // elements continue those with the same name; without a name, those of the same type
    const key = (name: number, type: number) => (name > 0 ? name : -1 - type)
    const places = new Map<number, number[]>()
    for (let i = infoVlen(others[from + 1]!) - 1; i >= 0; i--) {
      const element = from + head + i * shape.words
      const name = shape.name < 0 ? 0 : others[element + shape.name]!
      const where = key(name, shape.id < 0 ? 0 : others[element + shape.id]!)
      const known = places.get(where)
      if (known) known.push(i)
      else places.set(where, [i])
    }
    const sources = new Int32Array(infoVlen(words[to + 1]!)).fill(-1)
    for (let i = 0; i < sources.length; i++) {
      const element: number = to + head + i * shape.words
      const name = shape.name < 0 ? 0 : words[element + shape.name]!
      // a new name or type continues nothing
      if (strings[name]! < 0) continue
      const type = shape.id < 0 ? 0 : words[element + shape.id]!
      if (name === 0 && types[type]! < 0) continue
      sources[i] = places.get(key(strings[name]!, types[type]!))?.pop() ?? -1
    }
    keepRising(sources)
    return sources.some((source) => source >= 0) ? sources : undefined
  }

  /** Writes the changes of a record. */
  #edit(id: number, other: number, sources: Int32Array): void {
    const writer = this.#writer
    const records = this.#records
    const { words, at } = this.#child
    const { words: others, at: otherAt } = this.#parent
    const types = this.#typeIn
    const [to, from] = [at[id]!, otherAt[other]!]
    const info = words[to + 1]!
    const kind = infoKind(info)
    const shape: ElementShape = ELEMENTS[kind]!
    if (kind !== KIND.FUNC_PROTO)
      writer.signed(STREAM.edits, (words[to + 2]! - others[from + 2]!) | 0)
    else if (types[words[to + 2]!] === others[from + 2]) writer.unsigned(STREAM.edits, 0)
    else {
      writer.unsigned(STREAM.edits, 1)
      records.words[2] = words[to + 2]!
      records.type(STREAM.results, 2, id, 0)
    }
    const head = HEAD_WORDS[kind]!
    const width = shape.words
    const otherCount = infoVlen(others[from + 1]!)
    let next = 0
    let shift = 0
    let copies = 0
    const put = (operation: number, count: number) =>
      writer.unsigned(STREAM.edits, count * 4 + operation)
    const flush = () => {
      if (copies > 0) put(EDIT.COPY, copies)
      copies = 0
    }
    for (let i = 0; i < sources.length; ) {
      const element: number = to + head + i * width
      const source = sources[i]!
      if (source < 0) {
        flush()
        let last = i
        while (last < sources.length && sources[last]! < 0) last++
        put(EDIT.INSERT, last - i)
        this.#insert(id, shape, to + head, i, last)
        i = last
        continue
      }
      if (source > next) {
        flush()
        put(EDIT.SKIP, source - next)
      }
      next = source + 1
      const old = from + head + source * width
      const change = this.#change(shape, element, old, shift)
      i++
      if (change === 0) {
        copies++
        continue
      }
      flush()
      put(EDIT.MODIFY, change)
      if (change & MODIFY.SHIFT) {
        const moved = (words[element + shape.value]! - others[old + shape.value]!) | 0
        writer.signed(STREAM.edits, (moved - shift) | 0)
        shift = moved
      }
      if (change & MODIFY.TYPE) {
        records.words[0] = words[element + shape.id]!
        records.type(STREAM.memberTypes, 0, id, -1)
      }
      if (change & MODIFY.LAST) writer.signed(STREAM.edits, words[element + width - 1]!)
    }
    // the end copies what is left, so the last copies need not be written
    if (next < otherCount) {
      flush()
      put(EDIT.SKIP, otherCount - next)
    }
    writer.unsigned(STREAM.edits, 0)
  }

  /** The words that differ in an element that continues another. */
  #change(shape: ElementShape, element: number, old: number, shift: number): number {
    const { words } = this.#child
    const others = this.#parent.words
    const types = this.#typeIn
    let change = 0
    if (shape.id >= 0 && types[words[element + shape.id]!] !== others[old + shape.id]) {
      change |= MODIFY.TYPE
    }
    if (shape.value < 0) return change
    if (words[element + shape.value] !== ((others[old + shape.value]! + shift) | 0)) {
      change |= MODIFY.SHIFT
    }
    const last = shape.words - 1
    if (last !== shape.value && words[element + last] !== others[old + last]) change |= MODIFY.LAST
    return change
  }

  /** Writes new elements of a record whose elements begin at the word `first`. */
  #insert(id: number, shape: ElementShape, first: number, from: number, to: number): void {
    const { words, at } = this.#child
    const records = this.#records
    const { words: width } = shape
    const info = words[at[id]! + 1]!
    records.words.fill(0, 0, width)
    if (from > 0) {
      for (let i = 0; i < width; i++) {
        if (i !== shape.name && i !== shape.id)
          records.words[i] = words[first + (from - 1) * width + i]!
      }
    }
    for (let i = from; i < to; i++) {
      const element = first + i * width
      records.words.set(words.subarray(element, element + width), width)
      records.element(infoKind(info), infoFlag(info), id, width, i === 0 ? -1 : 0)
      records.words.copyWithin(0, width, width * 2)
    }
  }
}

/** The strings of a child in the order in which its delta has them first. */
interface OrderedStrings {
  /** the child's words, with the indexes of that order */
  readonly words: Int32Array
  /** by index in that order: the parent's index, or 0 for a new string */
  readonly sources: Int32Array
  /** by final index: the place in the order of first use; undefined where that order is final */
  readonly byUse: Int32Array | undefined
}

/** An order by use is taken where it saves at least so many bytes: it makes decoding slower. */
const WORTH_A_WALK = 2000

/**
 * Chooses how to tell the order of the strings. Usually it follows the parent's. But where the types are shuffled, so are
 * the strings, and what tells their order is their first use. Then a delta has the strings that stay in the parent's
 * order, then the new ones; and, after the types, the final order in terms of that of use.
 */
function orderStrings(child: BtfWords, strings: Int32Array, parents: number): OrderedStrings {
  const { words } = child
  const direct = { words, sources: strings, byUse: undefined }
  const length = orderLength(strings, parents)
  if (length < WORTH_A_WALK) return direct
  const provisional = provisionalOrder(strings, parents)
  const sources = new Int32Array(strings.length)
  for (let i = 1; i < strings.length; i++) sources[provisional[i]!] = strings[i]!
  const renamed = words.slice()
  const used = new Int32Array(strings.length)
  let count = 0
  forNames(child, (word) => {
    const index = words[word]!
    renamed[word] = provisional[index]!
    if (index !== 0 && used[index] === 0) used[index] = ++count
  })
  // what no type uses comes last, in the provisional order
  const rest = [...used.keys()].filter((i) => i > 0 && used[i] === 0)
  for (const i of rest.sort((a, b) => provisional[a]! - provisional[b]!)) used[i] = ++count
  const byUse = used.subarray()
  const saved = length - orderLength(sources, parents) - orderLength(byUse, byUse.length - 1)
  return saved < WORTH_A_WALK ? direct : { words: renamed, sources, byUse }
}

/** By index: the place when those from the parent come first, in its order, and then the new ones. */
function provisionalOrder(strings: Int32Array, parents: number): Int32Array {
  const children = new Int32Array(parents + 1)
  for (let i = 1; i < strings.length; i++) if (strings[i] !== 0) children[strings[i]!] = i
  const places = new Int32Array(strings.length)
  let count = 0
  for (const child of children) if (child !== 0) places[child] = ++count
  for (let i = 1; i < strings.length; i++) if (strings[i] === 0) places[i] = ++count
  return places
}

/** Bytes of an order, not compressed. */
function orderLength(sources: Int32Array, parents: number): number {
  const writer = new DeltaWriter()
  writeOrder(writer, STRING_ORDER, parents, sources)
  return writer.length
}

/** Calls back with each word of a BTF that is a name, in order. */
function forNames({ words, at }: BtfWords, call: (word: number) => void): void {
  for (let id = 1; id < at.length - 1; id++) {
    const start = at[id]!
    call(start)
    const kind = infoKind(words[start + 1]!)
    const shape = ELEMENTS[kind]
    if (!shape || shape.name < 0) continue
    const end = at[id + 1]!
    for (let word = start + HEAD_WORDS[kind]!; word < end; word += shape.words) call(word)
  }
}

function inParent(matches: Int32Array): Int32Array {
  return matches.map((match, i) => (match === 0 && i !== 0 ? -1 : match))
}

/** Sets all to -1 but a longest rising sequence of those that are not (patience sorting). */
function keepRising(sources: Int32Array): void {
  const tails: number[] = []
  const before = new Int32Array(sources.length).fill(-1)
  for (let i = 0; i < sources.length; i++) {
    const source = sources[i]!
    if (source < 0) continue
    let [low, high] = [0, tails.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sources[tails[middle]!]! < source) low = middle + 1
      else high = middle
    }
    before[i] = low > 0 ? tails[low - 1]! : -1
    tails[low] = i
  }
  const kept = new Uint8Array(sources.length)
  for (let i = tails.at(-1) ?? -1; i >= 0; i = before[i]!) kept[i] = 1
  for (let i = 0; i < sources.length; i++) if (kept[i] === 0) sources[i] = -1
}
