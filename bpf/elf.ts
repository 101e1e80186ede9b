/*
 * The part of ELF that BTF needs: sections and their bytes, symbols, and relocations; 32 and 64 bit, both byte orders
 * (System V ABI, chapters 4 and 5). Opening a file reads the header, the section table and the section names only, so a
 * vmlinux of 600 MB costs a few kilobytes. Every number in a file is checked against the file's size and the limits
 * below before it is used.
 */

import {
  type ByteOrder,
  type ByteSource,
  decodeLatin1,
  encodeText,
  findAll,
  readExactly,
  viewOf,
} from './bytes.ts'
import { BtfError } from './error.ts'

/** Kernel modules built with -ffunction-sections have tens of thousands of sections. */
const MAX_SECTIONS = 1 << 18
const MAX_NAME_TABLE = 64 << 20
/** Bytes of one name: the kernel's symbols have at most 512, section names may hold a path. */
const MAX_NAME = 4096
/** Bytes per read of a section that is searched, and of a symbol table. */
const CHUNK = 1 << 20
/** `.BTF` of a vmlinux with everything built in is some 30 MB. */
const MAX_SECTION_READ = 1 << 30
/** Larger than any file, yet the sum of two such numbers (a section's offset and an offset in it) is exact. */
const MAX_OFFSET = 2n ** 52n - 1n

const SHT_SYMTAB = 2
const SHT_RELA = 4
const SHT_NOBITS = 8
const SHT_REL = 9
const SHF_COMPRESSED = 1 << 11
const SHN_XINDEX = 0xffff

export interface ElfSection {
  readonly index: number
  readonly name: string
  /** `sh_type`: 1 PROGBITS, 2 SYMTAB, 3 STRTAB, 4 RELA, 7 NOTE, 8 NOBITS, 9 REL */
  readonly type: number
  readonly flags: bigint
  readonly address: bigint
  /** bytes from the start of the file */
  readonly offset: number
  /** bytes in memory; a NOBITS section has no bytes in the file */
  readonly size: number
  /** `sh_link`; its meaning, and that of `info` (`sh_info`), depends on the type */
  readonly link: number
  readonly info: number
  /** bytes per entry, for a section that is a table */
  readonly entrySize: number
  /** whether its bytes are compressed (SHF_COMPRESSED); this library cannot read such a section */
  readonly compressed: boolean
}

export interface ElfSymbol {
  readonly name: string
  readonly value: bigint
  readonly size: number
  /** STB_*; `type` is STT_* */
  readonly binding: number
  readonly type: number
  /** STV_*: 0 default, 2 hidden */
  readonly visibility: number
  /** index of its section; 0 where it is undefined, 0xff00 or more for ABS, COMMON */
  readonly section: number
}

export interface ElfRelocation {
  /** bytes from the start of the relocated section */
  readonly offset: number
  /** R_*, whose meaning depends on the machine */
  readonly type: number
  /** index in the symbol table */
  readonly symbol: number
}

/** An ELF file that `openElf` has opened. */
export class Elf {
  readonly source: ByteSource
  readonly bits: 32 | 64
  readonly byteOrder: ByteOrder
  /** `e_type`: 1 relocatable, 2 executable, 3 shared */
  readonly type: number
  /** `e_machine` */
  readonly machine: number
  readonly sections: readonly ElfSection[]
  /** index of the relocated section → its tables */
  #relocationTables: ReadonlyMap<number, readonly ElfSection[]> | undefined

  constructor(source: ByteSource, header: ElfHeader, sections: readonly ElfSection[]) {
    this.source = source
    this.bits = header.bits
    this.byteOrder = header.byteOrder
    this.type = header.type
    this.machine = header.machine
    this.sections = sections
  }

  /** The first section with a name that has bytes in the file. */
  section(name: string): ElfSection | undefined {
    return this.sections.find((s) => s.name === name && s.type !== SHT_NOBITS)
  }

