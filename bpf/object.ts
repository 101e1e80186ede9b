/*
 * A BPF object as clang makes it: an ELF file with programs in executable sections, their types in `.BTF`, and the CO-RE
 * relocations in `.BTF.ext`.
 */

import { type Btf, parseBtf } from './btf.ts'
import { type ByteOrder, memorySource } from './bytes.ts'
import { type Elf, type ElfSection, type ElfSymbol, openElf } from './elf.ts'
import { encodeBtf } from './encode.ts'
import { BtfError } from './error.ts'
import { type BtfExt, parseExt } from './ext.ts'
import { CALL, INSTRUCTION_SIZE, LDIMM64, PSEUDO_CALL, readInstruction } from './instruction.ts'
import { type BpfProgram, programAt } from './program.ts'
import { type References, readReferences } from './reference.ts'

const EM_BPF = 247
const SHT_PROGBITS = 1
const SHT_NOBITS = 8
const SHF_EXECINSTR = 4n
const STT_FUNC = 2
const STB_LOCAL = 0
const STV_HIDDEN = 2
const MAX_OBJECT = 256 << 20
const MAX_PROGRAMS = 1 << 16

/** A call from one program or subprogram to another. */
export interface BpfCall {
  readonly section: string
  /** bytes from the start of the section to the call */
  readonly offset: number
  readonly target: BpfProgram
}

export interface BpfObject extends References {
  readonly byteOrder: ByteOrder
  readonly btf: Btf
  readonly ext: BtfExt
  /** sorted by section, then offset */
  readonly programs: readonly BpfProgram[]
  readonly calls: readonly BpfCall[]
  /** instructions of the executable sections, by section name */
  readonly code: ReadonlyMap<string, Uint8Array>
}

/**
 * Opens a BPF object. One without `.BTF` (built without -g) or `.BTF.ext` has no relocations; libbpf loads it as it is.
 * Errors: `unsupported` for ELF of another machine; those of `openElf`, `parseBtf` and `parseExt`.
 */
export function openObject(bytes: Uint8Array): BpfObject {
  if (bytes.length > MAX_OBJECT) {
    throw new BtfError(
      'too_large',
      `the object has ${bytes.length} bytes: expected at most ${MAX_OBJECT}`,
      MAX_OBJECT,
    )
  }
  const elf = openElf(memorySource(bytes))
  // clang before 4.0 wrote EM_NONE, which libbpf accepts too
  if (elf.machine !== EM_BPF && elf.machine !== 0) {
    throw new BtfError(
      'unsupported',
      `the ELF file is for machine ${elf.machine}: expected ${EM_BPF} (BPF)`,
      18,
    )
  }
  const { btf, ext } = readTypes(elf)
  checkOverlap(elf, bytes.length)
  const named = new Map<string, ElfSection>()
  for (const section of elf.sections) {
    const isCode = (section.flags & SHF_EXECINSTR) !== 0n && section.type === SHT_PROGBITS
    // of two sections with one name only the first counts, with its programs (libbpf `elf_sec_by_name`)
    if (isCode && !named.has(section.name)) named.set(section.name, section)
  }
  const executable = [...named.values()]
  const code = new Map(executable.map((section) => [section.name, elf.read(section)]))
  const symbols = [...elf.symbols()]
  const programs = readPrograms(elf, symbols, executable)
  const calls = executable.flatMap((section) => readCalls(elf, symbols, section, programs))
  const references = readReferences(elf, symbols, executable, btf, (name, offset) =>
    programAt(programs, name, offset),
  )
  return { byteOrder: elf.byteOrder, btf, ext, programs, calls, code, ...references }
}

const NO_EXT: BtfExt = { functions: [], lines: [], relocations: [] }

/** The types and relocations; none where the section is missing. libbpf ignores `.BTF.ext` without `.BTF`. */
function readTypes(elf: Elf): Pick<BpfObject, 'btf' | 'ext'> {
  const types = elf.section('.BTF')
  const bytes = types ? elf.read(types) : encodeBtf([], { byteOrder: elf.byteOrder })
  // pointers in BPF have 8 bytes, even if the headers were made for a 32-bit `long`
  const btf = parseBtf(bytes, { pointerSize: 8 })
  const ext = types && elf.section('.BTF.ext')
  return { btf, ext: ext ? parseExt(elf.read(ext), btf) : NO_EXT }
}

/** Rejects sections that share bytes, which would be read again and again. Errors: `invalid_elf`. */
function checkOverlap(elf: Elf, size: number): void {
  let sum = 0
  for (const section of elf.sections) {
    if (section.type !== SHT_NOBITS) sum += section.size
    if (sum > size) throw new BtfError('invalid_elf', 'sections overlap', section.offset)
  }
}

function readPrograms(
  elf: Elf,
  symbols: readonly ElfSymbol[],
  executable: readonly ElfSection[],
): BpfProgram[] {
  const programs: BpfProgram[] = []
  const sections = new Set(executable)
  for (const symbol of symbols) {
    const section = elf.sections[symbol.section]
    if (symbol.type !== STT_FUNC || !section || !sections.has(section)) continue
    const offset = Number(symbol.value)
    const { name, size, binding, visibility } = symbol
    if (offset + size > section.size) {
      throw new BtfError(
        'invalid_elf',
        `program ${name} ends outside section ${section.name}`,
        section.size,
      )
    }
    if (offset % INSTRUCTION_SIZE !== 0 || size % INSTRUCTION_SIZE !== 0) {
      throw new BtfError(
        'invalid_elf',
        `offset ${offset} or size ${size} of program ${name} is not a multiple of ${INSTRUCTION_SIZE}`,
        offset,
      )
    }
    if (programs.length === MAX_PROGRAMS) {
      throw new BtfError('too_large', `the object has more than ${MAX_PROGRAMS} programs`, offset)
    }
    const global = binding !== STB_LOCAL && visibility !== STV_HIDDEN
    programs.push({ name, section: section.name, offset, size, global })
  }
  return programs.sort((a, b) =>
    a.section === b.section ? a.offset - b.offset : a.section < b.section ? -1 : 1,
  )
}

/**
 * Finds the calls between programs. Within a section the immediate is a distance in instructions; a call to another
 * section has an ELF relocation, whose symbol is the target (libbpf src/libbpf.c `bpf_object__reloc_code`).
 */
function readCalls(
  elf: Elf,
  symbols: readonly ElfSymbol[],
  section: ElfSection,
  programs: readonly BpfProgram[],
): BpfCall[] {
  const bytes = elf.read(section)
  const relocated = new Map([...elf.relocations(section)].map((r) => [r.offset, r.symbol]))
  const calls: BpfCall[] = []
  for (let at = 0; at + INSTRUCTION_SIZE <= bytes.length; at += INSTRUCTION_SIZE) {
    const { code, source, immediate } = readInstruction(bytes, at, elf.byteOrder)
    if (code === LDIMM64) at += INSTRUCTION_SIZE
    if (code !== CALL || source !== PSEUDO_CALL) continue
    const symbol = symbols[relocated.get(at) ?? -1]
    const base = symbol
      ? Number(symbol.value) - (symbol.type === STT_FUNC ? immediate + 1 : 0) * 8
      : at
    const sectionName = symbol ? elf.sections[symbol.section]?.name : section.name
    const offset = base + (immediate + 1) * INSTRUCTION_SIZE
    const target = sectionName === undefined ? undefined : programAt(programs, sectionName, offset)
    if (target?.offset === offset) calls.push({ section: section.name, offset: at, target })
  }
  return calls
}
