/*
 * `.BTF.ext`: information about the instructions of a BPF object, which clang writes beside the types. It has three
 * tables of records, grouped by ELF section: where functions begin, which source line an instruction comes from, and
 * which instructions CO-RE patches (libbpf src/btf.c `btf_ext_parse_info`, include/uapi/linux/bpf.h
 * `struct bpf_core_relo`).
 */

import type { Btf } from './btf.ts'
import { viewOf } from './bytes.ts'
import { BtfError } from './error.ts'
import { BTF_VERSION, btfByteOrder } from './header.ts'
import { short } from './short.ts'

/** A function and the instruction at which it begins. */
export interface FunctionInfo {
  /** the ELF section */
  readonly section: string
  /** bytes from the start of the section */
  readonly offset: number
  /** id of its FUNC in the object's BTF */
  readonly type: number
}

/** The source line of an instruction and of those that follow it, up to the next record. */
export interface LineInfo {
  readonly section: string
  readonly offset: number
  /** at most 300 characters, like `text` */
  readonly file: string
  /** the text of the line, '' where the compiler did not have it */
  readonly text: string
  /** counted from 1 */
  readonly line: number
  readonly column: number
}

/** The kinds of relocations, indexed by number, with libbpf's names (`core_relo_kind_str`). */
export const RELOCATION_KINDS = [
  'byte_off',
  'byte_sz',
  'field_exists',
  'signed',
  'lshift_u64',
  'rshift_u64',
  'local_type_id',
  'target_type_id',
  'type_exists',
  'type_size',
  'enumval_exists',
  'enumval_value',
  'type_matches',
] as const

export type RelocationKind = (typeof RELOCATION_KINDS)[number]

/** A CO-RE relocation: an instruction to patch, and the meaning of its value. */
export interface CoreRelocation {
  readonly section: string
  /** index among the relocations of its section */
  readonly index: number
  /** bytes from the start of the section to the instruction */
  readonly offset: number
  /** id of the root type in the object's BTF */
  readonly type: number
  /** path from the root type: `0:1:2`, indices of members, elements or values */
  readonly access: string
  /** 'unknown' for a number that libbpf does not know */
  readonly kind: RelocationKind | 'unknown'
}

/** Records of one table; the largest known objects have some ten thousand. */
const MAX_RECORDS = 1 << 20
/** Characters of all strings that the records name: strings may overlap. */
const MAX_TEXT = 64 << 20

export interface BtfExt {
  readonly functions: readonly FunctionInfo[]
  readonly lines: readonly LineInfo[]
  readonly relocations: readonly CoreRelocation[]
}

const HEADER_SIZE = 24
const HEADER_WITH_RELOCATIONS_SIZE = 32

/**
 * Parses `.BTF.ext`; `btf` is the BTF of the same object. Errors: `invalid_header`, `invalid_type` for an inconsistent
 * table, `truncated`, `too_large`, `unsupported`, `invalid_name`, `invalid_type_id`.
 */
export function parseExt(bytes: Uint8Array, btf: Btf): BtfExt {
  const tables = new Tables(bytes, btf)
  return {
    functions: tables.records(8, 8, (section, at) => ({
      section,
      offset: tables.word(at),
      type: tables.typeId(at + 4),
    })),
    lines: tables.records(16, 16, (section, at) => ({
      section,
      offset: tables.word(at),
      file: short(tables.string(at + 4)),
      text: short(tables.string(at + 8)),
      line: tables.word(at + 12) >>> 10,
      column: tables.word(at + 12) & 0x3ff,
    })),
    relocations: tables.records(24, 16, (section, at, index) => ({
      section,
      index,
      offset: tables.word(at),
      type: tables.typeId(at + 4),
      access: tables.string(at + 8),
      kind: RELOCATION_KINDS[tables.word(at + 12)] ?? 'unknown',
    })),
  }
}

class Tables {
  readonly #view: DataView
  readonly #little: boolean
  readonly #btf: Btf
  readonly #headerSize: number
  /** decoded strings by offset: thousands of records name one file */
  readonly #strings = new Map<number, string>()
  #budget = MAX_TEXT

