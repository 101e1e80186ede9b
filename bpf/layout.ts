/*
 * Sizes of types and places of members, for relocation, comparison and printing. Chains of references are followed for
 * at most 32 steps, as in libbpf and the kernel; a longer chain is a `cycle`.
 */

import type { Btf } from './btf.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import type { BtfType, Member, StructType } from './type.ts'
import type { TypeSource } from './type-source.ts'

/** libbpf's and the kernel's MAX_RESOLVE_DEPTH. */
const MAX_DEPTH = 32
const MAX_SIZE = 0xffffffff

/**
 * The id of a type without its typedefs, qualifiers and tags (libbpf `skip_mods_and_typedefs`). Errors: `cycle`.
 */
export function resolve(btf: TypeSource, id: number): number {
  let current = id
  for (let depth = 0; depth <= MAX_DEPTH; depth++) {
    switch (btf.kind(current)) {
      case KIND.TYPEDEF:
      case KIND.VOLATILE:
      case KIND.CONST:
      case KIND.RESTRICT:
      case KIND.TYPE_TAG:
        current = btf.sizeOrType(current)
        break
      default:
        return current
    }
  }
  throw new BtfError('cycle', `type ${id} is a chain of more than ${MAX_DEPTH} references`)
}

/**
 * Size of a type in bytes; undefined for types without a size: void, forward declarations, functions (libbpf
 * `btf__resolve_size`). Errors: `cycle`, `too_large`.
 */
export function sizeOf(btf: TypeSource, id: number): number | undefined {
  let count = 1
  let current = id
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    switch (btf.kind(current)) {
      case KIND.INT:
      case KIND.STRUCT:
      case KIND.UNION:
      case KIND.ENUM:
      case KIND.ENUM64:
      case KIND.DATASEC:
      case KIND.FLOAT:
        return checked(count * btf.sizeOrType(current), id)
      case KIND.PTR:
        return checked(count * btf.pointerSize, id)
      case KIND.TYPEDEF:
      case KIND.VOLATILE:
      case KIND.CONST:
      case KIND.RESTRICT:
      case KIND.VAR:
      case KIND.DECL_TAG:
      case KIND.TYPE_TAG:
        current = btf.sizeOrType(current)
        break
      case KIND.ARRAY:
        count = checked(count * btf.word(current, 20), id)
        current = btf.word(current, 12)
        break
      default:
        return undefined
    }
  }
  throw new BtfError('cycle', `type ${id} is a chain of more than ${MAX_DEPTH} references`)
}

function checked(size: number, id: number): number {
  if (size > MAX_SIZE)
    throw new BtfError('too_large', `type ${id} has ${size} bytes: expected at most ${MAX_SIZE}`)
  return size
}

/**
 * The place of a member: its offset in bits from the start of the struct, and its bitfield size in bits, 0 for other
 * members. Handles kind_flag and the older form, where the INT has the width (kernel `btf_int_bits`, pahole before 1.13).
 */
export function memberBits(
  btf: Btf,
  struct: StructType,
  member: Member,
): { readonly offset: number; readonly size: number } {
  if (struct.flag) return { offset: member.bitOffset, size: member.bitfieldSize }
  const id = resolve(btf, member.type)
  const type = btf.kind(id) === KIND.INT ? btf.type(id) : undefined
  if (type?.kind !== 'INT' || (type.bits === type.size * 8 && type.bitOffset === 0)) {
    return { offset: member.bitOffset, size: 0 }
  }
  return { offset: member.bitOffset + type.bitOffset, size: type.bits }
}

/** The layout of a struct or union in a form that compares as text: names, offsets and sizes, without types. */
export interface StructLayout {
  readonly kind: 'STRUCT' | 'UNION'
  readonly name: string
  /** bytes */
  readonly size: number
  readonly members: readonly MemberLayout[]
}

export interface MemberLayout {
  readonly name: string
  /** bits from the start of the struct */
  readonly offset: number
  /** bits of a bitfield, 0 for other members */
  readonly bitfieldSize: number
}

/** The layout of one struct or union. Errors: `cycle`. */
export function layoutOf(btf: Btf, struct: StructType): StructLayout {
  return {
    kind: struct.kind,
    name: struct.name,
    size: struct.size,
    members: struct.members.map((member) => {
      const { offset, size } = memberBits(btf, struct, member)
      return { name: member.name, offset, bitfieldSize: size }
    }),
  }
}

export interface LayoutComparison {
  /** number of named structs and unions of `a` with the same name and layout in `b` */
  readonly same: number
  /** those of `a` whose name `b` has with other layouts only */
  readonly different: readonly StructLayout[]
  /** those of `a` whose name `b` lacks */
  readonly missing: readonly StructLayout[]
}

/**
 * Compares every named struct and union of `a` with those of `b`: size, members, offsets and bitfield sizes. A name can
 * stand for several types (one per compilation unit); one match is enough. Errors: `cycle`.
 */
export function compareLayouts(a: Btf, b: Btf): LayoutComparison {
  const theirs = new Map<string, Set<string>>()
  for (const layout of namedLayouts(b)) {
    const name = `${layout.kind} ${layout.name}`
    const known = theirs.get(name) ?? new Set()
    theirs.set(name, known.add(JSON.stringify(layout)))
  }
  let same = 0
  const different: StructLayout[] = []
  const missing: StructLayout[] = []
  for (const layout of namedLayouts(a)) {
    const known = theirs.get(`${layout.kind} ${layout.name}`)
    if (!known) missing.push(layout)
    else if (known.has(JSON.stringify(layout))) same++
    else different.push(layout)
  }
  return { same, different, missing }
}

function* namedLayouts(btf: Btf): Generator<StructLayout> {
  for (let id = 1; id < btf.endId; id++) {
    const kind = btf.kind(id)
    if (kind !== KIND.STRUCT && kind !== KIND.UNION) continue
    const type: BtfType = btf.type(id)
    if (type.name !== '' && 'members' in type) yield layoutOf(btf, type)
  }
}
