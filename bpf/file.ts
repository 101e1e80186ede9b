/* BTF comes raw or in the `.BTF` section of an ELF file: vmlinux, a module, a BPF object. */

import { type Btf, type ParseOptions, parseBtf } from './btf.ts'
import { memorySource } from './bytes.ts'
import { isElf, openElf } from './elf.ts'

/**
 * Opens BTF from a file's bytes, raw or in ELF: what `bpftool` and libbpf's `btf__parse` take. Errors: those of
 * `parseBtf` and `openElf`, and `missing_section` for an ELF file without `.BTF`.
 */
export function readBtf(bytes: Uint8Array, options: ParseOptions = {}): Btf {
  return parseBtf(isElf(bytes) ? openElf(memorySource(bytes)).read('.BTF') : bytes, options)
}
