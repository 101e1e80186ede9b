/*
 * Restructured inputs with matching headers, so that a reader gets past the headers. In BTF, types are removed,
 * repeated and inserted from other BTF. In ELF, a section is replaced by such BTF, by many copies of its own rows, or
 * by unterminated strings, at the end of the file. A few inputs get very long.
 */

import { DeltaReader, headOfDelta } from '../../bpf/delta-stream.ts'
import { assemble } from '../../bpf/encode.ts'
import {
  type Btf,
  type ByteOrder,
  isElf,
  memorySource,
  openElf,
  parseBtf,
} from '../../bpf/index.ts'
import { joined, readField, writeField } from './bytes.ts'
import { base, type Input } from './corpus.ts'
import type { Random } from './random.ts'

/** The number of bytes by which an input grows: usually small, rarely large. */
const GROWTH = { few: 1 << 14, more: 1 << 17, most: 1 << 20 }

function growth(random: Random): number {
  if (!random.once(256)) return GROWTH.few
  return random.once(16) ? GROWTH.most : GROWTH.more
}

/** A restructured input. A piece may come from `donor`. */
export function restructure(random: Random, input: Input, donor: Input): Uint8Array<ArrayBuffer> {
  const { bytes, sort } = input
  if (isElf(bytes)) return regraft(random, bytes, donor)
  if (sort === 'delta') return restream(random, input, donor)
  return retype(random, parseBtf(bytes, sort === 'split btf' ? { base } : {}), donor)
}

/** A delta with a stream from another input, or with bytes that are repeated, under a header that says so. */
function restream(
  random: Random,
  { bytes, anatomy }: Input,
  donor: Input,
): Uint8Array<ArrayBuffer> {
  const streams: Uint8Array[] = anatomy.spans.map(({ start, end }) => bytes.subarray(start, end))
  const i = random.below(streams.length)
  const [from, other] = [streams[i]!, random.pick(donor.anatomy.spans)]
  const at = random.below(from.length + 1)
  switch (random.below(3)) {
    case 0:
      streams[i] = donor.bytes.subarray(other.start, Math.min(other.end, other.start + GROWTH.few))
      break
    case 1:
      streams[i] = joined([from.subarray(0, at), from.subarray(at + 1 + random.below(8))])
      break
    default: {
      const room = random.below(growth(random))
      streams[i] = joined([from.subarray(0, at), new Uint8Array(room).fill(random.below(256))])
    }
  }
  const { size, types, strings, parentTypes, parentStrings, ...flags } = new DeltaReader(
    bytes,
    2 ** 32,
  ).header
  // a larger result, which the new lengths may allow
  const more = random.once(2) ? random.below(GROWTH.more) : 0
  const header = { ...flags, size: size + more * 12, types: types + (random.once(2) ? more : 0) }
  return Uint8Array.from(
    joined([headOfDelta({ ...header, strings, parentTypes, parentStrings }, streams), ...streams]),
  )
}

/** BTF with types that are removed, moved, repeated, or inserted from another BTF. */
function retype(random: Random, btf: Btf, donor: Input): Uint8Array<ArrayBuffer> {
  const records = recordsOf(btf)
  const at = random.below(records.length + 1)
  const some = 1 + random.below(4)
  switch (random.below(5)) {
    case 0:
      records.splice(at, some)
      break
    case 1:
      records.splice(at, 0, ...records.splice(random.below(records.length), some))
      break
    case 2:
      records.splice(at, 0, ...donorRecords(random, donor, btf.byteOrder))
      break
    default:
      repeat(random, records, some)
  }
  const strings = random.once(8) ? endless(random, btf.strings) : btf.strings
  return Uint8Array.from(assemble(records.flat(), strings, btf.byteOrder))
}

