/*
 * The places and meanings of the fields of valid BTF, `.BTF.ext` and ELF. A mutation replaces a field's value by that
 * of another field with the same meaning, or by one that is just out of bounds.
 */

import { STREAM_NAMES } from '../../bpf/delta-stream.ts'
import {
  type Btf,
  type ByteOrder,
  type Elf,
  memorySource,
  openElf,
  parseBtf,
} from '../../bpf/index.ts'
import { HEADER_SIZE, infoKind, KINDS } from '../../bpf/kind.ts'

export type FieldSort =
  | 'magic'
  /** a distance or length in bytes or bits */
  | 'extent'
  /** a number of elements, or the index of one */
  | 'count'
  /** an offset in a string section */
  | 'name'
  /** the id of a type */
  | 'type'
  /** kind, vlen and kind_flag of a type */
  | 'info'
  /** any other field */
  | 'value'

export interface Field {
  /** bytes from the start of the file */
  readonly at: number
  readonly width: 1 | 2 | 4 | 8
  readonly sort: FieldSort
}

/** A range of bytes that belong together: a type's record, a section. */
export interface Span {
  readonly start: number
  readonly end: number
}

/** The structure of a file, as far as mutations use it. */
export interface Anatomy {
  readonly byteOrder: ByteOrder
  readonly fields: readonly Field[]
  /** the types of raw BTF; the section contents of ELF */
  readonly spans: readonly Span[]
}

/** The anatomy of raw BTF; split BTF needs its `base`. */
export function anatomyOfBtf(bytes: Uint8Array, base?: Btf): Anatomy {
  const btf = parseBtf(bytes, base ? { base } : {})
  return {
    byteOrder: btf.byteOrder,
    fields: btfFields(btf, 0),
    spans: [...typeRecords(btf)],
  }
}

/** The anatomy of an ELF file, including its BTF. */
export function anatomyOfElf(bytes: Uint8Array): Anatomy {
  const elf = openElf(memorySource(bytes))
  const fields = [...elfFields(elf, bytes)]
  const btf = elf.section('.BTF')
  if (btf) fields.push(...btfFields(parseBtf(elf.read(btf)), btf.offset))
  const ext = elf.section('.BTF.ext')
  if (ext) fields.push(...extFields(bytes, ext.offset, elf.byteOrder))
  const spans = elf.sections
    .filter((section) => section.type !== 0 && section.type !== 8 && section.size > 0)
    .map(({ offset, size }) => ({ start: offset, end: offset + size }))
  return { byteOrder: elf.byteOrder, fields, spans }
}

/** The anatomy of a delta: each byte of its header is an extent, each byte of a stream a count. */
export function anatomyOfDelta(bytes: Uint8Array): Anatomy {
  const spans = streamSpans(bytes)
  const end = spans[0]!.start
  const fields = Array.from(bytes, (_, at): Field => {
    return { at, width: 1, sort: at < 5 ? 'magic' : at < end ? 'extent' : 'count' }
  })
  return { byteOrder: 'little', fields, spans }
}

/** The streams of a delta; bpf/delta.md has the container. */
function streamSpans(bytes: Uint8Array): Span[] {
  let at = 5
  const next = () => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]!
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
  }
  for (let i = 0; i < 6; i++) next() // flags, size, four counts
  const lengths = STREAM_NAMES.map(next)
  return lengths.map((length) => {
    at += length
    return { start: at - length, end: at }
  })
}

function* typeRecords(btf: Btf): Generator<Span> {
  for (let id = btf.startId; id < btf.endId; id++) {
    const end = id + 1 < btf.endId ? btf.recordAt(id + 1) : btf.header.types.end
    yield { start: btf.recordAt(id), end }
  }
}

function btfFields(btf: Btf, start: number): Field[] {
  const fields: Field[] = [
    { at: start, width: 2, sort: 'magic' },
    { at: start + 2, width: 1, sort: 'magic' },
    { at: start + 3, width: 1, sort: 'magic' },
  ]
  const word = (at: number, sort: FieldSort) => fields.push({ at: start + at, width: 4, sort })
  for (let at = 4; at < btf.header.headerSize; at += 4) word(at, 'extent')
  for (let { start: at, end } = btf.header.layout; at < end; at += 4) word(at, 'value')
  for (const record of typeRecords(btf)) {
    const kind = KINDS[infoKind(btf.view.getUint32(record.start + 4, btf.byteOrder === 'little'))]
    if (!kind) continue
    word(record.start, 'name')
    word(record.start + 4, 'info')
    word(record.start + 8, kind.third === 'type' ? 'type' : 'extent')
    const elements = HEADER_SIZE + kind.payload
    for (let at = HEADER_SIZE; record.start + at < record.end; at += 4) {
      const inElement = at < elements ? -1 : (at - elements) % kind.element
      if (kind.ids.includes(at) || kind.elementIds.includes(inElement)) {
        word(record.start + at, 'type')
      } else
        word(record.start + at, inElement === kind.elementName && inElement >= 0 ? 'name' : 'value')
    }
  }
  return fields
}

