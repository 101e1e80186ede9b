/*
 * The identity of a name in a BTF: all types that have the name, in the order of their ids, each as a record that holds
 * every word of it. A reference is the type that it leads to: a type without a name is written out, one with a name is
 * its kind, its name, and its place among the types of that kind and name. So what reads types by their names, and goes
 * on to the types that they refer to, reads the same in two BTFs in which all names that it has met have equal
 * identities. The only difference is the numbers of types. `type-trace.ts` tells which names a reader has met.
 *
 * Names without their flavours share an identity, since they are candidates of the same relocation. TYPE_TAGs count as
 * types without a name: thousands have the same one. Sections and DECL_TAGs have no identity.
 */
import type { Btf } from './btf.ts'
import { ELEMENTS, HEAD_WORDS } from './delta-record.ts'
import { type BtfWords, wordsOfBtf } from './delta-words.ts'
import { infoKind, infoVlen, KIND, KINDS, MAX_KINDS } from './kind.ts'
import { nameKey } from './name-key.ts'

/** The key of what holds for all types: byte order, and size of pointers. */
export const ALL_TYPES = 0

/** Types without a name within each other, and bytes of all records: 20 MB are usual. */
const MAX_DEPTH = 64
const MAX_BYTES = 256 * 1024 * 1024

/** Kinds whose types have identities. */
const IDENTIFIED: ReadonlySet<number> = new Set([
  ...[KIND.INT, KIND.STRUCT, KIND.UNION, KIND.ENUM, KIND.FWD, KIND.TYPEDEF],
  ...[KIND.FUNC, KIND.VAR, KIND.FLOAT, KIND.ENUM64],
])

/** True for kinds, by number, whose types are told by their names. */
export const isIdentified = (kind: number): boolean => IDENTIFIED.has(kind)

/** Gets the key of a name, and its identity as bytes, which are valid during the call only. */
export type IdentityReceiver = (key: number, identity: Uint8Array) => void

/**
 * Passes on the identity of each name. Returns false for BTF that has none: with anything odd about its format
 * (`wordsOfBtf`), or types that are nested too deeply.
 */
export function eachIdentity(btf: Btf, receive: IdentityReceiver): boolean {
  const words = wordsOfBtf(btf)
  if (!words) return false
  const environment = Uint8Array.of(btf.byteOrder === 'little' ? 0 : 1, btf.pointerSize)
  receive(ALL_TYPES, environment)
  try {
    new Identities(words).each(receive)
    return true
  } catch (error) {
    if (error instanceof TooLarge) return false
    throw error
  }
}

/** Keeps names that are made for it from crowding one place of a table. */
const SALT = (Math.random() * 2 ** 32) | 0

class TooLarge extends Error {}

/** What a reference begins with. */
const TO_NOTHING = 0
const TO_NAME = 1
const TO_RECORD = 2

class Identities {
  readonly #words: Int32Array
  readonly #at: Int32Array
  readonly #text: Uint8Array
  readonly #starts: Int32Array
  /** by id: the key of its name, and the next type of the same key; 0 for none */
  readonly #keys: Int32Array
  readonly #next: Int32Array
  /** by id: how many types of the same key and kind come before it */
  readonly #places: Int32Array
  readonly #counts = new Int32Array(MAX_KINDS)
  #out = new Uint8Array(1 << 16)
  #length = 0
  #left = MAX_BYTES

  constructor({ words, at, text, starts }: BtfWords) {
    this.#words = words
    this.#at = at
    this.#text = text
    this.#starts = starts
    const types = at.length - 1
    this.#keys = new Int32Array(types)
    this.#next = new Int32Array(types)
    this.#places = new Int32Array(types)
  }

