/*
 * The functions that the compiler inlined somewhere, from the section `.BTF.inline` of a vmlinux (kernels from 7.4 on,
 * CONFIG_DEBUG_INFO_BTF_INLINE). It is split BTF over `.BTF`, with a LOCSEC for each section of the kernel's code. A
 * stripped image has it, too, so it answers where there is no DWARF.
 */

import { type Btf, parseBtf } from './btf.ts'
import type { Elf } from './elf.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import type { LocsecType } from './type.ts'

/** The section's name. */
export const INLINE_SECTION = '.BTF.inline'
/** Bytes of `.BTF` and `.BTF.inline` each. That of a distribution's kernel has some 10 MB. */
const MAX_SECTION = 256 * 1024 ** 2

/**
 * Returns the names of the functions of which `.BTF.inline` lists an inlined call. Errors: `missing_section` without it
 * or without `.BTF`; `too_large`; those of `parseBtf` and `Elf.read`.
 */
export function inlinedFunctions(elf: Elf): Set<string> {
  const base = parseBtf(sectionOf(elf, '.BTF'))
  const inline = parseBtf(sectionOf(elf, INLINE_SECTION), { base })
  const functions = new Set<number>()
  for (let id = inline.startId; id < inline.endId; id++) {
    if (inline.kind(id) !== KIND.LOCSEC) continue
    for (const { func } of (inline.type(id) as LocsecType).locations) functions.add(func)
  }
  return namesOf(inline, functions)
}

function namesOf(btf: Btf, ids: ReadonlySet<number>): Set<string> {
  const names = new Set<string>()
  for (const id of ids) if (btf.kind(id) === KIND.FUNC) names.add(btf.name(id))
  names.delete('')
  return names
}

function sectionOf(elf: Elf, name: string): Uint8Array {
  const section = elf.section(name)
  if (!section) throw new BtfError('missing_section', `the ELF file has no section ${name}`)
  if (section.size > MAX_SECTION)
    throw new BtfError(
      'too_large',
      `section ${name} has ${section.size} bytes: expected at most ${MAX_SECTION}`,
    )
  return elf.read(section)
}
