/*
 * Candidates of a relocation's root type: the kernel's types of the same kind and, without flavours, the same name, in
 * order of their ids (libbpf `bpf_core_add_cands`). One pass over the kernel's types finds those of all root types of an
 * object. The types of modules count only where vmlinux has no candidate (libbpf `bpf_core_find_cands`).
 */

import type { Btf, NameQuery } from './btf.ts'
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
  /** ids of `target` that have all results of `rootTypesQuery`, where one pass has served several queries */
  readonly ids?: readonly number[]
}

/** Maps each root type of the object to the ids of its candidates; an anonymous root has none. */
export function findCandidates(
  local: Btf,
  target: Btf,
  relocations: readonly CoreRelocation[],
  { vmlinuxEnd = target.endId, own = false, ids: given }: CandidateOptions = {},
): Map<number, number[]> {
  const { found, all } = rootTypes(local, relocations)
  if (all.length > 0) {
    const query = queryOf(all)
    const ids = given?.filter((id) => query.kinds.has(target.kind(id)))
    collect(target, ids ?? target.idsOf(query, own), all)
  }
  for (const { ids } of all) {
    const ofModules = ids.findIndex((id) => id >= vmlinuxEnd)
    if (ofModules > 0) ids.splice(ofModules)
  }
  return found
}

/** The query for the candidates of all root types of an object. */
export function rootTypesQuery(local: Btf, relocations: readonly CoreRelocation[]): NameQuery {
  return queryOf(rootTypes(local, relocations).all)
}

/** The root types of an object's relocations, with room for their candidates. */
function rootTypes(
  local: Btf,
  relocations: readonly CoreRelocation[],
): { found: Map<number, number[]>; all: CandidateQuery[] } {
  const found = new Map<number, number[]>()
  const all: CandidateQuery[] = []
  for (const { type, kind } of relocations) {
    if (type === 0 || kind === 'local_type_id' || found.has(type)) continue
    const ids: number[] = []
    const wanted = { ids, kind: local.kind(type), name: essentialName(nameOf(local, type)) }
    found.set(type, ids)
    if (wanted.name.length === 0) continue
    all.push(wanted)
  }
  return { found, all }
}

function collect(target: Btf, ids: readonly number[], all: readonly CandidateQuery[]): void {
  const byName = Map.groupBy(all, (wanted) => key(wanted.name))
  // most names differ in the first two bytes; only the others are looked up, without their flavour
  for (const id of ids) {
    for (const wanted of byName.get(key(essentialName(nameOf(target, id)))) ?? []) {
      if (sameKind(target.kind(id), wanted.kind)) wanted.ids.push(id)
    }
  }
}

/** Bytes that may follow a name of one byte: NUL, or the `_` of a flavour. */
const AFTER = [0, 0x5f]

function queryOf(all: readonly CandidateQuery[]): NameQuery {
  const kinds = new Set<number>()
  const heads = new Uint8Array(65536)
  for (const { kind, name } of all) {
    kinds.add(kind)
    if (isEnum(kind)) kinds.add(KIND.ENUM).add(KIND.ENUM64)
    for (const second of name.length > 1 ? [name[1]!] : AFTER) heads[name[0]! | (second << 8)] = 1
  }
  return { kinds, heads }
}

function key(name: Uint8Array): string {
  return decodeLatin1(name)
}

function nameOf(btf: Btf, id: number): Uint8Array {
  return btf.stringBytes(btf.word(id, 0))
}