/** The tables of `.BTF.ext`: a record size, then for each section its name, a count and the records. */
function extFields(bytes: Uint8Array, start: number, byteOrder: ByteOrder): Field[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const read = (at: number) => view.getUint32(at, byteOrder === 'little')
  const fields: Field[] = [{ at: start, width: 2, sort: 'magic' }]
  const word = (at: number, sort: FieldSort) => fields.push({ at, width: 4, sort })
  const headerSize = read(start + 4)
  for (let at = 4; at < headerSize; at += 4) word(start + at, 'extent')
  const tables: readonly (readonly [header: number, sorts: readonly FieldSort[]])[] = [
    [8, ['extent', 'type']],
    [16, ['extent', 'name', 'name', 'value']],
    [24, ['extent', 'type', 'name', 'count']],
  ]
  for (const [header, sorts] of tables) {
    if (header >= headerSize) continue
    const table = start + headerSize + read(start + header)
    const end = table + read(start + header + 4)
    if (table === end) continue
    word(table, 'extent')
    for (let at = table + 4; at < end; ) {
      word(at, 'name')
      word(at + 4, 'count')
      const next = at + 8 + read(at + 4) * read(table)
      for (at += 8; at < next; at += read(table))
        for (const [i, sort] of sorts.entries()) word(at + i * 4, sort)
    }
  }
  return fields
}

type Layout = readonly (readonly [at: number, width: Field['width'], sort: FieldSort])[]

/** e_ident, e_type, e_machine, e_shoff, e_ehsize, e_shentsize, e_shnum, e_shstrndx */
const HEADERS: Readonly<{ [bits in 32 | 64]: Layout }> = {
  32: [
    [4, 1, 'magic'],
    [5, 1, 'magic'],
    [16, 2, 'value'],
    [18, 2, 'magic'],
    [32, 4, 'extent'],
    [46, 2, 'extent'],
    [48, 2, 'count'],
    [50, 2, 'count'],
  ],
  64: [
    [4, 1, 'magic'],
    [5, 1, 'magic'],
    [16, 2, 'value'],
    [18, 2, 'magic'],
    [40, 8, 'extent'],
    [58, 2, 'extent'],
    [60, 2, 'count'],
    [62, 2, 'count'],
  ],
}

/** sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link, sh_info, sh_addralign, sh_entsize */
const SECTIONS: Readonly<{ [bits in 32 | 64]: Layout }> = {
  32: [
    [0, 4, 'name'],
    [4, 4, 'value'],
    [8, 4, 'value'],
    [12, 4, 'value'],
    [16, 4, 'extent'],
    [20, 4, 'extent'],
    [24, 4, 'count'],
    [28, 4, 'count'],
    [36, 4, 'extent'],
  ],
  64: [
    [0, 4, 'name'],
    [4, 4, 'value'],
    [8, 8, 'value'],
    [16, 8, 'value'],
    [24, 8, 'extent'],
    [32, 8, 'extent'],
    [40, 4, 'count'],
    [44, 4, 'count'],
    [56, 8, 'extent'],
  ],
}

/** st_name, st_value, st_size, st_info, st_other, st_shndx */
const SYMBOLS: Readonly<{ [bits in 32 | 64]: Layout }> = {
  32: [
    [0, 4, 'name'],
    [4, 4, 'extent'],
    [8, 4, 'extent'],
    [12, 1, 'value'],
    [13, 1, 'value'],
    [14, 2, 'count'],
  ],
  64: [
    [0, 4, 'name'],
    [4, 1, 'value'],
    [5, 1, 'value'],
    [6, 2, 'count'],
    [8, 8, 'extent'],
    [16, 8, 'extent'],
  ],
}

/** r_offset, r_info of REL; BPF objects have no RELA */
const RELOCATIONS: Layout = [
  [0, 8, 'extent'],
  [8, 4, 'count'],
  [12, 4, 'count'],
]

/** code, registers, offset, immediate */
const INSTRUCTION: Layout = [
  [0, 1, 'value'],
  [1, 1, 'value'],
  [2, 2, 'value'],
  [4, 4, 'value'],
]

function* elfFields(elf: Elf, bytes: Uint8Array): Generator<Field> {
  const { bits } = elf
  yield* laidOut(0, HEADERS[bits])
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const little = elf.byteOrder === 'little'
  const table = bits === 64 ? Number(view.getBigUint64(40, little)) : view.getUint32(32, little)
  for (const section of elf.sections) {
    yield* laidOut(table + section.index * (bits === 64 ? 64 : 40), SECTIONS[bits])
    const { offset, size, type } = section
    const rows = function* (step: number, layout: Layout) {
      for (let at = 0; at + step <= size; at += step) yield* laidOut(offset + at, layout)
    }
    if (type === 2) yield* rows(bits === 64 ? 24 : 16, SYMBOLS[bits])
    if (type === 9 && bits === 64) yield* rows(16, RELOCATIONS)
    if (type === 1 && (section.flags & 4n) !== 0n && elf.machine === 247)
      yield* rows(8, INSTRUCTION)
  }
}

function* laidOut(start: number, layout: Layout): Generator<Field> {
  for (const [at, width, sort] of layout) yield { at: start + at, width, sort }
}
