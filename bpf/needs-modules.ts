/* Whether an object needs the BTF of a kernel's modules, of which there may be thousands. */

import type { Btf } from './btf.ts'
import { findCandidates } from './candidate.ts'
import { lacksSymbols } from './kernel-symbol.ts'
import type { BpfObject } from './object.ts'

/**
 * True if an object has a root type without a candidate in vmlinux: then libbpf reads the BTF of modules. With
 * `symbols`, also if vmlinux lacks a function, tracepoint or symbol that it asks for, which `checkObject` looks up.
 */
export function needsModules(
  object: BpfObject,
  vmlinux: Btf,
  { symbols = false }: { symbols?: boolean } = {},
): boolean {
  const found = findCandidates(object.btf, vmlinux, object.ext.relocations)
  if ([...found.values()].some((ids) => ids.length === 0)) return true
  return symbols && lacksSymbols(object, vmlinux)
}