/** Appends some of the types many times, under their own or other names. */
function repeat(random: Random, records: number[][], some: number): void {
  const from = random.below(records.length)
  const repeated = records.slice(from, from + some)
  const room = growth(random) / (repeated.flat().length * 4 || 1)
  const renamed = random.once(2)
  for (let n = random.below(room); n > 0; n--) {
    for (const [name, ...words] of repeated) {
      records.push([renamed ? random.below(256) : name!, ...words])
    }
  }
}

/** The words of each type. */
function recordsOf(btf: Btf): number[][] {
  const { view, header, byteOrder } = btf
  const records: number[][] = []
  for (let id = btf.startId; id < btf.endId; id++) {
    const end = id + 1 < btf.endId ? btf.recordAt(id + 1) : header.types.end
    const words: number[] = []
    for (let at = btf.recordAt(id); at < end; at += 4) {
      words.push(view.getUint32(at, byteOrder === 'little'))
    }
    records.push(words)
  }
  return records
}

function donorRecords(random: Random, donor: Input, byteOrder: ByteOrder): number[][] {
  if (donor.sort !== 'btf' || donor.anatomy.byteOrder !== byteOrder) return []
  const records = recordsOf(parseBtf(donor.bytes))
  const from = random.below(records.length)
  return records.slice(from, from + 1 + random.below(8))
}

/** A string section in which all names are tails of one long string. */
function endless(random: Random, strings: Uint8Array): Uint8Array {
  const letters = strings.map((byte) => byte || 0x5f)
  const times = 1 + Math.floor(random.below(growth(random)) / (letters.length || 1))
  const nul = new Uint8Array(1)
  return Buffer.concat([nul, ...Array.from({ length: times }, () => letters), nul])
}

/** ELF whose section, or section table, is replaced by another one at the end of the file. */
function regraft(random: Random, file: Uint8Array, donor: Input): Uint8Array<ArrayBuffer> {
  const elf = openElf(memorySource(file))
  const wide = elf.bits === 64
  const little = elf.byteOrder === 'little'
  const word = (at: number) => ({ at, width: wide ? 8 : 4 }) as const
  const entry = wide ? 64 : 40
  const table = readField(file, word(wide ? 40 : 32), little)
  if (random.once(6)) {
    const rows = repeated(random, file.subarray(table, table + elf.sections.length * entry), entry)
    const { bytes, at } = appended(file, rows)
    writeField(bytes, word(wide ? 40 : 32), little, at)
    const count = Math.min(rows.length / entry, 0xffff)
    writeField(bytes, { at: wide ? 60 : 48, width: 2 }, little, count)
    return bytes
  }
  const inFile = elf.sections.filter(({ type, size }) => type !== 0 && type !== 8 && size > 0)
  const section = random.pick(inFile)
  const own = elf.read(section)
  let piece: Uint8Array
  if (section.name === '.BTF' && !random.once(4)) piece = retype(random, parseBtf(own), donor)
  else if (section.type === 3 && random.once(2)) piece = endless(random, own)
  else piece = repeated(random, own, section.entrySize || 8)
  const { bytes, at } = appended(file, piece)
  const header = table + section.index * entry
  writeField(bytes, word(header + (wide ? 24 : 16)), little, at)
  writeField(bytes, word(header + (wide ? 32 : 20)), little, piece.length)
  return bytes
}

function appended(
  file: Uint8Array,
  piece: Uint8Array,
): { bytes: Uint8Array<ArrayBuffer>; at: number } {
  const gap = new Uint8Array(-file.length & 7)
  return { bytes: joined([file, gap, piece]), at: file.length + gap.length }
}

/** A table with many copies of some of its rows. */
function repeated(random: Random, table: Uint8Array, row: number): Uint8Array {
  const first = random.below(Math.max(1, Math.floor(table.length / row)))
  const some = table.subarray(first * row, (first + 1 + random.below(4)) * row)
  const times = random.below(growth(random) / Math.max(some.length, 1))
  return Buffer.concat([table, ...Array.from({ length: times }, () => some)])
}
