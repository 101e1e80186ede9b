/*
 * A BPF object as clang makes it: an ELF file with programs in executable sections, their types in `.BTF`, and what
 * CO-RE has to patch in `.BTF.ext`.
 */

import { type Btf, parseBtf } from './btf.ts'
import { type ByteOrder, memorySource } from './bytes.ts'
import { type ElfSection, openElf } from './elf.ts'
import { BtfError } from './error.ts'
import { type BtfExt, parseExt } from './ext.ts'
import { INSTRUCTION_SIZE } from './instruction.ts'

const EM_BPF = 247
const SHF_EXECINSTR = 4n
const STT_FUNC = 2
const MAX_OBJECT = 256 << 20

/** A program or subprogram: a function symbol in an executable section. */
export interface BpfProgram {
  readonly name: string
  readonly section: string
  /** bytes from the start of the section */
  readonly offset: number
  /** bytes */
  readonly size: number
}

export interface BpfObject {
  readonly byteOrder: ByteOrder
  readonly btf: Btf
  readonly ext: BtfExt
  /** by section and offset */
  readonly programs: readonly BpfProgram[]
  /** instructions of the executable sections, by the name of the section */
  readonly code: ReadonlyMap<string, Uint8Array>
}

/**
 * Opens a BPF object. Errors: those of `openElf`, `parseBtf` and `parseExt`; `missing_section` without `.BTF` or
 * `.BTF.ext`: such an object was built without -g and cannot be relocated; `unsupported` for another machine's ELF.
 */
export function openObject(bytes: Uint8Array): BpfObject {
  if (bytes.length > MAX_OBJECT) throw new BtfError('too_large', `object of ${bytes.length} bytes`)
  const elf = openElf(memorySource(bytes))
  // clang before 4.0 wrote EM_NONE, as libbpf knows
  if (elf.machine !== EM_BPF && elf.machine !== 0) {
    throw new BtfError('unsupported', `ELF for machine ${elf.machine}, not BPF`, 18)
  }
  // a pointer of a BPF program has 8 bytes, whatever `long` its headers were made for
  const btf = parseBtf(elf.read('.BTF'), { pointerSize: 8 })
  const ext = parseExt(elf.read('.BTF.ext'), btf)
  const executable = elf.sections.filter((s) => (s.flags & SHF_EXECINSTR) !== 0n && s.type === 1)
  const code = new Map<string, Uint8Array>()
  for (const section of executable) {
    if (!code.has(section.name)) code.set(section.name, elf.read(section))
  }
  const home = new Map<number, ElfSection>(executable.map((section) => [section.index, section]))
  const programs: BpfProgram[] = []
  for (const symbol of elf.symbols()) {
    const section = home.get(symbol.section)
    if (symbol.type !== STT_FUNC || !section) continue
    const offset = Number(symbol.value)
    if (offset + symbol.size > section.size) {
      throw new BtfError('bad_elf', `program ${symbol.name} ends outside its section`)
    }
    if (offset % INSTRUCTION_SIZE !== 0 || symbol.size % INSTRUCTION_SIZE !== 0) {
      throw new BtfError('bad_elf', `program ${symbol.name} is not made of instructions`)
    }
    programs.push({ name: symbol.name, section: section.name, offset, size: symbol.size })
  }
  programs.sort((a, b) =>
    a.section === b.section ? a.offset - b.offset : a.section < b.section ? -1 : 1,
  )
  return { byteOrder: elf.byteOrder, btf, ext, programs, code }
}

/** The program that an instruction lies in. */
export function programAt(
  object: BpfObject,
  section: string,
  offset: number,
): BpfProgram | undefined {
  return object.programs.find(
    (p) => p.section === section && offset >= p.offset && offset < p.offset + p.size,
  )
}
