/* Whether an object needs the BTF of a kernel's modules, of which there may be thousands. */

import { findCandidates } from './candidate.ts'
import { queryOf } from './check.ts'
import { lacksSymbols } from './kernel-symbol.ts'
import type { BpfObject } from './object.ts'
import type { TypeSource } from './type-source.ts'

/**
 * True if an object has a root type without a candidate in vmlinux: then libbpf reads the BTF of modules. With
 * `symbols`, also if vmlinux lacks a function, tracepoint or symbol that it asks for, which `checkObject` looks up.
 */
export function needsModules(
  object: BpfObject,
  vmlinux: TypeSource,
  { symbols = false }: { symbols?: boolean } = {},
): boolean {
  // one pass finds what both look for
  const ids = symbols ? vmlinux.idsOf(queryOf(object)) : undefined
  const found = findCandidates(object.btf, vmlinux, object.ext.relocations, { ...(ids && { ids }) })
  if ([...found.values()].some((ids) => ids.length === 0)) return true
  return ids !== undefined && lacksSymbols(object, vmlinux, ids)
}
