/*
 * Finds for each type of a child the type of its parent that it continues: first by equal declarations, then by kind and
 * name, then types without a name that continued types refer to at the same place. A wrong match only costs bytes: what
 * does not translate word for word is written as changed.
 */

import { type DeclarationHashes, hashDeclarations, hashStrings } from './declaration.ts'
import { ELEMENTS, HEAD_WORDS } from './delta-record.ts'
import type { BtfWords } from './delta-words.ts'
import { infoKind, infoVlen, KINDS } from './kind.ts'

export interface Matches {
  /** by id of the child: the parent's id, or 0 */
  readonly types: Int32Array
  /** by index of the child's strings: the parent's index, or 0 */
  readonly strings: Int32Array
}

/** BTF whose strings were hashed. */
export interface HashedBtf {
  readonly btf: BtfWords
  readonly strings: DeclarationHashes
  readonly table: HashTable
}

/** Hashes the strings of a BTF. Returns undefined if one occurs twice: such BTF is odd. */
export function hashedBtf(btf: BtfWords): HashedBtf | undefined {
  const strings = hashStrings(btf)
  const table = new HashTable(strings)
  for (let i = 1; i < btf.starts.length; i++) {
    // two strings with one hash are as rare as one that occurs twice
    const other = table.get(strings.low[i]!, strings.high[i]!)
    if (other !== i || endOf(btf, i) - btf.starts[i]! <= 1) return undefined
  }
  return { btf, strings, table }
}

/** Matches the types and strings of a child with those of its parent. */
export function matchBtf(child: HashedBtf, parent: HashedBtf): Matches {
  const strings = matchStrings(child, parent)
  const types = new TypeMatcher(child.btf, parent.btf, strings).match(child.strings, parent.strings)
  return { types, strings }
}

/** A table from hashes to the numbers that have them, each hash with its numbers in rising order. */
class HashTable {
  readonly #mask: number
  /** by slot: the first number; 0 where free */
  readonly #first: Int32Array
  /** by number: the next one with the same hash */
  readonly #next: Int32Array
  readonly #hashes: DeclarationHashes

  /** Puts in the numbers from 1 on for which `wanted` is true. */
  constructor(hashes: DeclarationHashes, wanted?: (number: number) => boolean) {
    const count = hashes.low.length
    let size = 16
    while (size < count * 2) size *= 2
    this.#mask = size - 1
    this.#first = new Int32Array(size)
    this.#next = new Int32Array(count)
    this.#hashes = hashes
    // from the end, so that the chains rise
    for (let i = count - 1; i > 0; i--) {
      if (wanted && !wanted(i)) continue
      const slot = this.#slot(hashes.low[i]!, hashes.high[i]!)
      this.#next[i] = this.#first[slot]!
      this.#first[slot] = i
    }
  }

  #slot(low: number, high: number): number {
    const { low: lows, high: highs } = this.#hashes
    let slot = low & this.#mask
    for (;;) {
      const first = this.#first[slot]!
      if (first === 0 || (lows[first] === low && highs[first] === high)) return slot
      slot = (slot + 1) & this.#mask
    }
  }

  /** The first number with a hash; 0 for none. */
  get(low: number, high: number): number {
    return this.#first[this.#slot(low, high)]!
  }

  /** Takes out the first number with a hash; 0 for none. */
  take(low: number, high: number): number {
    const slot = this.#slot(low, high)
    const first = this.#first[slot]!
    // the last one stays, as a mark that the slot is not free, and is given only once
    if (first === 0 || this.#next[first] === -1) return 0
    const next = this.#next[first]!
    if (next === 0) this.#next[first] = -1
    else this.#first[slot] = next
    return first
  }
}

function matchStrings(child: HashedBtf, parent: HashedBtf): Int32Array {
  const { low, high } = child.strings
  const matches = new Int32Array(low.length)
  for (let i = 1; i < matches.length; i++) {
    const other = parent.table.get(low[i]!, high[i]!)
    if (other !== 0 && sameString(child.btf, i, parent.btf, other)) matches[i] = other
  }
  return matches
}

function endOf({ starts, text }: BtfWords, index: number): number {
  return index + 1 < starts.length ? starts[index + 1]! : text.length
}

function sameString(a: BtfWords, i: number, b: BtfWords, j: number): boolean {
  const length = endOf(a, i) - a.starts[i]!
  if (length !== endOf(b, j) - b.starts[j]!) return false
  for (let at = 0; at < length; at++) {
    if (a.text[a.starts[i]! + at] !== b.text[b.starts[j]! + at]) return false
  }
  return true
}

class TypeMatcher {
  readonly #child: BtfWords
  readonly #parent: BtfWords
  readonly #strings: Int32Array
  readonly #matches: Int32Array
  /** by the parent's id: whether it has a child */
  readonly #continued: Uint8Array