  constructor(bytes: Uint8Array, btf: Btf) {
    const byteOrder = btfByteOrder(bytes)
    if (!byteOrder)
      throw new BtfError('invalid_header', 'not .BTF.ext: the magic 0xeb9f is missing', 0)
    if (byteOrder !== btf.byteOrder) {
      throw new BtfError(
        'invalid_header',
        `.BTF.ext is ${byteOrder}-endian, but .BTF is ${btf.byteOrder}-endian`,
        0,
      )
    }
    if (bytes.length < HEADER_SIZE) throw new BtfError('truncated', '.BTF.ext is cut off', 0)
    if (bytes[2] !== BTF_VERSION || bytes[3] !== 0) {
      throw new BtfError(
        'unsupported',
        `unsupported .BTF.ext version ${bytes[2]}, flags ${bytes[3]}: expected version ${BTF_VERSION}, flags 0`,
        2,
      )
    }
    this.#view = viewOf(bytes)
    this.#little = byteOrder === 'little'
    this.#btf = btf
    this.#headerSize = this.word(4)
    if (this.#headerSize < HEADER_SIZE) {
      throw new BtfError(
        'invalid_header',
        `invalid .BTF.ext header size ${this.#headerSize}: expected at least ${HEADER_SIZE}`,
        4,
      )
    }
    if (this.#headerSize > bytes.length) throw new BtfError('truncated', '.BTF.ext is cut off', 4)
  }

  word(at: number): number {
    return this.#view.getUint32(at, this.#little)
  }

  typeId(at: number): number {
    const id = this.word(at)
    if (id >= this.#btf.endId)
      throw new BtfError(
        'invalid_type_id',
        `invalid type id ${id} in .BTF.ext: expected less than ${this.#btf.endId}`,
        at,
      )
    return id
  }

  string(at: number): string {
    const offset = this.word(at)
    const known = this.#strings.get(offset)
    if (known !== undefined) return known
    if (offset >= this.#btf.stringsEnd) {
      throw new BtfError(
        'invalid_name',
        `invalid string offset ${offset} in .BTF.ext: the strings end at ${this.#btf.stringsEnd}`,
        at,
      )
    }
    const text = this.#btf.string(offset)
    this.#budget -= text.length
    if (this.#budget < 0)
      throw new BtfError(
        'too_large',
        `the strings of .BTF.ext have more than ${MAX_TEXT} characters`,
        at,
      )
    this.#strings.set(offset, text)
    return text
  }

  /** Reads the table whose offset and length are in the header at `field`. A record has at least `least` bytes. */
  records<T>(
    field: number,
    least: number,
    read: (section: string, at: number, index: number) => T,
  ): T[] {
    if (field >= HEADER_SIZE && this.#headerSize < HEADER_WITH_RELOCATIONS_SIZE) return []
    const length = this.word(field + 4)
    if (length === 0) return []
    const start = this.#headerSize + this.word(field)
    const end = start + length
    if (end > this.#view.byteLength) throw new BtfError('truncated', '.BTF.ext is cut off', field)
    if (this.word(field) % 4 !== 0 || length < 4) {
      throw new BtfError(
        'invalid_header',
        'a table of .BTF.ext is not aligned to 4 bytes, or too short',
        field,
      )
    }
    const size = this.word(start)
    if (size < least || size % 4 !== 0) {
      throw new BtfError(
        'invalid_type',
        `.BTF.ext records of ${size} bytes: expected a multiple of 4, at least ${least}`,
        start,
      )
    }
    if (length === 4)
      throw new BtfError('invalid_type', 'a table of .BTF.ext has no records', start)
    const records: T[] = []
    for (let at = start + 4; at < end; ) {
      const count = at + 8 <= end ? this.word(at + 4) : 0
      const next = at + 8 + count * size
      if (count === 0 || next > end) {
        throw new BtfError(
          'invalid_type',
          `a section in .BTF.ext has ${count} records, which do not fit its table`,
          at,
        )
      }
      if (records.length + count > MAX_RECORDS) {
        throw new BtfError('too_large', `.BTF.ext has more than ${MAX_RECORDS} records`, at)
      }
      const section = this.string(at)
      for (let i = 0; i < count; i++) records.push(read(section, at + 8 + i * size, i))
      at = next
    }
    return records
  }
}
