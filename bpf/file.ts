/* Files with BTF: raw BTF, or an ELF file (vmlinux, module, BPF object) with a `.BTF` section. */

import { type Btf, type ParseOptions, parseBtf } from './btf.ts'
import { memorySource } from './bytes.ts'
import { isElf, openElf } from './elf.ts'

/**
 * Opens the BTF of a file, raw or in ELF, as `bpftool` and libbpf's `btf__parse` do. Errors: `missing_section` for an ELF
 * file without `.BTF`; those of `parseBtf` and `openElf`.
 */
export function readBtf(bytes: Uint8Array, options: ParseOptions = {}): Btf {
  return parseBtf(isElf(bytes) ? openElf(memorySource(bytes)).read('.BTF') : bytes, options)
}
