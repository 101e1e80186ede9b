/*
 * Candidates of a relocation's root type: the kernel's types of the same kind and, without flavours, the same name, in
 * order of their ids (libbpf `bpf_core_add_cands`). One pass over the kernel's types finds those of all root types of an
 * object. The types of modules count only where vmlinux has no candidate (libbpf `bpf_core_find_cands`).
 */

import { decodeLatin1 } from './bytes.ts'
import { isEnum, sameKind } from './compatible.ts'
import type { CoreRelocation } from './ext.ts'
import { essentialName } from './flavour.ts'
import { KIND } from './kind.ts'
import { NameQuery } from './name-query.ts'
import type { TypeSource } from './type-source.ts'

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
  /** ids of `target` that have all types that `addRootTypes` asks for, where one pass has served several queries */
  readonly ids?: readonly number[]
}

/** Maps each root type of the object to the ids of its candidates; an anonymous root has none. */
export function findCandidates(
  local: TypeSource,
  target: TypeSource,
  relocations: readonly CoreRelocation[],
  { vmlinuxEnd = Number.POSITIVE_INFINITY, own = false, ids: given }: CandidateOptions = {},
): Map<number, number[]> {
  const { found, all } = rootTypes(local, relocations)
  if (all.length > 0) {
    const query = new NameQuery()
    addRoots(query, all, 1)
    const ids = given?.filter((id) => query.kinds[target.kind(id)] !== 0)
    collect(target, ids ?? target.idsOf(query, own), all)
  }
  for (const { ids } of all) {
    const ofModules = ids.findIndex((id) => id >= vmlinuxEnd)
    if (ofModules > 0) ids.splice(ofModules)
  }
  return found
}

/** Asks for the candidates of all root types of an object, as a group of a query. */
export function addRootTypes(
  query: NameQuery,
  local: TypeSource,
  relocations: readonly CoreRelocation[],
  group: number,
): void {
  addRoots(query, rootTypes(local, relocations).all, group)
}

/** The root types of an object's relocations, with room for their candidates. */
function rootTypes(
  local: TypeSource,
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

function collect(target: TypeSource, ids: readonly number[], all: readonly CandidateQuery[]): void {
  const byName = Map.groupBy(all, (wanted) => key(wanted.name))
  // most names differ in the first two bytes; only the others are looked up, without their flavour
  for (const id of ids) {
    for (const wanted of byName.get(key(essentialName(nameOf(target, id)))) ?? []) {
      if (sameKind(target.kind(id), wanted.kind)) wanted.ids.push(id)
    }
  }
}

function addRoots(query: NameQuery, all: readonly CandidateQuery[], group: number): void {
  for (const { kind, name } of all) {
    for (const one of isEnum(kind) ? [KIND.ENUM, KIND.ENUM64] : [kind]) query.addKind(one, group)
    query.addName(name, group)
  }
}

function key(name: Uint8Array): string {
  return decodeLatin1(name)
}

function nameOf(btf: TypeSource, id: number): Uint8Array {
  return btf.stringBytes(btf.word(id, 0))
}
