/*
 * The header structure of rpm files (rpm's docs/manual/format_header.md, lib/header.c): an index of tags, and a store
 * of their values. All numbers are big-endian. A value is decoded and checked when it is requested.
 */
import { GeneratorError } from '../error.ts'

/** Bytes before the index: the magic, four reserved bytes, the number of entries, the size of the store. */
export const INTRO = 16
const INDEX_ENTRY = 16
const MAGIC = Buffer.from('8eade80100000000', 'hex')

/** Limits of rpm itself (lib/header.c), in entries and bytes. */
const MAX_ENTRIES = 0xffff
const MAX_STORE = 64 * 1024 ** 2

/** Bytes of a number by type: char and int8, int16, int32, int64. */
const WIDTHS: Readonly<Record<number, number>> = { 1: 1, 2: 1, 3: 2, 4: 4, 5: 8 }
const STRING = 6
const BINARY = 7
/** string, array of strings, strings by language */
const STRINGS = [STRING, 8, 9]

interface IndexEntry {
  type: number
  offset: number
  count: number
}

/** The number of bytes after an intro. Errors: `invalid_package`, `too_large`. */
export function sizeAfter(intro: Buffer): number {
  if (!intro.subarray(0, MAGIC.length).equals(MAGIC))
    throw new GeneratorError('invalid_package', 'the package has no valid header')
  const [entries, store] = [intro.readUInt32BE(8), intro.readUInt32BE(12)]
  if (entries > MAX_ENTRIES || store > MAX_STORE)
    throw new GeneratorError('too_large', `the header has ${entries} entries in ${store} bytes`)
  return entries * INDEX_ENTRY + store
}

/** A complete header, including its intro. Errors of its methods: `invalid_package`. */
export class RpmHeader {
  readonly #index = new Map<number, IndexEntry>()
  readonly #store: Buffer

  constructor(bytes: Buffer) {
    const end = INTRO + bytes.readUInt32BE(8) * INDEX_ENTRY
    this.#store = bytes.subarray(end)
    for (let at = INTRO; at < end; at += INDEX_ENTRY) {
      const [tag, type, offset, count] = [0, 4, 8, 12].map((field) =>
        bytes.readUInt32BE(at + field),
      ) as [number, number, number, number]
      this.#index.set(tag, { type, offset, count })
    }
  }

  /** The numbers of a tag; empty if the tag does not exist. */
  numbers(tag: number): number[] {
    const entry = this.#index.get(tag)
    if (!entry) return []
    const width = WIDTHS[entry.type]
    if (!width) throw invalidHeader(`has a tag ${tag} that is not a number`)
    const bytes = this.#take(tag, entry.offset, entry.count * width)
    return Array.from({ length: entry.count }, (_, i) => {
      if (width < 8) return bytes.readUIntBE(i * width, width)
      const value = Number(bytes.readBigUInt64BE(i * width))
      if (!Number.isSafeInteger(value))
        throw invalidHeader(`has a tag ${tag} with the number ${value}, more than 2^53`)
      return value
    })
  }

  /** The strings of a tag; empty if the tag does not exist. */
  strings(tag: number): string[] {
    const entry = this.#index.get(tag)
    if (!entry) return []
    if (!STRINGS.includes(entry.type)) throw invalidHeader(`has a tag ${tag} that is not a string`)
    // Each string has at least a NUL.
    this.#take(tag, entry.offset, entry.count)
    let at = entry.offset
    return Array.from({ length: entry.type === STRING ? 1 : entry.count }, () => {
      const end = this.#store.indexOf(0, at)
      if (end < 0) throw invalidHeader(`has a tag ${tag} with a string that does not end`)
      const text = this.#store.toString('utf8', at, end)
      at = end + 1
      return text
    })
  }

  /** The bytes of a binary tag; undefined if the tag does not exist. */
  bytes(tag: number): Buffer | undefined {
    const entry = this.#index.get(tag)
    if (!entry) return undefined
    if (entry.type !== BINARY) throw invalidHeader(`has a tag ${tag} that is not binary`)
    return this.#take(tag, entry.offset, entry.count)
  }

  #take(tag: number, offset: number, size: number): Buffer {
    if (offset + size > this.#store.length)
      throw invalidHeader(`has a tag ${tag} whose value lies outside the store`)
    return this.#store.subarray(offset, offset + size)
  }
}

const invalidHeader = (what: string): GeneratorError =>
  new GeneratorError('invalid_package', `the package's header ${what}`)
