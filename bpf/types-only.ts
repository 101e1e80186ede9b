/*
 * Leaves out of BTF what is not a type of data: functions, variables, their sections and tags. BTF of an object file that
 * only includes headers has the object's own functions, which are not the kernel's.
 */

import type { Btf } from './btf.ts'
import { encodeBtf } from './encode.ts'
import { renumbered } from './renumber.ts'
import type { BtfType } from './type.ts'

const SYMBOLS: ReadonlySet<BtfType['kind']> = new Set([
  ...(['FUNC', 'VAR', 'DATASEC', 'LOC_PARAM', 'LOC_PROTO', 'LOCSEC'] as const),
])

/** Returns BTF with the types alone, in the same order and with new ids. Errors: `unsupported` for split BTF. */
export function typesOnly(btf: Btf): Uint8Array {
  const ids = new Map<number, number>()
  const kept: BtfType[] = []
  for (const type of btf.types()) {
    if (SYMBOLS.has(type.kind)) continue
    // a tag follows what it is on
    if (type.kind === 'DECL_TAG' && !ids.has(type.type)) continue
    ids.set(type.id, ids.size + 1)
    kept.push(type)
  }
  const types = kept.map((type) => renumbered(type, (id) => ids.get(id) ?? 0))
  return encodeBtf(types, { byteOrder: btf.byteOrder })
}
