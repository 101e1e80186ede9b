/*
 * The functions in the symbol table of a vmlinux. The kernel's own table, kallsyms, is made of the same symbols
 * (scripts/kallsyms.c), and kprobes look names up there.
 */

import type { ByteSource } from './bytes.ts'
import { type Elf, type ElfSymbol, openElf } from './elf.ts'
import { BtfError } from './error.ts'
import { FunctionList, type FunctionMark } from './function-list.ts'

const STT_FUNC = 2
/** Symbols with functions; a kernel with everything built in has half a million. */
const MAX_FUNCTIONS = 1 << 21
/** Section indexes from here on stand for no section (ABS, COMMON). */
const SHN_LORESERVE = 0xff00

/** The kernel frees or discards these sections, so nothing can be attached to what is in them. */
const GONE = /^\.(init|exit)\./

/** Padding before functions, which objtool and clang give names of their own. */
const PADDING = /^__(pfx|cfi)_/

/** Code in which the kernel refuses kprobes, by the symbols at its start and its end. */
const REFUSED = ['noinstr_text', 'kprobes_text', 'entry_text'] as const

/** Reads the functions of a vmlinux; undefined if it has no symbol table. Errors: those of `openElf`. */
export function readFunctions(source: ByteSource): FunctionList | undefined {
  const elf = openElf(source)
  if (!elf.hasSymbols) return undefined
  const refused = REFUSED.flatMap((name) => rangeOf(elf, name))
  const functions = new Map<string, Set<FunctionMark>>()
  const addresses = new Map<string, bigint>()
  let count = 0
  for (const symbol of elf.symbols(STT_FUNC)) {
    if (++count > MAX_FUNCTIONS)
      throw new BtfError('too_large', `over ${MAX_FUNCTIONS} functions in the symbol table`)
    if (!isKept(elf, symbol)) continue
    const { name, value } = symbol
    const marks = functions.get(name) ?? new Set()
    functions.set(name, marks)
    if (addresses.has(name) && addresses.get(name) !== value) marks.add('several')
    addresses.set(name, value)
    if (refused.some(({ start, end }) => value >= start && value < end)) marks.add('refused')
  }
  return functions.size === 0 ? undefined : FunctionList.of(functions)
}

function isKept(elf: Elf, { name, section }: ElfSymbol): boolean {
  if (section === 0 || section >= SHN_LORESERVE || name === '' || PADDING.test(name)) return false
  return !GONE.test(elf.sections[section]?.name ?? '')
}

function rangeOf(elf: Elf, name: string): { start: bigint; end: bigint }[] {
  const [start, end] = [elf.symbol(`__${name}_start`), elf.symbol(`__${name}_end`)]
  return start && end ? [{ start: start.value, end: end.value }] : []
}
