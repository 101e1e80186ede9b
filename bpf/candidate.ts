/*
 * Candidates: the kernel's types that a relocation's root type may mean, those of the same kind and, but for flavours,
 * the same name, in order of their ids (libbpf `bpf_core_add_cands`). All root types of an object are looked for in one
 * pass over the kernel's types.
 */

import type { Btf } from './btf.ts'
import { isEnum, sameKind } from './compatible.ts'
import type { CoreRelocation } from './ext.ts'
import { essentialName } from './flavour.ts'
import { infoKind, KIND } from './kind.ts'

interface Wanted {
  readonly kind: number
  readonly name: Buffer
  readonly ids: number[]
}

/** Candidate ids by root type of the object; a root that is anonymous has none. */
export function findCandidates(
  local: Btf,
  target: Btf,
  relocations: readonly CoreRelocation[],
): Map<number, number[]> {
  const found = new Map<number, number[]>()
  const byInitial = new Map<number, Wanted[]>()
  const kinds = new Set<number>()
  for (const { type, kind } of relocations) {
    if (type === 0 || kind === 'local_type_id' || found.has(type)) continue
    const ids: number[] = []
    const wanted = { ids, kind: local.kind(type), name: essentialName(nameOf(local, type)) }
    found.set(type, ids)
    if (wanted.name.length === 0) continue
    const initial = wanted.name[0]!
    const same = byInitial.get(initial)
    if (same) same.push(wanted)
    else byInitial.set(initial, [wanted])
    kinds.add(wanted.kind)
    if (isEnum(wanted.kind)) kinds.add(KIND.ENUM).add(KIND.ENUM64)
  }
  collect(target, kinds, byInitial)
  return found
}

function collect(
  target: Btf,
  kinds: ReadonlySet<number>,
  byInitial: ReadonlyMap<number, Wanted[]>,
): void {
  if (byInitial.size === 0) return
  const wantedKinds = Array.from({ length: 128 }, (_, kind) => kinds.has(kind))
  for (let id = 1; id < target.endId; id++) {
    const kind = infoKind(target.word(id, 4))
    if (!wantedKinds[kind]) continue
    const wanted = byInitial.get(target.stringInitial(target.word(id, 0)))
    if (!wanted) continue
    const name = essentialName(nameOf(target, id))
    for (const one of wanted) {
      if (sameKind(kind, one.kind) && one.name.equals(name)) one.ids.push(id)
    }
  }
}

function nameOf(btf: Btf, id: number): Buffer {
  return btf.stringBytes(btf.word(id, 0))
}
