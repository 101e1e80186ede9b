/* Files with BTF: raw BTF, or an ELF file (vmlinux, module, BPF object) with a `.BTF` section. */

import { type Btf, type ParseOptions, parseBtf } from './btf.ts'
import { memorySource } from './bytes.ts'
import { relocateBase } from './distilled-base.ts'
import { isElf, openElf } from './elf.ts'

/**
 * Opens the BTF of a file, raw or in ELF, as `bpftool` and libbpf's `btf__parse` do. A module with a distilled base
 * (`.BTF.base`) is relocated onto the given base; without one it is opened over its distilled base. Errors:
 * `missing_section` for an ELF file without `.BTF`; those of `parseBtf`, `openElf` and `relocateBase`.
 */
export function readBtf(bytes: Uint8Array, options: ParseOptions = {}): Btf {
  if (!isElf(bytes)) return parseBtf(bytes, options)
  const elf = openElf(memorySource(bytes))
  const own = elf.read('.BTF')
  const distilled = elf.section('.BTF.base')
  if (!distilled) return parseBtf(own, options)
  const { base, ...rest } = options
  const split = parseBtf(own, { ...rest, base: parseBtf(elf.read(distilled), rest) })
  return base ? parseBtf(relocateBase(split, base), options) : split
}
