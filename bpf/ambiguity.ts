/*
 * Names that stand for several structs or unions with different layouts. For libbpf all of them are candidates of a
 * relocation (src/relo_core.c `bpf_core_calc_relo_insn`), and the load fails as ambiguous where the matching ones
 * disagree. Names are compared without flavours, as libbpf compares them.
 */

import type { Btf } from './btf.ts'
import { decodeLatin1, decodeText } from './bytes.ts'
import { essentialName } from './flavour.ts'
import { KIND } from './kind.ts'
import { layoutOf } from './layout.ts'
import { short } from './short.ts'

/**
 * The names of a BTF's own structs and unions that have several layouts: sizes, or names, offsets and bitfield sizes of
 * members. Sorted. Errors: `cycle`.
 */
export function ambiguousStructs(btf: Btf): string[] {
  const byName = new Map<string, number[]>()
  for (let id = btf.startId; id < btf.endId; id++) {
    const kind = btf.kind(id)
    if (kind !== KIND.STRUCT && kind !== KIND.UNION) continue
    const name = btf.stringBytes(btf.word(id, 0))
    if (name.length === 0) continue
    const key = `${kind} ${decodeLatin1(essentialName(name))}`
    const ids = byName.get(key)
    if (ids) ids.push(id)
    else byName.set(key, [id])
  }
  const names = new Set<string>()
  for (const ids of byName.values()) {
    if (ids.length === 1 || haveOneLayout(btf, ids)) continue
    names.add(short(decodeText(essentialName(btf.stringBytes(btf.word(ids[0]!, 0))))))
  }
  return [...names].sort()
}

function haveOneLayout(btf: Btf, ids: readonly number[]): boolean {
  const [first, ...others] = ids.map((id) => {
    const type = btf.type(id)
    return 'members' in type ? JSON.stringify({ ...layoutOf(btf, type), name: '' }) : ''
  })
  return others.every((other) => other === first)
}
