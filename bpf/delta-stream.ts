/*
 * The container of a delta: a header, then streams of numbers, one stream for each field, since like numbers compress
 * well together. delta.md describes the format. The container is not compressed; its keeper compresses it as a whole.
 *
 * A `Coder` either writes numbers or reads them. The description of a record (delta-record.ts) is one piece of code for
 * both directions: it hands each number to the coder, which writes it and returns it, or returns the one that it reads.
 */

import { concatBytes } from './bytes.ts'
import { BtfError } from './error.ts'

/** The first four bytes of a delta. */
const MAGIC = Uint8Array.of(0x42, 0x54, 0x46, 0xde) // "BTF", then a byte that is no text
export const DELTA_VERSION = 1
/** Default limit of the size of the BTF that a delta makes, in bytes. The largest kernels have 15 MB. */
export const MAX_RESULT = 64 * 2 ** 20

/** Streams by their place in the container. Their order is part of the format. */
export const STREAM_NAMES = [
  'typeMoves',
  'typeMovesHigh',
  'typeMovesLow',
  'typeRuns',
  'typeNews',
  'stringMoves',
  'stringMovesHigh',
  'stringMovesLow',
  'stringRuns',
  'stringNews',
  'changed',
  'edits',
  'kinds',
  'counts',
  'linkages',
  'typeNames',
  'memberNames',
  'parameterNames',
  'valueNames',
  'farNamesHigh',
  'farNamesLow',
  'pointers',
  'prototypes',
  'results',
  'memberTypes',
  'parameterTypes',
  'otherTypes',
  'farTypesHigh',
  'farTypesLow',
  'sizes',
  'offsets',
  'bitfields',
  'values',
  'payloads',
  'text',
] as const

type StreamName = (typeof STREAM_NAMES)[number]

/** Indexes of the streams by name. */
export const STREAM = Object.fromEntries(STREAM_NAMES.map((name, i) => [name, i])) as {
  readonly [name in StreamName]: number
}

/** What the header of a delta says. */
export interface DeltaHeader {
  /** the result is stored as it is, in the last stream; all numbers but `size` are 0 */
  readonly plain: boolean
  readonly byteOrder: 'little' | 'big'
  /** the order of the strings is told by that of their first use, not by the parent's alone */
  readonly byUse: boolean
  /** bytes of the result */
  readonly size: number
  /** the result's number of types, and of strings without the empty one */
  readonly types: number
  readonly strings: number
  /** the same of the parent; both 0 without a parent */
  readonly parentTypes: number
  readonly parentStrings: number
}

const PLAIN = 1
const BIG = 2
const BY_USE = 4

/** Throws the error of everything that is wrong with a delta. */
export function invalid(message: string): never {
  throw new BtfError('invalid_delta', `invalid delta: ${message}`)
}

/** Writes numbers to streams, or reads them. */
export interface Coder {
  readonly writing: boolean
  /** A number from 0 to 255. */
  byte(stream: number, value: number): number
  /** A number from 0 to 2³²−1, as LEB128. */
  unsigned(stream: number, value: number): number
  /** A 32-bit number; small negative and positive ones are short (zigzag). Differences wrap around. */
  signed(stream: number, value: number): number
}

/** Writes the streams of a delta. */
export class DeltaWriter implements Coder {
  readonly writing = true
  readonly #streams = STREAM_NAMES.map(() => new Uint8Array(64))
  readonly #ends = new Int32Array(STREAM_NAMES.length)

  byte(stream: number, value: number): number {
    const end = this.#ends[stream]!++
    let bytes = this.#streams[stream]!
    if (end === bytes.length) {
      bytes = new Uint8Array(end * 2)
      bytes.set(this.#streams[stream]!)
      this.#streams[stream] = bytes
    }
    bytes[end] = value
    return value
  }

  unsigned(stream: number, value: number): number {
    let rest = value >>> 0
    while (rest >= 0x80) {
      this.byte(stream, (rest & 0x7f) | 0x80)
      rest >>>= 7
    }
    this.byte(stream, rest)
    return value
  }

  signed(stream: number, value: number): number {
    this.unsigned(stream, (value << 1) ^ (value >> 31))
    return value
  }

  /** Appends bytes to a stream. */
  bytes(stream: number, bytes: Uint8Array): void {
    for (const byte of bytes) this.byte(stream, byte)
  }

  /** Bytes of all streams. */
  get length(): number {
    return this.#ends.reduce((sum, end) => sum + end, 0)
  }

  /** The delta. */
  finish(header: DeltaHeader): Uint8Array {
    const streams = this.#streams.map((bytes, i) => bytes.subarray(0, this.#ends[i]))
    return concatBytes([headOfDelta(header, streams), ...streams])
  }
}

/** A delta that holds its result as it is. */
export function plainDelta(result: Uint8Array): Uint8Array {
  const header: DeltaHeader = {
    ...{ plain: true, byteOrder: 'little', byUse: false, size: result.length },
    ...{ types: 0, strings: 0, parentTypes: 0, parentStrings: 0 },
  }
  return concatBytes([headOfDelta(header, []), result])
}

/** The bytes before the streams. */
export function headOfDelta(header: DeltaHeader, streams: readonly Uint8Array[]): Uint8Array {
  const numbers: number[] = []
  const put = (value: number) => {
    for (; value >= 0x80; value = Math.floor(value / 0x80)) numbers.push((value & 0x7f) | 0x80)
    numbers.push(value)
  }
  const { plain, byteOrder, byUse, size, types, strings, parentTypes, parentStrings } = header
  put((plain ? PLAIN : 0) | (byteOrder === 'big' ? BIG : 0) | (byUse ? BY_USE : 0))
  put(size)
  if (!plain) {
    for (const value of [types, strings, parentTypes, parentStrings]) put(value)
    for (const { length } of streams) put(length)
  }
  return concatBytes([MAGIC, Uint8Array.of(DELTA_VERSION), Uint8Array.from(numbers)])
}

/** Reads a delta. Nothing in it is trusted: each read is checked against the end of its stream. */
export class DeltaReader implements Coder {
  readonly writing = false
  readonly header: DeltaHeader
  readonly #bytes: Uint8Array
  readonly #at = new Int32Array(STREAM_NAMES.length + 1)
  readonly #ends = new Int32Array(STREAM_NAMES.length + 1)