  /**
   * Reads a section or a part of it. Errors: `missing_section` for an unknown name, `unsupported` for a compressed
   * section, `truncated`, `too_large`.
   */
  read(section: string | ElfSection, offset = 0, length?: number): Uint8Array {
    const found = typeof section === 'string' ? this.section(section) : section
    if (!found) throw new BtfError('missing_section', `the ELF file has no section ${section}`)
    if (found.type === SHT_NOBITS) {
      throw new BtfError('missing_section', `section ${found.name} has no bytes in the file`)
    }
    if (found.compressed) {
      throw new BtfError('unsupported', `section ${found.name} is compressed`, found.offset)
    }
    const count = length ?? found.size - offset
    if (offset < 0 || count < 0 || offset + count > found.size) {
      throw new BtfError(
        'truncated',
        `section ${found.name} has ${found.size} bytes: cannot read ${count} bytes`,
        offset,
      )
    }
    if (count > MAX_SECTION_READ) {
      throw new BtfError(
        'too_large',
        `${count} bytes of section ${found.name}: expected at most ${MAX_SECTION_READ}`,
        found.offset,
      )
    }
    return readExactly(this.source, found.offset + offset, count)
  }

  /**
   * Offsets within a section at which `needle` (1 to 4096 bytes) begins, in rising order. Reads the section in pieces, so
   * its size does not matter.
   */
  *search(section: ElfSection, needle: Uint8Array): Generator<number> {
    if (needle.length === 0 || needle.length > 4096) {
      throw new RangeError(`invalid needle of ${needle.length} bytes: expected 1 to 4096`)
    }
    const overlap = needle.length - 1
    for (let start = 0; start < section.size; start += CHUNK) {
      const length = Math.min(CHUNK + overlap, section.size - start)
      for (const at of findAll(this.read(section, start, length), needle)) {
        if (at < CHUNK) yield start + at
      }
    }
  }

  /** True if the file has a table of symbols: it is not stripped. */
  get hasSymbols(): boolean {
    return this.sections.some((s) => s.type === SHT_SYMTAB)
  }

