/*
 * Inputs of another structure, with headers that agree, so that a reader gets past them: BTF with types taken out,
 * repeated and brought in from elsewhere; ELF with a section replaced by such BTF, by its own rows many times over, or
 * by strings without an end, at the end of the file. A few get very long.
 */

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

/** Bytes by which an input grows: mostly few, rarely more, hardly ever the most. */
const GROWTH = { few: 1 << 14, more: 1 << 17, most: 1 << 20 }

function growth(random: Random): number {
  if (!random.once(256)) return GROWTH.few
  return random.once(16) ? GROWTH.most : GROWTH.more
}

/** An input of another structure; `donor` may give a piece. */
export function restructure(random: Random, input: Input, donor: Input): Uint8Array<ArrayBuffer> {
  const { bytes, sort } = input
  if (isElf(bytes)) return regraft(random, bytes, donor)
  return retype(random, parseBtf(bytes, sort === 'split btf' ? { base } : {}), donor)
}

/** BTF with types taken out, moved, repeated, or brought in from another. */
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

/** Appends some of the types many times, under their names or others. */
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

/** Strings as one long one, of which those that were there are tails. */
function endless(random: Random, strings: Uint8Array): Uint8Array {
  const letters = strings.map((byte) => byte || 0x5f)
  const times = 1 + Math.floor(random.below(growth(random)) / (letters.length || 1))
  const nul = new Uint8Array(1)
  return Buffer.concat([nul, ...Array.from({ length: times }, () => letters), nul])
}

/** ELF with one of its sections, or the table of sections, replaced by another at the end of the file. */
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

/** A table with some of its rows many times. */
function repeated(random: Random, table: Uint8Array, row: number): Uint8Array {
  const first = random.below(Math.max(1, Math.floor(table.length / row)))
  const some = table.subarray(first * row, (first + 1 + random.below(4)) * row)
  const times = random.below(growth(random) / Math.max(some.length, 1))
  return Buffer.concat([table, ...Array.from({ length: times }, () => some)])
}
