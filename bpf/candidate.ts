/*
 * Candidates of a relocation's root type: the kernel's types of the same kind and, without flavours, the same name, in
 * order of their ids (libbpf `bpf_core_add_cands`). One pass over the kernel's types finds those of all root types of an
 * object. The types of modules count only where vmlinux has no candidate (libbpf `bpf_core_find_cands`).
 */

import type { Btf } from './btf.ts'
import { decodeLatin1 } from './bytes.ts'
import { isEnum, sameKind } from './compatible.ts'
import type { CoreRelocation } from './ext.ts'
import { essentialName } from './flavour.ts'
import { KIND } from './kind.ts'

interface CandidateQuery {
  readonly kind: number
  readonly name: Uint8Array
  readonly ids: number[]
}

export interface CandidateOptions {
  /** one more than the highest id of vmlinux, in BTF that modules were merged into */
  readonly vmlinuxEnd?: number
  /** leave out the types of the base: `target` is the split BTF of a module */
  readonly own?: boolean
}

/** Maps each root type of the object to the ids of its candidates; an anonymous root has none. */
export function findCandidates(
  local: Btf,
  target: Btf,
  relocations: readonly CoreRelocation[],
  { vmlinuxEnd = target.endId, own = false }: CandidateOptions = {},
): Map<number, number[]> {
  const found = new Map<number, number[]>()
  const all: CandidateQuery[] = []
  const kinds = new Set<number>()
  for (const { type, kind } of relocations) {
    if (type === 0 || kind === 'local_type_id' || found.has(type)) continue
    const ids: number[] = []
    const wanted = { ids, kind: local.kind(type), name: essentialName(nameOf(local, type)) }
    found.set(type, ids)
    if (wanted.name.length === 0) continue
    all.push(wanted)
    kinds.add(wanted.kind)
    if (isEnum(wanted.kind)) kinds.add(KIND.ENUM).add(KIND.ENUM64)
  }
  collect(target, kinds, all, own)
  for (const { ids } of all) {
    const ofModules = ids.findIndex((id) => id >= vmlinuxEnd)
    if (ofModules > 0) ids.splice(ofModules)
  }
  return found
}

function collect(
  target: Btf,
  kinds: ReadonlySet<number>,
  all: readonly CandidateQuery[],
  own: boolean,
): void {
  if (all.length === 0) return
  const byName = Map.groupBy(all, (wanted) => key(wanted.name))
  // most names differ in the first two bytes; only the others are looked up, without their flavour
  for (const id of target.idsOf(kinds, headsOf(all), own)) {
    for (const wanted of byName.get(key(essentialName(nameOf(target, id)))) ?? []) {
      if (sameKind(target.kind(id), wanted.kind)) wanted.ids.push(id)
    }
  }
}

/** Bytes that may follow a name of one byte: NUL, or the `_` of a flavour. */
const AFTER = [0, 0x5f]

/** The first two bytes of the wanted names, in the form that `Btf.idsOf` takes. */
function headsOf(all: readonly CandidateQuery[]): Uint8Array {
  const heads = new Uint8Array(65536)
  for (const { name } of all) {
    for (const second of name.length > 1 ? [name[1]!] : AFTER) heads[name[0]! | (second << 8)] = 1
  }
  return heads
}

function key(name: Uint8Array): string {
  return decodeLatin1(name)
}

function nameOf(btf: Btf, id: number): Uint8Array {
  return btf.stringBytes(btf.word(id, 0))
}
