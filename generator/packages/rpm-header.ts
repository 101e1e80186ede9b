/*
 * The header structure of .rpm files (rpm's docs/manual/format_header.md, lib/header.c): an index of tags over a store
 * of values, all numbers big-endian. Values are looked at when they are asked for, and each is checked then.
 */
import { GeneratorError } from '../error.ts'

/** Bytes before the index: a magic, four reserved ones, and how much follows. */
export const INTRO = 16
const INDEX_ENTRY = 16
const MAGIC = Buffer.from('8eade80100000000', 'hex')

/** What rpm takes, too (lib/header.c); in bytes and entries. */
const MAX_ENTRIES = 0xffff
const MAX_STORE = 64 * 1024 ** 2

/** Bytes of a number by its type: char and int8, int16, int32, int64. */
const WIDTHS: Readonly<Record<number, number>> = { 1: 1, 2: 1, 3: 2, 4: 4, 5: 8 }
const STRING = 6
const BINARY = 7
/** string, array of strings, strings in several languages */
const STRINGS = [STRING, 8, 9]

interface IndexEntry {
  type: number
  offset: number
  count: number
}

/** How many bytes follow an intro. Errors: `invalid_package`, `too_large`. */
export function sizeAfter(intro: Buffer): number {
  if (!intro.subarray(0, MAGIC.length).equals(MAGIC)) throw corrupt('has no header')
  const [entries, store] = [intro.readUInt32BE(8), intro.readUInt32BE(12)]
  if (entries > MAX_ENTRIES || store > MAX_STORE)
    throw new GeneratorError('too_large', `the header has ${entries} entries in ${store} bytes`)
  return entries * INDEX_ENTRY + store
}

/** A header that was read whole, its intro included. Its methods fail with `invalid_package`. */
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

  /** The values of a tag of numbers; none where it is not there. */
  numbers(tag: number): number[] {
    const entry = this.#index.get(tag)
    if (!entry) return []
    const width = WIDTHS[entry.type]
    if (!width) throw corrupt(`has a tag ${tag} that is no number`)
    const bytes = this.#take(tag, entry.offset, entry.count * width)
    return Array.from({ length: entry.count }, (_, i) => {
      if (width < 8) return bytes.readUIntBE(i * width, width)
      const value = Number(bytes.readBigUInt64BE(i * width))
      if (!Number.isSafeInteger(value)) throw corrupt(`has a tag ${tag} of ${value}`)
      return value
    })
  }

  /** The texts of a tag; none where it is not there. */
  strings(tag: number): string[] {
    const entry = this.#index.get(tag)
    if (!entry) return []
    if (!STRINGS.includes(entry.type)) throw corrupt(`has a tag ${tag} that is no text`)
    // each has a NUL at least
    this.#take(tag, entry.offset, entry.count)
    let at = entry.offset
    return Array.from({ length: entry.type === STRING ? 1 : entry.count }, () => {
      const end = this.#store.indexOf(0, at)
      if (end < 0) throw corrupt(`has a tag ${tag} that does not end`)
      const text = this.#store.toString('utf8', at, end)
      at = end + 1
      return text
    })
  }

  /** The bytes of a binary tag; undefined where it is not there. */
  bytes(tag: number): Buffer | undefined {
    const entry = this.#index.get(tag)
    if (!entry) return undefined
    if (entry.type !== BINARY) throw corrupt(`has a tag ${tag} that is not binary`)
    return this.#take(tag, entry.offset, entry.count)
  }

  #take(tag: number, offset: number, size: number): Buffer {
    if (offset + size > this.#store.length) throw corrupt(`has a tag ${tag} beyond its end`)
    return this.#store.subarray(offset, offset + size)
  }
}

const corrupt = (what: string): GeneratorError =>
  new GeneratorError('invalid_package', `the package's header ${what}`)