  each(receive: IdentityReceiver): void {
    const first = this.#group()
    for (const id of first) if (id !== 0) this.#place(id)
    for (const id of first) {
      if (id === 0) continue
      this.#length = 0
      for (let one = id; one !== 0; one = this.#next[one]!) this.#record(one, 0)
      this.#left -= this.#length
      receive(this.#keys[id]!, this.#out.subarray(0, this.#length))
    }
  }

  /** Chains the types of each key, in order. Returns the first types, with zeros in between. */
  #group(): Int32Array {
    const { length } = this.#keys
    const first = new Int32Array(2 ** Math.ceil(Math.log2(length + 1) + 1))
    const mask = first.length - 1
    const keyOf = this.#nameKeys()
    for (let id = length - 1; id > 0; id--) {
      const at = this.#at[id]!
      const name = this.#words[at]!
      if (name === 0 || !isIdentified(infoKind(this.#words[at + 1]!))) continue
      const key = keyOf(name)
      this.#keys[id] = key
      let slot = (Math.imul(key ^ SALT, 0x9e3779b1) >>> 7) & mask
      while (first[slot] !== 0 && this.#keys[first[slot]!] !== key) slot = (slot + 1) & mask
      this.#next[id] = first[slot]!
      first[slot] = id
    }
    return first
  }

  /** The keys of names by index. */
  #nameKeys(): (index: number) => number {
    const [text, starts] = [this.#text, this.#starts]
    return (index) => {
      const start = starts[index]!
      const end = index + 1 < starts.length ? starts[index + 1]! : text.length
      return nameKey(text.subarray(start, end - 1))
    }
  }

  /** Numbers the types of one key by kind. */
  #place(first: number): void {
    if (this.#next[first] === 0) return
    const counts = this.#counts.fill(0)
    for (let id = first; id !== 0; id = this.#next[id]!)
      this.#places[id] = counts[this.#kind(id)]!++
  }

  #kind(id: number): number {
    return infoKind(this.#words[this.#at[id]! + 1]!)
  }

  #record(id: number, depth: number): void {
    const words = this.#words
    let at = this.#at[id]!
    const info = words[at + 1]!
    const kind = infoKind(info)
    this.#word(info)
    this.#name(words[at]!)
    const { third, ids } = KINDS[kind]!
    if (third !== 'type') this.#word(words[at + 2]!)
    for (const offset of ids) this.#reference(words[at + offset / 4]!, depth)
    // the payload's other words: that of an ARRAY begins with its two references
    const head = HEAD_WORDS[kind]!
    for (let word = kind === KIND.ARRAY ? 5 : 3; word < head; word++) this.#word(words[at + word]!)
    const shape = ELEMENTS[kind]
    if (!shape) return
    at += head
    for (let left = infoVlen(info); left > 0; left--, at += shape.words) {
      if (shape.name >= 0) this.#name(words[at + shape.name]!)
      if (shape.id >= 0) this.#reference(words[at + shape.id]!, depth)
      for (let word = 0; word < shape.words; word++)
        if (word !== shape.name && word !== shape.id) this.#word(words[at + word]!)
    }
  }

  #reference(id: number, depth: number): void {
    if (id === 0) {
      this.#byte(TO_NOTHING)
      return
    }
    const start = this.#at[id]!
    const name = this.#words[start]!
    const kind = this.#kind(id)
    if (name !== 0 && isIdentified(kind)) {
      this.#byte(TO_NAME)
      this.#byte(kind)
      this.#name(name)
      this.#word(this.#places[id]!)
      return
    }
    if (depth === MAX_DEPTH) throw new TooLarge()
    this.#byte(TO_RECORD)
    this.#record(id, depth + 1)
  }

  #room(bytes: number): void {
    const end = this.#length + bytes
    if (end > this.#left) throw new TooLarge()
    if (end <= this.#out.length) return
    const larger = new Uint8Array(2 * end)
    larger.set(this.#out)
    this.#out = larger
  }

  #byte(byte: number): void {
    this.#room(1)
    this.#out[this.#length++] = byte
  }

  #word(word: number): void {
    this.#room(4)
    const [out, at] = [this.#out, this.#length]
    out[at] = word
    out[at + 1] = word >>> 8
    out[at + 2] = word >>> 16
    out[at + 3] = word >>> 24
    this.#length = at + 4
  }

  /** Writes a name with its NUL. */
  #name(index: number): void {
    const text = this.#text
    const start = this.#starts[index]!
    const end = index + 1 < this.#starts.length ? this.#starts[index + 1]! : text.length
    this.#room(end - start)
    for (let at = start, to = this.#length; at < end; at++, to++) this.#out[to] = text[at]!
    this.#length += end - start
  }
}
