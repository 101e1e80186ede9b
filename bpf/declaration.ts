/*
 * The declaration of a type: what its own text says. That is its kind, name, size, and its elements with their names and
 * values; other types count down to the nearest name. A pointer to task_struct has the same declaration in two kernels,
 * whatever the members of task_struct are. So 99.9 % of the types of a kernel have equal declarations in the next one.
 *
 * A declaration has a hash of 64 bits. It depends on nothing but the text, so it is the same in all BTFs of either byte
 * order. It is not cryptographic: who believes a hash compares the types.
 */

import { ELEMENTS, HEAD_WORDS } from './delta-record.ts'
import type { BtfWords } from './delta-words.ts'
import { infoFlag, infoKind, infoVlen, KIND, KINDS } from './kind.ts'

/** Hashes of declarations by id, in two halves. */
export interface DeclarationHashes {
  readonly low: Int32Array
  readonly high: Int32Array
}

/** Anonymous types within each other. What is deeper, or contains itself, counts as nothing. */
const MAX_DEPTH = 64

/** Mixes a word into half a hash (MurmurHash3's round). */
function mixed(hash: number, word: number): number {
  let mix = Math.imul(word, 0xcc9e2d51)
  mix = Math.imul((mix << 15) | (mix >>> 17), 0x1b873593)
  const turned = hash ^ mix
  return (Math.imul((turned << 13) | (turned >>> 19), 5) + 0xe6546b64) | 0
}

/** Ends half a hash (MurmurHash3's finalizer). */
function ended(hash: number): number {
  let end = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  end = Math.imul(end ^ (end >>> 13), 0xc2b2ae35)
  return end ^ (end >>> 16)
}

/** Hashes of the strings of a BTF by index. */
export function hashStrings({ text, starts }: BtfWords): DeclarationHashes {
  const low = new Int32Array(starts.length)
  const high = new Int32Array(starts.length)
  for (let i = 1; i < starts.length; i++) {
    const end = i + 1 < starts.length ? starts[i + 1]! : text.length
    hashInto(text, starts[i]!, end - 1, low, high, i)
  }
  return { low, high }
}

/** Hashes the bytes from `start` to `end` into an element of both halves. */
export function hashInto(
  text: Uint8Array,
  start: number,
  end: number,
  low: Int32Array,
  high: Int32Array,
  into: number,
): void {
  let [a, b] = [0x811c9dc5 | 0, 0x9747b28c | 0]
  for (let at = start; at < end; at++) {
    const byte = text[at]!
    a = Math.imul(a ^ byte, 0x01000193) // FNV-1a
    b = Math.imul(b ^ byte, 0x5bd1e995)
    b ^= b >>> 15
  }
  low[into] = ended(a)
  high[into] = ended(b)
}

/**
 * Hashes of the declarations of a BTF, with the hashes of its strings. With `sizeOf`, which gives the bytes of a type by
 * id, a declaration also says how large its members are: those of named types may grow without moving another.
 */
export function hashDeclarations(
  btf: BtfWords,
  strings: DeclarationHashes,
  sizeOf?: (id: number) => number,
): DeclarationHashes {
  return new DeclarationHasher(btf, strings, sizeOf).all()
}

/** Kinds that refer to a type of any size. */
const WITHOUT_SIZE: ReadonlySet<number> = new Set([KIND.PTR, KIND.FUNC, KIND.FUNC_PROTO])

const UNKNOWN = 0
const BEGUN = 1
const KNOWN = 2

class DeclarationHasher {
  readonly #words: Int32Array
  readonly #at: Int32Array
  readonly #strings: DeclarationHashes
  readonly #sizeOf: ((id: number) => number) | undefined
  readonly #low: Int32Array
  readonly #high: Int32Array
  readonly #states: Uint8Array
  #a = 0
  #b = 0

  constructor(
    { words, at }: BtfWords,
    strings: DeclarationHashes,
    sizeOf: ((id: number) => number) | undefined,
  ) {
    this.#sizeOf = sizeOf
    this.#words = words
    this.#at = at
    this.#strings = strings
    this.#low = new Int32Array(at.length - 1)
    this.#high = new Int32Array(at.length - 1)
    this.#states = new Uint8Array(at.length - 1)
    this.#states[0] = KNOWN // void
  }

  all(): DeclarationHashes {
    for (let id = 1; id < this.#states.length; id++) {
      if (this.#states[id] === UNKNOWN) this.#hash(id, 0)
    }
    return { low: this.#low, high: this.#high }
  }

  #mix(word: number): void {
    this.#a = mixed(this.#a, word)
    this.#b = mixed(this.#b, word ^ 0x5555_5555)
  }

  #mixName(index: number): void {
    this.#a = mixed(this.#a, this.#strings.low[index]!)
    this.#b = mixed(this.#b, this.#strings.high[index]!)
  }

  /** Mixes in what a reference says: the kind and name of a type, or of one without name its declaration. */
  #mixType(id: number, depth: number, sized: boolean): void {
    const start = this.#at[id]!
    const name = id === 0 ? 0 : this.#words[start]!
    if (name !== 0) {
      const info = this.#words[start + 1]!
      const kind = infoKind(info)
      this.#mix(kind + 1)
      this.#mixName(name)
      if (this.#sizeOf) {
        // a forward declaration is of a struct or of a union
        if (kind === KIND.FWD) this.#mix(infoFlag(info) ? 1 : 0)
        if (sized) this.#mix(this.#sizeOf(id))
      }
      return
    }
    if (this.#states[id] === UNKNOWN && depth < MAX_DEPTH) {
      const [a, b] = [this.#a, this.#b]
      this.#hash(id, depth + 1)
      this.#a = a
      this.#b = b
    }
    const known = this.#states[id] === KNOWN
    this.#a = mixed(this.#a, known ? this.#low[id]! : -1)
    this.#b = mixed(this.#b, known ? this.#high[id]! : -1)
  }

  #hash(id: number, depth: number): void {
    const words = this.#words
    this.#states[id] = BEGUN
    let at = this.#at[id]!
    const info = words[at + 1]!
    const kind = infoKind(info)
    this.#a = info
    this.#b = ~info
    this.#mixName(words[at]!)
    const { third, ids } = KINDS[kind]!
    const sized = !WITHOUT_SIZE.has(kind)
    if (third !== 'type') this.#mix(words[at + 2]!)
    for (let i = 0; i < ids.length; i++) this.#mixType(words[at + ids[i]! / 4]!, depth, sized)
    // the payload's other words: that of an ARRAY begins with its two references
    for (let word = third === 'unused' && ids.length > 0 ? 5 : 3; word < HEAD_WORDS[kind]!; word++)
      this.#mix(words[at + word]!)
    const shape = ELEMENTS[kind]
    if (shape) {
      at += HEAD_WORDS[kind]!
      const { words: width, name, id: type, value } = shape
      for (let left = infoVlen(info); left > 0; left--, at += width) {
        if (name >= 0) this.#mixName(words[at + name]!)
        if (type >= 0) this.#mixType(words[at + type]!, depth, sized)
        if (value >= 0) for (let word = value; word < width; word++) this.#mix(words[at + word]!)
      }
    }
    this.#low[id] = ended(this.#a)
    this.#high[id] = ended(this.#b)
    this.#states[id] = KNOWN
  }
}