  /** Reads the header and the lengths of the streams. Errors: `invalid_delta`, also for a result over `maxSize` bytes. */
  constructor(bytes: Uint8Array, maxSize: number) {
    this.#bytes = bytes
    if (MAGIC.some((byte, i) => bytes[i] !== byte)) invalid('the magic "BTF\\xde" is missing')
    if (bytes[4] !== DELTA_VERSION)
      invalid(`unsupported version ${bytes[4] ?? 'none'}: expected ${DELTA_VERSION}`)
    // the header is read as a stream of its own, the last
    const own = STREAM_NAMES.length
    this.#at[own] = 5
    this.#ends[own] = bytes.length
    const next = () => this.unsigned(own, 0)
    const flags = next()
    if (flags > (PLAIN | BIG | BY_USE)) invalid(`unknown flags ${flags}`)
    const plain = (flags & PLAIN) !== 0
    const size = next()
    if (size > maxSize) invalid(`a result of ${size} bytes: expected at most ${maxSize}`)
    const [types, strings, parentTypes, parentStrings] = plain
      ? ([0, 0, 0, 0] as const)
      : ([next(), next(), next(), next()] as const)
    // each type takes 12 bytes, each string 2
    if (types * 12 + strings * 2 > size)
      invalid(`${types} types and ${strings} strings in ${size} bytes`)
    this.header = {
      plain,
      byteOrder: (flags & BIG) !== 0 ? 'big' : 'little',
      byUse: (flags & BY_USE) !== 0,
      ...{ size, types, strings, parentTypes, parentStrings },
    }
    const lengths = plain ? [] : STREAM_NAMES.map(next)
    let at = this.#at[own]!
    lengths.forEach((length, stream) => {
      if (length > bytes.length - at) invalid(`stream ${STREAM_NAMES[stream]} is cut off`)
      this.#at[stream] = at
      at += length
      this.#ends[stream] = at
    })
    const lengthOf = (stream: number) => this.#ends[stream]! - this.#at[stream]!
    if (types > parentTypes + lengthOf(STREAM.kinds) && !plain) invalid(`${types} types`)
    if (strings > parentStrings + lengthOf(STREAM.text) && !plain) invalid(`${strings} strings`)
    if (plain) {
      if (bytes.length - at !== size) invalid(`${bytes.length - at} bytes: expected ${size}`)
    } else if (at !== bytes.length) invalid('bytes after the last stream')
  }

  /** Bytes of the delta. */
  get length(): number {
    return this.#bytes.length
  }

  /** The bytes of a plain delta. */
  plain(): Uint8Array {
    return this.#bytes.subarray(this.#at[STREAM_NAMES.length])
  }

  byte(stream: number, _: number): number {
    const at = this.#at[stream]!
    if (at >= this.#ends[stream]!) invalid(`stream ${STREAM_NAMES[stream] ?? 'header'} is cut off`)
    this.#at[stream] = at + 1
    return this.#bytes[at]!
  }

  unsigned(stream: number, _: number): number {
    let byte = this.byte(stream, 0)
    if (byte < 0x80) return byte
    let value = byte & 0x7f
    for (let shift = 7; shift < 35; shift += 7) {
      byte = this.byte(stream, 0)
      if (shift === 28 && byte > 0x0f) break
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value >>> 0
    }
    return invalid('a number has more than 32 bits')
  }

  signed(stream: number, _: number): number {
    const value = this.unsigned(stream, 0)
    return (value >>> 1) ^ -(value & 1)
  }

  /** All bytes of a stream, which then is at its end. */
  rest(stream: number): Uint8Array {
    const rest = this.#bytes.subarray(this.#at[stream], this.#ends[stream])
    this.#at[stream] = this.#ends[stream]!
    return rest
  }

  /** True at the end of a stream. */
  ended(stream: number): boolean {
    return this.#at[stream] === this.#ends[stream]
  }

  /** Checks that every stream was read to its end. */
  finish(): void {
    STREAM_NAMES.forEach((name, stream) => {
      if (!this.ended(stream)) invalid(`stream ${name} is too long`)
    })
  }
}
