/*
 * Raw BTF as the section `.BTF` of an ELF file, for loaders that look for a vmlinux: libbpf before 1.1 and cilium/ebpf
 * before 0.13 take no raw BTF from their search path. The file has no code. It has a symbol table with the empty first
 * symbol (System V ABI, chapter 4), because cilium/ebpf before 0.10 refuses a file without one, and a `.comment` that says
 * who made it.
 */
import { type ByteOrder, concatBytes, encodeText, memorySource } from './bytes.ts'
import { isElf, openElf } from './elf.ts'
import { BtfError } from './error.ts'

/** The text of `.comment`. */
const MAKER = 'btfmill'

const [PROGBITS, SYMTAB, STRTAB] = [1, 2, 3]
const EM_NONE = 0
const ET_REL = 1

export interface WrapOptions {
  /** of the BTF */
  byteOrder: ByteOrder
  /** bytes of a pointer of the kernel; libbpf takes it from the class of the file */
  pointerSize: 4 | 8
}

interface SectionPlan {
  name: string
  type: number
  bytes: Uint8Array
  align: number
  link?: number
  info?: number
  entrySize?: number
}

/** Wraps raw BTF into an ELF file with the section `.BTF`. */
export function wrapInElf(raw: Uint8Array, { byteOrder, pointerSize }: WrapOptions): Uint8Array {
  const wide = pointerSize === 8
  const symbolSize = wide ? 24 : 16
  const sections: SectionPlan[] = [
    { name: '', type: 0, bytes: new Uint8Array(), align: 0 },
    { name: '.BTF', type: PROGBITS, bytes: raw, align: 8 },
    { name: '.comment', type: PROGBITS, bytes: encodeText(`${MAKER}\0`), align: 1 },
    {
      ...{ name: '.symtab', type: SYMTAB, bytes: new Uint8Array(symbolSize), align: 8 },
      ...{ link: 4, info: 1, entrySize: symbolSize },
    },
    { name: '.strtab', type: STRTAB, bytes: new Uint8Array(1), align: 1 },
  ]
  const names = [...sections.map(({ name }) => name), '.shstrtab']
  const nameTable = encodeText(`${names.join('\0')}\0`)
  sections.push({ name: '.shstrtab', type: STRTAB, bytes: nameTable, align: 1 })

  const headerSize = wide ? 64 : 52
  const pieces: Uint8Array[] = []
  let offset = headerSize
  const add = (bytes: Uint8Array, align: number): number => {
    const padding = align > 0 ? (align - (offset % align)) % align : 0
    pieces.push(new Uint8Array(padding), bytes)
    const start = offset + padding
    offset = start + bytes.length
    return start
  }
  const starts = sections.map(({ bytes, align }) => add(bytes, align))

  const nameAt = (at: number) => names.slice(0, at).reduce((sum, name) => sum + name.length + 1, 0)
  const table = new Fields(byteOrder, wide)
  for (const [at, { type, bytes, align, link = 0, info = 0, entrySize = 0 }] of sections.entries())
    table
      .word(nameAt(at), type)
      .native(0, 0, at === 0 ? 0 : starts[at]!, bytes.length)
      .word(link, info)
      .native(align, entrySize)
  const tableAt = add(table.bytes(), 8)

  const identity = Uint8Array.of(
    0x7f,
    0x45,
    0x4c,
    0x46,
    wide ? 2 : 1,
    byteOrder === 'little' ? 1 : 2,
    1,
  )
  const header = new Fields(byteOrder, wide)
    .half(ET_REL, EM_NONE)
    .word(1)
    .native(0, 0, tableAt)
    .word(0)
    .half(headerSize, 0, 0, wide ? 64 : 40, sections.length, sections.length - 1)
  return concatBytes([identity, new Uint8Array(16 - identity.length), header.bytes(), ...pieces])
}

/** Tells whether a file was made by `wrapInElf`. */
export function isWrapped(bytes: Uint8Array): boolean {
  if (!isElf(bytes)) return false
  try {
    const elf = openElf(memorySource(bytes))
    const comment = elf.section('.comment')
    return (
      comment !== undefined &&
      elf.section('.BTF') !== undefined &&
      new TextDecoder().decode(elf.read(comment)) === `${MAKER}\0`
    )
  } catch (error) {
    if (error instanceof BtfError) return false
    throw error
  }
}

/** Numbers of 16, 32 and the file's own 32 or 64 bits, one after the other. */
class Fields {
  readonly #little: boolean
  readonly #wide: boolean
  readonly #pieces: Uint8Array[] = []

  constructor(byteOrder: ByteOrder, wide: boolean) {
    this.#little = byteOrder === 'little'
    this.#wide = wide
  }

  half(...values: number[]): this {
    return this.#add(values, 2, (view, value) => view.setUint16(0, value, this.#little))
  }

  word(...values: number[]): this {
    return this.#add(values, 4, (view, value) => view.setUint32(0, value, this.#little))
  }

  native(...values: number[]): this {
    if (!this.#wide) return this.word(...values)
    return this.#add(values, 8, (view, value) => view.setBigUint64(0, BigInt(value), this.#little))
  }

  bytes(): Uint8Array {
    return concatBytes(this.#pieces)
  }

  #add(values: number[], size: number, write: (view: DataView, value: number) => void): this {
    for (const value of values) {
      const view = new DataView(new ArrayBuffer(size))
      write(view, value)
      this.#pieces.push(new Uint8Array(view.buffer))
    }
    return this
  }
}