  /**
   * All symbols of `.symtab` in file order, or those of one type (STT_*); none if the file is stripped. All symbols of a
   * vmlinux take half a second.
   */
  *symbols(type?: number): Generator<ElfSymbol> {
    const table = this.sections.find((s) => s.type === SHT_SYMTAB)
    if (!table) return
    const names = this.#stringTable(table)
    if (names.size > MAX_NAME_TABLE) {
      throw new BtfError(
        'too_large',
        `${names.size} bytes of symbol names: expected at most ${MAX_NAME_TABLE}`,
        names.offset,
      )
    }
    const strings = new NameTable(this.read(names), names.offset)
    const info = this.bits === 64 ? 4 : 12
    for (const { view, at } of this.#symbolRecords(table)) {
      if (type !== undefined && (view.getUint8(at + info) & 0xf) !== type) continue
      yield { name: strings.at(view.getUint32(at, this.#little)), ...this.#symbol(view, at) }
    }
  }

  /** The relocations of a section in file order, with addends (RELA) and without (REL). */
  *relocations(section: ElfSection): Generator<ElfRelocation> {
    this.#relocationTables ??= Map.groupBy(
      this.sections.filter((s) => s.type === SHT_REL || s.type === SHT_RELA),
      (table) => table.info,
    )
    const tables = this.#relocationTables.get(section.index) ?? []
    const wide = this.bits === 64
    for (const table of tables) {
      const entry = (wide ? 16 : 8) + (table.type === SHT_RELA ? (wide ? 8 : 4) : 0)
      const view = viewOf(this.read(table))
      for (let at = 0; at + entry <= view.byteLength; at += entry) {
        const offset = wide ? view.getBigUint64(at, this.#little) : view.getUint32(at, this.#little)
        const info = view.getUint32(at + (wide && this.#little ? 8 : wide ? 12 : 4), this.#little)
        const high = wide ? view.getUint32(at + (this.#little ? 12 : 8), this.#little) : info >>> 8
        yield {
          offset: fileOffset(BigInt(offset), 'relocation', at),
          type: wide ? info : info & 0xff,
          symbol: high,
        }
      }
    }
  }

  /**
   * The first defined symbol with a name in `.symtab`. Searches the string table for the name first, so the hundred
   * thousand symbols of a vmlinux cost one search and a scan of integers.
   */
  symbol(name: string): ElfSymbol | undefined {
    const table = this.sections.find((s) => s.type === SHT_SYMTAB)
    if (!table) return undefined
    // A linker may store a name as the tail of a longer one, so every occurrence counts.
    const places = new Set(this.search(this.#stringTable(table), encodeText(`${name}\0`)))
    if (places.size === 0) return undefined
    for (const { view, at } of this.#symbolRecords(table)) {
      if (!places.has(view.getUint32(at, this.#little))) continue
      const symbol = this.#symbol(view, at)
      if (symbol.section !== 0) return { name, ...symbol }
    }
    return undefined
  }

  get #little(): boolean {
    return this.byteOrder === 'little'
  }

  #stringTable(table: ElfSection): ElfSection {
    const strings = this.sections[table.link]
    if (!strings || strings.type === SHT_NOBITS) {
      throw new BtfError('invalid_elf', `section ${table.name} has no string table`, table.offset)
    }
    return strings
  }

  *#symbolRecords(table: ElfSection): Generator<{ view: DataView; at: number }> {
    const entry = this.bits === 64 ? 24 : 16
    const perChunk = Math.floor(CHUNK / entry)
    const count = Math.floor(table.size / entry)
    for (let first = 0; first < count; first += perChunk) {
      const n = Math.min(perChunk, count - first)
      const view = viewOf(this.read(table, first * entry, n * entry))
      for (let i = 0; i < n; i++) yield { view, at: i * entry }
    }
  }

  #symbol(view: DataView, at: number): Omit<ElfSymbol, 'name'> {
    const little = this.#little
    const wide = this.bits === 64
    const info = view.getUint8(at + (wide ? 4 : 12))
    const size = wide ? view.getBigUint64(at + 16, little) : BigInt(view.getUint32(at + 8, little))
    return {
      value: wide ? view.getBigUint64(at + 8, little) : BigInt(view.getUint32(at + 4, little)),
      size: fileOffset(size, 'symbol size', at),
      binding: info >> 4,
      type: info & 0xf,
      visibility: view.getUint8(at + (wide ? 5 : 13)) & 3,
      section: view.getUint16(at + (wide ? 6 : 14), little),
    }
  }
}

interface ElfHeader {
  readonly bits: 32 | 64
  readonly byteOrder: ByteOrder
  readonly type: number
  readonly machine: number
  readonly sectionTable: number
  readonly sectionEntry: number
  readonly sectionCount: number
  readonly nameTable: number
}

/** True if the bytes begin with ELF's magic. */
export function isElf(bytes: Uint8Array): boolean {
  return bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46
}

/**
 * Opens an ELF file: reads its header, section table and section names. Errors: `invalid_elf`, `truncated`,
 * `too_large`.
 */
export function openElf(source: ByteSource): Elf {
  const header = readHeader(source)
  return new Elf(source, header, readSections(source, header))
}

function readHeader(source: ByteSource): ElfHeader {
  const ident = readExactly(source, 0, 16)
  if (!isElf(ident)) throw new BtfError('invalid_elf', 'not an ELF file: the magic is missing', 0)
  const bits = ident[4] === 1 ? 32 : ident[4] === 2 ? 64 : undefined
  if (!bits)
    throw new BtfError(
      'invalid_elf',
      `unknown ELF class ${ident[4]}: expected 1 (32 bit) or 2 (64 bit)`,
      4,
    )
  const byteOrder = ident[5] === 1 ? 'little' : ident[5] === 2 ? 'big' : undefined
  if (!byteOrder)
    throw new BtfError(
      'invalid_elf',
      `unknown ELF byte order ${ident[5]}: expected 1 (little) or 2 (big)`,
      5,
    )

  const little = byteOrder === 'little'
  const view = viewOf(readExactly(source, 0, bits === 64 ? 64 : 52))
  const tail = bits === 64 ? 58 : 46 // e_shentsize, e_shnum, e_shstrndx
  const table = bits === 64 ? view.getBigUint64(40, little) : BigInt(view.getUint32(32, little))
  return {
    bits,
    byteOrder,
    type: view.getUint16(16, little),
    machine: view.getUint16(18, little),
    sectionTable: fileOffset(table, 'section table', 40),
    sectionEntry: view.getUint16(tail, little),
    sectionCount: view.getUint16(tail + 2, little),
    nameTable: view.getUint16(tail + 4, little),
  }
}

function readSections(source: ByteSource, header: ElfHeader): ElfSection[] {
  if (header.sectionTable === 0) return []
  const entry = header.bits === 64 ? 64 : 40
  if (header.sectionEntry !== entry) {
    const at = header.bits === 64 ? 58 : 46
    throw new BtfError(
      'invalid_elf',
      `section headers of ${header.sectionEntry} bytes: expected ${entry}`,
      at,
    )
  }
  // Counts that do not fit the ELF header are in the section header of index 0.
  const zero = sectionAt(viewOf(readExactly(source, header.sectionTable, entry)), 0, 0, header)
  const count = header.sectionCount || zero.size
  const namesIndex = header.nameTable === SHN_XINDEX ? zero.link : header.nameTable
  if (count > MAX_SECTIONS) {
    throw new BtfError(
      'too_large',
      `${count} sections: expected at most ${MAX_SECTIONS}`,
      header.sectionTable,
    )
  }

  const view = viewOf(readExactly(source, header.sectionTable, count * entry))
  const raw = Array.from({ length: count }, (_, i) => sectionAt(view, i * entry, i, header))
  const table = raw[namesIndex]
  const names = table && namesIndex ? readNames(source, table) : new NameTable(new Uint8Array(1), 0)
  return raw.map(({ nameOffset, ...section }) => ({ ...section, name: names.at(nameOffset) }))
}

function readNames(source: ByteSource, table: RawSection): NameTable {
  if (table.size > MAX_NAME_TABLE) {
    throw new BtfError(
      'too_large',
      `${table.size} bytes of section names: expected at most ${MAX_NAME_TABLE}`,
      table.offset,
    )
  }
  return new NameTable(readExactly(source, table.offset, table.size), table.offset)
}

type RawSection = Omit<ElfSection, 'name'> & { readonly nameOffset: number }

function sectionAt(view: DataView, at: number, index: number, header: ElfHeader): RawSection {
  const little = header.byteOrder === 'little'
  const wide = header.bits === 64
  const word = (narrow: number, at64: number): bigint =>
    wide ? view.getBigUint64(at + at64, little) : BigInt(view.getUint32(at + narrow, little))
  const half = (narrow: number, at64: number): number =>
    view.getUint32(at + (wide ? at64 : narrow), little)
  const flags = word(8, 8)
  const where = header.sectionTable + at
  return {
    index,
    nameOffset: view.getUint32(at, little),
    type: view.getUint32(at + 4, little),
    flags,
    address: word(12, 16),
    offset: fileOffset(word(16, 24), 'section offset', where),
    size: fileOffset(word(20, 32), 'section size', where),
    link: half(24, 40),
    info: half(28, 44),
    entrySize: fileOffset(word(36, 56), 'section entry size', where),
    compressed: (flags & BigInt(SHF_COMPRESSED)) !== 0n,
  }
}

function fileOffset(value: bigint, what: string, at: number): number {
  if (value > MAX_OFFSET) {
    throw new BtfError('invalid_elf', `${what} of ${value} bytes: expected less than 2^52`, at)
  }
  return Number(value)
}

/**
 * The names of a string table. Names may overlap, so their total length is limited too. Errors: `invalid_elf`,
 * `too_large`.
 */
class NameTable {
  readonly #bytes: Uint8Array
  /** byte offset of the table in the file */
  readonly #offset: number
  #budget = MAX_NAME_TABLE

  constructor(bytes: Uint8Array, offset: number) {
    this.#bytes = bytes
    this.#offset = offset
  }

  at(offset: number): string {
    const end = this.#bytes.indexOf(0, offset)
    if (offset >= this.#bytes.length || end < 0) {
      throw new BtfError(
        'invalid_elf',
        'a name lies outside its string table',
        this.#offset + offset,
      )
    }
    this.#budget -= end - offset
    if (end - offset > MAX_NAME || this.#budget < 0) {
      throw new BtfError(
        'too_large',
        `a name has more than ${MAX_NAME} bytes, or all together more than ${MAX_NAME_TABLE}`,
        this.#offset + offset,
      )
    }
    return decodeLatin1(this.#bytes.subarray(offset, end))
  }
}
