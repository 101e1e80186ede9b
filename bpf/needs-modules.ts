/* Whether an object needs the BTF of a kernel's modules, of which there may be thousands. */

import type { Btf } from './btf.ts'
import { findCandidates } from './candidate.ts'
import { lacksSymbols } from './kernel-symbol.ts'
import type { BpfObject } from './object.ts'

/**
 * True if an object has a root type without a candidate in vmlinux, or asks for a symbol that vmlinux lacks: then libbpf
 * reads the BTF of modules.
 */
export function needsModules(object: BpfObject, vmlinux: Btf): boolean {
  const found = findCandidates(object.btf, vmlinux, object.ext.relocations)
  return [...found.values()].some((ids) => ids.length === 0) || lacksSymbols(object, vmlinux)
}
