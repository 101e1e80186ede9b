/*
 * A spec is a path from a root type to a field or an enumerator. The object's spec is parsed from an access string; the
 * kernel's is found by following the same names. Anonymous members are passed through but do not count, so a field may
 * move into an anonymous struct or out of it (libbpf src/relo_core.c `bpf_core_parse_spec`, `bpf_core_spec_match`).
 */

import { type Comparison, enumeratorName, isComposite, isEnum } from './compatible.ts'
import { BtfError } from './error.ts'
import type { CoreRelocation, RelocationKind } from './ext.ts'
import { sameEssence } from './flavour.ts'
import { KIND } from './kind.ts'
import { resolve, sizeOf } from './layout.ts'
import { RelocationError } from './relocation-error.ts'
import type { TypeSource } from './type-source.ts'

/** libbpf's BPF_CORE_SPEC_MAX_LEN. */
const MAX_LENGTH = 64

/** A step with a meaning of its own: a named member, an array element, or an enumerator. */
export interface Accessor {
  readonly type: number
  readonly index: number
  /** name of a member or enumerator; undefined for an element */
  readonly name?: Uint8Array
}

export interface Spec {
  readonly btf: TypeSource
  /** the root type, which was found by its name */
  readonly root: number
  readonly accessors: Accessor[]
  /** every step, including those through anonymous members */
  readonly raw: number[]
  /** bits from the start of the root, as a u32 */
  bitOffset: number
}

const FIELD_KINDS: ReadonlySet<string> = new Set<RelocationKind>([
  'byte_off',
  'byte_sz',
  'field_exists',
  'signed',
  'lshift_u64',
  'rshift_u64',
])
const ENUMERATOR_KINDS: ReadonlySet<string> = new Set<RelocationKind>([
  'enumval_exists',
  'enumval_value',
])

/** The subject of a relocation. Errors: a RelocationError `unknown_kind`. */
export function subjectOf(kind: CoreRelocation['kind']): 'field' | 'type' | 'enumerator' {
  if (kind === 'unknown') throw new RelocationError('unknown_kind')
  if (FIELD_KINDS.has(kind)) return 'field'
  return ENUMERATOR_KINDS.has(kind) ? 'enumerator' : 'type'
}

/** Parses the object's spec. Errors: a RelocationError `invalid_spec`, `too_deep`, `no_size`, `unknown_kind`. */
export function parseSpec(btf: TypeSource, relocation: CoreRelocation): Spec {
  const spec: Spec = { btf, root: relocation.type, accessors: [], raw: [], bitOffset: 0 }
  const subject = subjectOf(relocation.kind)
  if (subject === 'type') {
    if (relocation.access !== '0') throw new RelocationError('invalid_spec', relocation.access)
    return spec
  }
  spec.raw.push(...parseAccess(relocation.access))
  const first = spec.raw[0]!
  const root = resolve(btf, relocation.type)
  if (subject === 'enumerator') {
    if (!isEnum(btf.kind(root)) || spec.raw.length > 1 || first >= btf.vlen(root)) {
      throw new RelocationError('invalid_spec', relocation.access)
    }
    spec.accessors.push({ type: root, index: first, name: enumeratorName(btf, root, first) })
    return spec
  }
  spec.accessors.push({ type: root, index: first })
  addElements(spec, root, first)
  let id = root
  for (const index of spec.raw.slice(1)) id = stepInto(spec, resolve(btf, id), index, relocation)
  return spec
}

/** Takes one step of a field's path; returns the type that it leads to. */
function stepInto(spec: Spec, id: number, index: number, relocation: CoreRelocation): number {
  const { btf } = spec
  const invalid = () => new RelocationError('invalid_spec', relocation.access)
  if (isComposite(btf.kind(id))) {
    if (index >= btf.vlen(id)) throw invalid()
    spec.bitOffset = (spec.bitOffset + memberBitOffset(btf, id, index)) >>> 0
    const name = btf.stringBytes(btf.word(id, 12 + index * 12))
    if (name.length > 0) spec.accessors.push({ type: id, index, name })
    return btf.word(id, 16 + index * 12)
  }
  if (btf.kind(id) !== KIND.ARRAY) throw invalid()
  const element = resolve(btf, btf.word(id, 12))
  if (!inArray(spec, id, index, spec.accessors.at(-1)!)) throw invalid()
  spec.accessors.push({ type: element, index })
  addElements(spec, element, index)
  return element
}

/** Parses a path `0:1:2`. libbpf's sscanf `%d` accepts the same, and blanks and signs in addition. */
function parseAccess(access: string): number[] {
  if (!/^\d+(:\d+)*:?$/.test(access)) throw new RelocationError('invalid_spec', access)
  const indices = access.split(':').filter(Boolean).map(Number)
  if (indices.length > MAX_LENGTH) throw new RelocationError('too_deep', access)
  if (indices.some((index) => index > 0x7fffffff)) throw new RelocationError('invalid_spec', access)
  return indices
}