  constructor(child: BtfWords, parent: BtfWords, strings: Int32Array) {
    this.#child = child
    this.#parent = parent
    this.#strings = strings
    this.#matches = new Int32Array(child.at.length - 1)
    this.#continued = new Uint8Array(parent.at.length - 1)
  }

  match(childStrings: DeclarationHashes, parentStrings: DeclarationHashes): Int32Array {
    this.#byHash(
      hashDeclarations(this.#child, childStrings),
      hashDeclarations(this.#parent, parentStrings),
    )
    const named = this.#byHash(
      hashNames(this.#child, childStrings),
      hashNames(this.#parent, parentStrings),
      true,
    )
    this.#byPlace(named)
    return this.#matches
  }

  /** Matches what has no match yet and equal hashes; with `named` only what has a name. Returns the child's ids. */
  #byHash(child: DeclarationHashes, parent: DeclarationHashes, named = false): number[] {
    const joined: number[] = []
    const isNamed = ({ words, at }: BtfWords, id: number) => !named || words[at[id]!] !== 0
    const table = new HashTable(
      parent,
      (id) => this.#continued[id] === 0 && isNamed(this.#parent, id),
    )
    for (let id = 1; id < this.#matches.length; id++) {
      if (this.#matches[id] !== 0 || !isNamed(this.#child, id)) continue
      const found = table.take(child.low[id]!, child.high[id]!)
      if (found === 0) continue
      this.#join(id, found)
      joined.push(id)
    }
    return joined
  }

  #join(child: number, parent: number): void {
    this.#matches[child] = parent
    this.#continued[parent] = 1
  }

  /** Matches types without a name by the places that refer to them, in the types that changed. */
  #byPlace(changed: readonly number[]): void {
    const open = [...changed]
    for (let id = open.pop(); id !== undefined; id = open.pop()) {
      const other = this.#matches[id]!
      for (const [to, from] of this.#references(id, other)) {
        if (to === 0 || from === 0) continue
        if (this.#matches[to] !== 0 || this.#continued[from] !== 0) continue
        if (!this.#alike(to, from)) continue
        this.#join(to, from)
        open.push(to)
      }
    }
  }

  #alike(child: number, parent: number): boolean {
    const [to, from] = [this.#child.at[child]!, this.#parent.at[parent]!]
    const { words } = this.#child
    const others = this.#parent.words
    return (
      words[to] === 0 &&
      others[from] === 0 &&
      infoKind(words[to + 1]!) === infoKind(others[from + 1]!)
    )
  }

  /** The references at the same places of two types: of elements, those with the same name, or without any. */
  *#references(id: number, other: number): Generator<readonly [child: number, parent: number]> {
    const { words } = this.#child
    const { words: others } = this.#parent
    const [to, from] = [this.#child.at[id]!, this.#parent.at[other]!]
    const kind = infoKind(words[to + 1]!)
    if (kind !== infoKind(others[from + 1]!)) return
    for (const at of KINDS[kind]!.ids) yield [words[to + at / 4]!, others[from + at / 4]!]
    const shape = ELEMENTS[kind]
    if (!shape || shape.id < 0) return
    const head = HEAD_WORDS[kind]!
    const width = shape.words
    const [count, otherCount] = [infoVlen(words[to + 1]!), infoVlen(others[from + 1]!)]
    let next = 0
    for (let i = 0; i < count; i++) {
      const at = to + head + i * width
      if (this.#matches[words[at + shape.id]!] !== 0) continue
      // the next element with this name; elements without a name follow each other
      const name = shape.name < 0 ? 0 : words[at + shape.name]!
      for (let j = next; j < otherCount && j < next + 256; j++) {
        const place = from + head + j * width
        const type = others[place + shape.id]!
        const same =
          shape.name < 0 || name === 0
            ? (shape.name < 0 || others[place + shape.name] === 0) && this.#continued[type] === 0
            : others[place + shape.name] === this.#strings[name] && this.#strings[name] !== 0
        if (!same) continue
        yield [words[at + shape.id]!, type]
        next = j + 1
        break
      }
    }
  }
}

/** Hashes of kind and name. */
function hashNames({ words, at }: BtfWords, strings: DeclarationHashes): DeclarationHashes {
  const low = new Int32Array(at.length - 1)
  const high = new Int32Array(at.length - 1)
  for (let id = 1; id < low.length; id++) {
    const start = at[id]!
    const kind = infoKind(words[start + 1]!)
    low[id] = strings.low[words[start]!]! ^ Math.imul(kind, 0x9e3779b1)
    high[id] = strings.high[words[start]!]! + kind
  }
  return { low, high }
}
