/*
 * `.BTF.ext`: what clang says of the instructions of a BPF object, beside its types: which function begins where, which
 * source line each came from, and which of them CO-RE has to patch. Three tables of records, grouped by ELF section
 * (libbpf src/btf.c `btf_ext_parse_info`, include/uapi/linux/bpf.h `struct bpf_core_relo`).
 */

import type { Btf } from './btf.ts'
import { viewOf } from './bytes.ts'
import { BtfError } from './error.ts'
import { BTF_VERSION, btfByteOrder } from './header.ts'

/** Which function begins at an instruction. */
export interface FunctionInfo {
  /** the ELF section */
  readonly section: string
  /** bytes from the start of the section */
  readonly offset: number
  /** its FUNC in the object's BTF */
  readonly type: number
}

/** Which source line an instruction, and those up to the next record, came from. */
export interface LineInfo {
  readonly section: string
  readonly offset: number
  readonly file: string
  /** the source line itself, '' where the compiler had none */
  readonly text: string
  /** counted from 1 */
  readonly line: number
  readonly column: number
}

/** The kinds of relocations, by number, as libbpf names them (`core_relo_kind_str`). */
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

/** One instruction to patch, and by what. */
export interface CoreRelocation {
  readonly section: string
  /** its number among the relocations of its section */
  readonly index: number
  /** bytes from the start of the section to the instruction */
  readonly offset: number
  /** the root type in the object's BTF */
  readonly type: number
  /** the way from the root type: `0:1:2`, indices of members, elements or values */
  readonly access: string
  /** 'unknown' for a number that no libbpf knows */
  readonly kind: RelocationKind | 'unknown'
}

/** Records of one table; the largest objects known have some ten thousand. */
const MAX_RECORDS = 1 << 20
/** Characters of all strings that the records refer to: each may be the tail of another. */
const MAX_TEXT = 64 << 20

export interface BtfExt {
  readonly functions: readonly FunctionInfo[]
  readonly lines: readonly LineInfo[]
  readonly relocations: readonly CoreRelocation[]
}

const HEADER_SIZE = 24
const HEADER_WITH_RELOCATIONS_SIZE = 32

/**
 * Reads `.BTF.ext`; `btf` is that of the same object. Errors: `invalid_header`, `invalid_type` for a table that
 * does not hold together, `truncated`, `too_large`, `unsupported`, `invalid_name`, `invalid_type_id`.
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
      file: tables.string(at + 4),
      text: tables.string(at + 8),
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
  /** by their offsets: thousands of records name one file */
  readonly #strings = new Map<number, string>()
  #room = MAX_TEXT

  constructor(bytes: Uint8Array, btf: Btf) {
    const byteOrder = btfByteOrder(bytes)
    if (!byteOrder) throw new BtfError('invalid_header', '.BTF.ext has no BTF magic', 0)
    if (byteOrder !== btf.byteOrder) {
      throw new BtfError('invalid_header', '.BTF and .BTF.ext differ in byte order', 0)
    }
    if (bytes.length < HEADER_SIZE) throw new BtfError('truncated', '.BTF.ext is cut off', 0)
    if (bytes[2] !== BTF_VERSION || bytes[3] !== 0) {
      throw new BtfError('unsupported', `.BTF.ext version ${bytes[2]}, flags ${bytes[3]}`, 2)
    }
    this.#view = viewOf(bytes)
    this.#little = byteOrder === 'little'
    this.#btf = btf
    this.#headerSize = this.word(4)
    if (this.#headerSize < HEADER_SIZE) {
      throw new BtfError('invalid_header', `.BTF.ext header of ${this.#headerSize} bytes`, 4)
    }
    if (this.#headerSize > bytes.length) throw new BtfError('truncated', '.BTF.ext is cut off', 4)
  }

  word(at: number): number {
    return this.#view.getUint32(at, this.#little)
  }

  typeId(at: number): number {
    const id = this.word(at)
    if (id >= this.#btf.endId) throw new BtfError('invalid_type_id', `type ${id} in .BTF.ext`, at)
    return id
  }

  string(at: number): string {
    const offset = this.word(at)
    const known = this.#strings.get(offset)
    if (known !== undefined) return known
    if (offset >= this.#btf.stringsEnd) {
      throw new BtfError('invalid_name', `name at ${offset} in .BTF.ext`, at)
    }
    const text = this.#btf.string(offset)
    this.#room -= text.length
    if (this.#room < 0) throw new BtfError('too_large', 'names in .BTF.ext are too long', at)
    this.#strings.set(offset, text)
    return text
  }

  /** The records of the table whose offset and length are in the header at `field`, each at least `least` bytes. */
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
      throw new BtfError('invalid_header', 'a table of .BTF.ext is not aligned or empty', field)
    }
    const size = this.word(start)
    if (size < least || size % 4 !== 0) {
      throw new BtfError('invalid_type', `.BTF.ext records of ${size} bytes`, start)
    }
    if (length === 4) throw new BtfError('invalid_type', '.BTF.ext table without records', start)
    const records: T[] = []
    for (let at = start + 4; at < end; ) {
      const count = at + 8 <= end ? this.word(at + 4) : 0
      const next = at + 8 + count * size
      if (count === 0 || next > end) {
        throw new BtfError('invalid_type', '.BTF.ext: a section has no records, or too many', at)
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
