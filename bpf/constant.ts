/*
 * Constants of a kernel by their names, for programs that carry a table of offsets in place of CO-RE relocations (elastic
 * quark `base_targets`, Datadog's `constantfetch`): the offset of a member, the size of a type, the value of an enumerator.
 *
 * A name stands for several types where compilation units differ. They count as one as long as they agree; where they
 * do not, no answer is better than one of them.
 */

import type { Btf } from './btf.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import { memberBits, resolve, sizeOf } from './layout.ts'
import type { BtfType, StructType } from './type.ts'

export type KernelConstant =
  /** bytes: of a member from the start of its type, or of a whole type */
  | { readonly kind: 'offset' | 'size'; readonly value: number }
  /** of a bitfield: bits from the start of its type, as BTF counts them, and its width in bits */
  | { readonly kind: 'bitfield'; readonly value: number; readonly bits: number }
  /** of an enumerator */
  | { readonly kind: 'enumerator'; readonly value: number | bigint }
  /** no type or member of that name; types of one name that differ; or a path that leads through a pointer or an array */
  | { readonly kind: 'missing' | 'ambiguous' | 'indirect' }

/** The kinds of types by the word before a name: a bare name may be of any, and is looked for in this order. */
const SORTS: readonly { readonly words: readonly string[]; readonly kinds: readonly number[] }[] = [
  { words: ['struct', 'union'], kinds: [KIND.STRUCT, KIND.UNION] },
  { words: ['enum'], kinds: [KIND.ENUM, KIND.ENUM64] },
  { words: [], kinds: [KIND.TYPEDEF] },
  { words: [], kinds: [KIND.INT, KIND.FLOAT] },
]
const MAX_DEPTH = 32
const PATH = /^(?:(struct|union|enum) +)?([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)*)$/
const MISSING: KernelConstant = { kind: 'missing' }
const INDIRECT: KernelConstant = { kind: 'indirect' }

interface ConstantPath {
  readonly sort: string | undefined
  readonly type: string
  readonly members: readonly string[]
}

/**
 * Tells whether a text is a path: `TYPE`, `TYPE.MEMBER.MEMBER` or `ENUM.ENUMERATOR`, with `struct`, `union` or `enum`
 * before it or not.
 */
export const isConstantPath = (text: string): boolean => PATH.test(text)

function parsePath(text: string): ConstantPath {
  const [, sort, type = '', rest = ''] = PATH.exec(text) ?? []
  return { sort, type, members: rest.split('.').slice(1) }
}

/**
 * The constants that paths name, in their order: see `isConstantPath`. Members of anonymous structs and unions are found
 * as in C. A text that is not a path names nothing. Errors: `cycle`, `too_large`.
 */
export function constantsOf(btf: Btf, paths: readonly string[]): KernelConstant[] {
  const parsed = paths.map(parsePath)
  const types = idsByName(btf, new Set(parsed.map(({ type }) => type)))
  return parsed.map((path) => constantOf(btf, path, types.get(path.type) ?? []))
}

/** The types with these names, of all kinds in `SORTS`. */
function idsByName(btf: Btf, names: ReadonlySet<string>): Map<string, number[]> {
  const wanted = new Set(SORTS.flatMap(({ kinds }) => kinds))
  const found = new Map<string, number[]>()
  for (let id = 1; id < btf.endId; id++) {
    if (!wanted.has(btf.kind(id))) continue
    const name = btf.name(id)
    if (name === '' || !names.has(name)) continue
    const ids = found.get(name)
    if (ids) ids.push(id)
    else found.set(name, [id])
  }
  return found
}

function constantOf(btf: Btf, path: ConstantPath, ids: readonly number[]): KernelConstant {
  let best = MISSING
  for (const { words, kinds } of SORTS) {
    if (path.sort !== undefined && !words.includes(path.sort)) continue
    const all = ids
      .filter((id) => kinds.includes(btf.kind(id)) && isOfSort(btf, id, path.sort))
      .map((id) => constantIn(btf, id, path.members))
    const found = all.filter(({ kind }) => kind !== 'missing' && kind !== 'indirect')
    const [first] = found
    if (first) return found.every((one) => isSame(one, first)) ? first : { kind: 'ambiguous' }
    if (all.some(({ kind }) => kind === 'indirect')) best = INDIRECT
  }
  return best
}

const isOfSort = (btf: Btf, id: number, sort: string | undefined): boolean =>
  sort === undefined ||
  sort === 'enum' ||
  btf.kind(id) === KIND[sort === 'struct' ? 'STRUCT' : 'UNION']

function isSame(a: KernelConstant, b: KernelConstant): boolean {
  const partsOf = (one: KernelConstant) => ({ value: 0, bits: 0, ...one })
  const [one, other] = [partsOf(a), partsOf(b)]
  return one.kind === other.kind && one.value === other.value && one.bits === other.bits
}

function constantIn(btf: Btf, id: number, members: readonly string[]): KernelConstant {
  if (members.length === 0) {
    const size = sizeOf(btf, id)
    return size === undefined ? MISSING : { kind: 'size', value: size }
  }
  const type = btf.type(resolve(btf, id))
  if (type.kind === 'ENUM' || type.kind === 'ENUM64') {
    const enumerator = type.values.find(({ name }) => name === members[0])
    if (!enumerator || members.length > 1) return MISSING
    const value = Number(enumerator.value)
    return { kind: 'enumerator', value: Number.isSafeInteger(value) ? value : enumerator.value }
  }
  let current: BtfType = type
  let bits = 0
  let width = 0
  for (const name of members) {
    if (current.kind === 'PTR' || current.kind === 'ARRAY') return INDIRECT
    if (current.kind !== 'STRUCT' && current.kind !== 'UNION') return MISSING
    const found = findMember(btf, current, name)
    if (!found) return MISSING
    bits += found.offset
    width = found.size
    current = btf.type(resolve(btf, found.type))
  }
  if (width > 0) return { kind: 'bitfield', value: bits, bits: width }
  if (bits % 8 !== 0) return MISSING // no compiler writes it
  return { kind: 'offset', value: bits / 8 }
}

interface FoundMember {
  /** bits from the start of the struct that was searched */
  readonly offset: number
  /** bits of a bitfield, 0 for other members */
  readonly size: number
  readonly type: number
}

/** Each anonymous type is searched once, so that types which contain each other in great number cost no more time. */
function findMember(
  btf: Btf,
  struct: StructType,
  name: string,
  searched = new Set<number>(),
  depth = 0,
): FoundMember | undefined {
  if (depth > MAX_DEPTH)
    throw new BtfError('cycle', `type ${struct.id} is below more than ${MAX_DEPTH} anonymous types`)
  searched.add(struct.id)
  const own = struct.members.find((member) => member.name === name)
  if (own) return { ...memberBits(btf, struct, own), type: own.type }
  for (const member of struct.members) {
    if (member.name !== '') continue
    const inner = btf.type(resolve(btf, member.type))
    if ((inner.kind !== 'STRUCT' && inner.kind !== 'UNION') || searched.has(inner.id)) continue
    const found = findMember(btf, inner, name, searched, depth + 1)
    if (found) return { ...found, offset: found.offset + memberBits(btf, struct, member).offset }
  }
  return undefined
}
