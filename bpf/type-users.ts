/* The named types and functions that use a type: as a member, a parameter or a result, behind pointers and in arrays or not. */

import type { Btf } from './btf.ts'
import { isComposite } from './compatible.ts'
import { KIND } from './kind.ts'
import type { TypeName } from './type-shape.ts'

export interface TypeUser extends TypeName {
  /** the first member that has the type; absent for typedefs and functions */
  readonly member?: string
}

export interface TypeUsers {
  /** structs, unions and typedefs, in the order of the BTF */
  readonly types: readonly TypeUser[]
  readonly functions: readonly string[]
  /** all of them, also those beyond the limit */
  readonly typeCount: number
  readonly functionCount: number
}

/** Anonymous structs within each other. */
const MAX_INLINE = 16
const MAX_CHAIN = 64

/** Finds the users of the types with these ids, at most `limit` of each sort. Errors: `invalid_type_id`. */
export function usersOf(btf: Btf, ids: ReadonlySet<number>, limit: number): TypeUsers {
  const types = new Map<string, TypeUser>()
  const functions = new Set<string>()
  let [typeCount, functionCount] = [0, 0]
  const uses = (id: number) => ids.has(baseOf(btf, id))
  for (let id = 1; id < btf.endId; id++) {
    const kind = btf.kind(id)
    if (kind === KIND.FUNC) {
      if (!usesInPrototype(btf, btf.sizeOrType(id), uses)) continue
      functionCount++
      if (functions.size < limit) functions.add(btf.name(id))
      continue
    }
    if (btf.word(id, 0) === 0 || ids.has(id)) continue
    const user = userAt(btf, id, kind, uses)
    if (!user) continue
    const key = `${user.kind} ${user.name}`
    if (types.has(key)) continue
    typeCount++
    if (types.size < limit) types.set(key, user)
  }
  return { types: [...types.values()], functions: [...functions], typeCount, functionCount }
}

function userAt(
  btf: Btf,
  id: number,
  kind: number,
  uses: (id: number) => boolean,
): TypeUser | undefined {
  if (kind === KIND.TYPEDEF)
    return uses(btf.sizeOrType(id)) ? { kind: 'typedef', name: btf.name(id) } : undefined
  if (!isComposite(kind)) return undefined
  const member = memberThat(btf, id, uses, 0)
  if (member === undefined) return undefined
  return { kind: kind === KIND.STRUCT ? 'struct' : 'union', name: btf.name(id), member }
}

/** The name of the first member whose type is used; looks into anonymous structs. */
function memberThat(
  btf: Btf,
  id: number,
  uses: (id: number) => boolean,
  depth: number,
): string | undefined {
  for (let i = 0, count = btf.vlen(id); i < count; i++) {
    const type = btf.word(id, 16 + 12 * i)
    if (uses(type)) return btf.string(btf.word(id, 12 + 12 * i))
    const base = baseOf(btf, type)
    if (base === 0 || depth >= MAX_INLINE || btf.word(base, 0) !== 0) continue
    if (!isComposite(btf.kind(base))) continue
    const inner = memberThat(btf, base, uses, depth + 1)
    if (inner !== undefined) return inner
  }
  return undefined
}

function usesInPrototype(btf: Btf, id: number, uses: (id: number) => boolean): boolean {
  if (btf.kind(id) !== KIND.FUNC_PROTO) return false
  if (uses(btf.sizeOrType(id))) return true
  for (let i = 0, count = btf.vlen(id); i < count; i++)
    if (uses(btf.word(id, 16 + 8 * i))) return true
  return false
}

/** A type without pointers, arrays, qualifiers and tags; typedefs stay. */
function baseOf(btf: Btf, id: number): number {
  let current = id
  for (let step = 0; step < MAX_CHAIN; step++) {
    switch (btf.kind(current)) {
      case KIND.PTR:
      case KIND.CONST:
      case KIND.VOLATILE:
      case KIND.RESTRICT:
      case KIND.TYPE_TAG:
        current = btf.sizeOrType(current)
        break
      case KIND.ARRAY:
        current = btf.word(current, 12)
        break
      default:
        return current
    }
  }
  return current
}
