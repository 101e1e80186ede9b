/*
 * What the instructions of an object refer to by ELF relocations: functions, maps, data, and the kernel's own symbols,
 * told apart as libbpf does it (src/libbpf.c `bpf_program__record_reloc`, `bpf_object__collect_externs`).
 */

import type { Btf } from './btf.ts'
import type { Elf, ElfSection, ElfSymbol } from './elf.ts'
import { CALL, INSTRUCTION_SIZE, LDIMM64, PSEUDO_CALL, readInstruction } from './instruction.ts'
import { KIND } from './kind.ts'
import { resolve } from './layout.ts'
import type { BpfProgram } from './program.ts'
import type { DatasecType } from './type.ts'

const STB_WEAK = 2
const SHN_UNDEF = 0
const SHF_EXECINSTR = 4n
const SHT_NOBITS = 8
/** Data that the verifier may look at; a larger section is read as unknown. */
const MAX_DATA = 16 << 20

/** A symbol that the object expects from the kernel: `extern … __ksym` or `extern … __kconfig`. */
export interface BpfExtern {
  readonly name: string
  /** `kfunc`: a function; `ksym`: a variable or an address; `kconfig`: a value of the kernel's configuration */
  readonly kind: 'kfunc' | 'ksym' | 'kconfig'
  /** the object loads without it */
  readonly weak: boolean
  /** declared as `void`: an address, which /proc/kallsyms tells */
  readonly typeless: boolean
  /** id in the object's BTF: the FUNC or VAR */
  readonly id: number
}

export type Reference =
  | { readonly is: 'function'; readonly target: BpfProgram }
  | { readonly is: 'map'; readonly name: string }
  /** `offset` bytes into a data section */
  | { readonly is: 'data'; readonly section: string; readonly offset: number }
  | { readonly is: 'extern'; readonly extern: BpfExtern }
  /** anything else, which libbpf refuses or this library does not know */
  | { readonly is: 'unknown' }

export interface References {
  /** by section, then by the byte offset of the instruction in it */
  readonly references: ReadonlyMap<string, ReadonlyMap<number, Reference>>
  /** the symbols that the object expects from the kernel, sorted by name */
  readonly externs: readonly BpfExtern[]
  /** bytes of the sections that the kernel freezes: `.rodata` and `.rodata.*` */
  readonly constants: ReadonlyMap<string, Uint8Array>
}

/** Reads the references of the executable sections. Errors: those of `Elf.relocations` and `Elf.read`. */
export function readReferences(
  elf: Elf,
  symbols: readonly ElfSymbol[],
  executable: readonly ElfSection[],
  btf: Btf,
  functionAt: (section: string, offset: number) => BpfProgram | undefined,
): References {
  const externs = readExterns(btf, symbols)
  const resolve = (symbol: ElfSymbol | undefined, immediate: number): Reference => {
    if (!symbol) return { is: 'unknown' }
    if (symbol.section === SHN_UNDEF) {
      const extern = externs.get(symbol.name)
      return extern ? { is: 'extern', extern } : { is: 'unknown' }
    }
    const section = elf.sections[symbol.section]
    if (!section) return { is: 'unknown' }
    const offset = Number(symbol.value) + immediate
    if ((section.flags & SHF_EXECINSTR) !== 0n) {
      const target = functionAt(section.name, offset)
      return target?.offset === offset ? { is: 'function', target } : { is: 'unknown' }
    }
    if (section.name === '.maps' || section.name === 'maps') {
      return { is: 'map', name: symbol.name }
    }
    return { is: 'data', section: section.name, offset }
  }
  const references = new Map(
    executable.map((section) => {
      const bytes = elf.read(section)
      const found = new Map<number, Reference>()
      for (const { offset, symbol } of elf.relocations(section)) {
        if (offset % INSTRUCTION_SIZE !== 0 || offset + INSTRUCTION_SIZE > bytes.length) continue
        const { code, source, immediate } = readInstruction(bytes, offset, elf.byteOrder)
        if (code === LDIMM64) found.set(offset, resolve(symbols[symbol], immediate))
        else if (code === CALL && symbols[symbol]?.section === SHN_UNDEF) {
          found.set(offset, resolve(symbols[symbol], 0))
        } else if (code !== CALL || source !== PSEUDO_CALL) found.set(offset, { is: 'unknown' })
      }
      return [section.name, found] as const
    }),
  )
  const constants = new Map(
    elf.sections
      .filter(({ name, type, size }) => isFrozen(name) && type !== SHT_NOBITS && size <= MAX_DATA)
      .map((section) => [section.name, elf.read(section)]),
  )
  const sorted = [...externs.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
  return { references, externs: sorted, constants }
}

function isFrozen(section: string): boolean {
  return section === '.rodata' || section.startsWith('.rodata.')
}

/** The undefined symbols that the object's BTF lists in `.ksyms` or `.kconfig`. */
function readExterns(btf: Btf, symbols: readonly ElfSymbol[]): Map<string, BpfExtern> {
  const declared = new Map<string, Omit<BpfExtern, 'weak'>>()
  for (let at = btf.startId; at < btf.endId; at++) {
    if (btf.kind(at) !== KIND.DATASEC) continue
    const section = btf.type(at) as DatasecType
    if (section.name !== '.ksyms' && section.name !== '.kconfig') continue
    for (const { type: id } of section.variables) {
      const declaration = btf.type(id)
      const kind =
        section.name === '.kconfig' ? 'kconfig' : declaration.kind === 'FUNC' ? 'kfunc' : 'ksym'
      const typeless = kind === 'ksym' && resolve(btf, btf.sizeOrType(id)) === 0
      declared.set(declaration.name, { name: declaration.name, kind, id, typeless })
    }
  }
  const externs = new Map<string, BpfExtern>()
  for (const { name, section, binding } of symbols) {
    const extern = section === SHN_UNDEF ? declared.get(name) : undefined
    if (extern) externs.set(name, { ...extern, weak: binding === STB_WEAK })
  }
  return externs
}