/** Finds the kernel's spec under one candidate; undefined if the candidate does not match. Errors: a RelocationError. */
export function matchSpec(
  comparison: Comparison,
  local: Spec,
  kind: CoreRelocation['kind'],
  candidate: number,
): Spec | undefined {
  const btf = comparison.target
  const spec: Spec = { btf, root: candidate, accessors: [], raw: [], bitOffset: 0 }
  const subject = subjectOf(kind)
  if (subject === 'type') {
    const same =
      kind === 'type_matches'
        ? comparison.match(local.root, candidate)
        : comparison.types(local.root, candidate)
    return same ? spec : undefined
  }
  if (subject === 'enumerator') return matchEnumerator(comparison, spec, local.accessors[0]!)
  let id = candidate
  for (const [i, accessor] of local.accessors.entries()) {
    id = resolve(btf, id)
    if (accessor.name !== undefined) {
      const next = matchMember(comparison, local.btf, accessor, spec, id)
      if (next === undefined) return undefined
      id = next
      continue
    }
    // the first step indexes an array of roots; later steps need an array type
    if (i > 0) {
      if (btf.kind(id) !== KIND.ARRAY) return undefined
      if (!inArray(spec, id, accessor.index, spec.accessors[i - 1]!)) return undefined
      id = resolve(btf, btf.word(id, 12))
    }
    if (spec.raw.length === MAX_LENGTH) throw new RelocationError('too_deep')
    spec.accessors.push({ type: id, index: accessor.index })
    spec.raw.push(accessor.index)
    addElements(spec, id, accessor.index)
  }
  return spec
}

function matchEnumerator(comparison: Comparison, spec: Spec, wanted: Accessor): Spec | undefined {
  const id = resolve(spec.btf, spec.root)
  if (!isEnum(spec.btf.kind(id))) return undefined
  const index = comparison.enumerator(wanted.name!, id, sameEssence)
  if (index < 0) return undefined
  spec.accessors.push({ type: id, index, name: enumeratorName(spec.btf, id, index) })
  spec.raw.push(index)
  return spec
}

/**
 * Finds a member by its name, also in anonymous members, in order. Returns its type; undefined if there is no such member
 * or it is not compatible (`bpf_core_match_member`).
 */
function matchMember(
  comparison: Comparison,
  localBtf: TypeSource,
  wanted: Accessor,
  spec: Spec,
  targetId: number,
): number | undefined {
  const { btf } = spec
  const id = resolve(btf, targetId)
  if (!isComposite(btf.kind(id))) return undefined
  const start = spec.bitOffset
  const depth = spec.raw.length
  for (let i = 0; i < btf.vlen(id); i++) {
    if (spec.raw.length === MAX_LENGTH) throw new RelocationError('too_deep')
    comparison.step(wanted.name)
    const name = btf.word(id, 12 + i * 12)
    const type = btf.word(id, 16 + i * 12)
    const anonymous = name === 0 || btf.stringIs(name, EMPTY)
    if (!anonymous && !btf.stringIs(name, wanted.name!)) continue
    spec.bitOffset = (start + memberBitOffset(btf, id, i)) >>> 0
    spec.raw.push(i)
    if (!anonymous) {
      const localType = localBtf.word(wanted.type, 16 + wanted.index * 12)
      if (!comparison.fields(localType, type)) break
      spec.accessors.push({ type: id, index: i, name: wanted.name! })
      return type
    }
    const next = matchMember(comparison, localBtf, wanted, spec, type)
    if (next !== undefined) return next
    spec.raw.length = depth
  }
  spec.bitOffset = start
  spec.raw.length = depth
  return undefined
}

const EMPTY = new Uint8Array(0)

/** Offset of a member in bits (`btf_member_bit_offset`). */
function memberBitOffset(btf: TypeSource, id: number, index: number): number {
  const offset = btf.word(id, 20 + index * 12)
  return btf.flag(id) ? offset & 0xffffff : offset
}

/** True if an index lies in an array. A flexible array, last in its struct, takes any index (`is_flex_arr`). */
function inArray(spec: Spec, array: number, index: number, before: Accessor): boolean {
  const length = spec.btf.word(array, 20)
  const flexible =
    before.name !== undefined &&
    length === 0 &&
    isComposite(spec.btf.kind(before.type)) &&
    before.index === spec.btf.vlen(before.type) - 1
  return flexible || index < length
}

function addElements(spec: Spec, id: number, index: number): void {
  const bits = BigInt(sizeOrRefuse(spec.btf, id)) * BigInt(index) * 8n
  spec.bitOffset = (spec.bitOffset + Number(BigInt.asUintN(32, bits))) >>> 0
}

/** The size of a type in bytes. Errors: a RelocationError `no_size`. */
export function sizeOrRefuse(btf: TypeSource, id: number): number {
  try {
    const size = sizeOf(btf, id)
    if (size !== undefined) return size
  } catch (error) {
    if (!(error instanceof BtfError)) throw error
  }
  throw new RelocationError('no_size', `${btf.name(id) || `type ${id}`}`)
}
