/*
 * BTF as words: the type section in host byte order, with the index of a string in place of its offset. This is what
 * deltas are made of and from. BTF with anything odd about it has no such form, and deltas store it as it is.
 */

import { type Btf, parseBtf } from './btf.ts'
import { type ByteOrder, wordsOf } from './bytes.ts'
import { DELTA_KINDS, ELEMENTS, HEAD_WORDS } from './delta-record.ts'
import { BtfError } from './error.ts'
import { BTF_HEADER_SIZE } from './header.ts'
import { infoKind, infoVlen, KIND } from './kind.ts'

export interface BtfWords {
  readonly byteOrder: ByteOrder
  /** records, one after another */
  readonly words: Int32Array
  /** by id: the word at which a record begins, and, one past the last id, the end; 0 for void */
  readonly at: Int32Array
  /** the string section */
  readonly text: Uint8Array
  /** by index: where a string begins in `text`; the empty string has index 0 */
  readonly starts: Int32Array
}

/** BTF without types. */
export const NO_WORDS: BtfWords = {
  byteOrder: 'little',
  words: new Int32Array(0),
  at: new Int32Array(2),
  text: new Uint8Array(1),
  starts: new Int32Array(1),
}

/**
 * The words of BTF; undefined for BTF that is odd: that `parseBtf` refuses, split BTF, a header other than 24 bytes,
 * gaps between sections, bytes behind them, unknown kinds, names that are tails of strings, a vlen in a kind without
 * elements.
 */
export function wordsOfBtf(input: Uint8Array | Btf): BtfWords | undefined {
  const btf = input instanceof Uint8Array ? parsed(input) : input
  if (!btf || btf.base) return undefined
  const { headerSize, types, strings, byteOrder } = btf.header
  const size = input instanceof Uint8Array ? input.length : btf.bytes.length
  if (headerSize !== BTF_HEADER_SIZE || types.start !== headerSize) return undefined
  if (strings.start !== types.end || strings.end !== size) return undefined
  const starts = startsOf(btf.strings)
  // a copy: `slice` of a Buffer would be a view
  const words = wordsOf(new Uint8Array(btf.bytes.subarray(types.start, types.end)), byteOrder)
  const at = new Int32Array(btf.endId + 1)
  for (let id = 1; id < btf.endId; id++) at[id] = (btf.recordAt(id) - types.start) >>> 2
  at[btf.endId] = words.length
  if (!indexNames(words, at, indexesOf(starts, btf.strings.length))) return undefined
  return { byteOrder, words, at, text: btf.strings, starts }
}

function parsed(bytes: Uint8Array): Btf | undefined {
  try {
    return parseBtf(bytes)
  } catch (error) {
    if (error instanceof BtfError) return undefined
    throw error
  }
}

/** Where each string of a section begins. The section ends with NUL. */
function startsOf(text: Uint8Array): Int32Array {
  let starts = new Int32Array(text.length >> 3 || 1)
  let count = 1 // the empty string at 0
  for (let at = 1; at < text.length; at++) {
    if (text[at - 1] !== 0) continue
    if (count === starts.length) {
      const grown = new Int32Array(count * 2)
      grown.set(starts)
      starts = grown
    }
    starts[count++] = at
  }
  return starts.subarray(0, count)
}

/** By offset: the index of the string that begins there; 0 where none does. */
function indexesOf(starts: Int32Array, length: number): Int32Array {
  const indexes = new Int32Array(length)
  for (let i = 1; i < starts.length; i++) indexes[starts[i]!] = i
  return indexes
}

/** Replaces offsets of names by indexes. Returns false if a name is no whole string, or a kind is odd. */
function indexNames(words: Int32Array, at: Int32Array, indexes: Int32Array): boolean {
  let odd = false
  const rename = (word: number) => {
    const offset = words[word]!
    const index = indexes[offset]!
    if (index === 0 && offset !== 0) odd = true
    words[word] = index
  }
  for (let id = 1; id < at.length - 1; id++) {
    const start = at[id]!
    const info = words[start + 1]!
    const kind = infoKind(info)
    if (kind >= DELTA_KINDS.length) return false
    rename(start)
    const shape = ELEMENTS[kind]
    if (!shape) {
      if (kind !== KIND.FUNC && infoVlen(info) !== 0) return false
      continue
    }
    if (shape.name < 0) continue
    const end = at[id + 1]!
    for (let name = start + HEAD_WORDS[kind]!; name < end; name += shape.words) rename(name)
  }
  return !odd
}
