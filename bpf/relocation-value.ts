/*
 * Computes the value of a relocation from a spec: an offset, size, shift, id or enumerator. Numbers are unsigned with 64
 * bits, computed in the same 32-bit steps as in libbpf (src/relo_core.c `bpf_core_calc_relo`).
 */

import type { ByteOrder } from './bytes.ts'
import { intEncoding, isEnum } from './compatible.ts'
import type { CoreRelocation } from './ext.ts'
import { KIND } from './kind.ts'
import { resolve } from './layout.ts'
import { RelocationError } from './relocation-error.ts'
import { type Accessor, type Spec, sizeOrRefuse, subjectOf } from './spec.ts'

interface Value {
  readonly value: bigint
  /** bytes that a load or store of the field moves; 0, like `type`, if the value is not a field's offset */
  readonly size: number
  readonly type: number
  /** whether the compiler must have put this value into the instruction */
  readonly certain: boolean
}

/** The old and new value of a relocation, for one candidate or for none. */
export interface RelocationValue {
  readonly old: Value
  /** undefined if the instruction must be poisoned, because the kernel lacks what it needs */
  readonly new: Value | undefined
  /** whether the field's size differs and the load or store cannot be adjusted */
  readonly wrongAccess: boolean
}

/** Computes the old and the new value. Errors: a RelocationError. */
export function calculate(
  kind: CoreRelocation['kind'],
  local: Spec,
  target: Spec | undefined,
  byteOrder: ByteOrder,
): RelocationValue {
  const old = valueFor(kind, local, byteOrder)
  if (!old) throw new RelocationError('unknown_kind', kind)
  const now = valueFor(kind, target, byteOrder)
  const resized = target !== undefined && now !== undefined && old.size !== now.size
  const wrongAccess = resized && !adjustable(local, old.type, target, now.type)
  return { old, new: now, wrongAccess }
}

/** True if a load stays correct with another size: this holds for pointers and unsigned integers. */
function adjustable(local: Spec, oldType: number, target: Spec, newType: number): boolean {
  const kind = local.btf.kind(oldType)
  if (kind !== target.btf.kind(newType)) return false
  if (kind === KIND.PTR) return true
  // libbpf compares with exactly BTF_INT_SIGNED
  return (
    kind === KIND.INT &&
    intEncoding(local.btf, oldType) !== 1 &&
    intEncoding(target.btf, newType) !== 1
  )
}

function valueFor(
  kind: CoreRelocation['kind'],
  spec: Spec | undefined,
  byteOrder: ByteOrder,
): Value | undefined {
  switch (subjectOf(kind)) {
    case 'field':
      return kind === 'field_exists'
        ? plain(spec ? 1 : 0)
        : spec && fieldValue(kind, spec, byteOrder)
    case 'type':
      return typeValue(kind, spec)
    case 'enumerator':
      return kind === 'enumval_exists' ? plain(spec ? 1 : 0) : spec && enumeratorValue(spec)
  }
}

function plain(value: number | bigint, certain = true): Value {
  return { value: BigInt(value), size: 0, type: 0, certain }
}

function typeValue(kind: CoreRelocation['kind'], spec: Spec | undefined): Value {
  if (!spec) return plain(0)
  if (kind === 'type_size') return plain(sizeOrRefuse(spec.btf, spec.root))
  // linking changes ids, so the id in the instruction may differ from the object's BTF
  if (kind === 'target_type_id' || kind === 'local_type_id') return plain(spec.root, false)
  return plain(1)
}

function enumeratorValue(spec: Spec): Value {
  const { type, index } = spec.accessors[0]!
  const { btf } = spec
  if (btf.kind(type) === KIND.ENUM) {
    const value = btf.word(type, 12 + index * 8 + 4) | 0
    return plain(BigInt.asUintN(64, BigInt(value)))
  }
  const at = 12 + index * 12
  return plain((BigInt(btf.word(type, at + 8)) << 32n) | BigInt(btf.word(type, at + 4)))
}

/** The value of a relocation about a field (`bpf_core_calc_field_relo`). */
function fieldValue(kind: CoreRelocation['kind'], spec: Spec, byteOrder: ByteOrder): Value {
  const last = spec.accessors.at(-1)!
  if (last.name === undefined) return elementValue(kind, spec, last)

  const { btf } = spec
  const type = resolve(btf, btf.word(last.type, 16 + last.index * 12))
  const place = placeOf(spec, last, type)
  const certain = !place.bitfield
  switch (kind) {
    case 'byte_off':
      if (place.bitfield) return plain(place.offset, false)
      return { value: BigInt(place.offset), size: accessSizeOf(spec, type), type, certain }
    case 'byte_sz':
      return plain(place.size, certain)
    case 'signed': {
      const signed = isEnum(btf.kind(type))
        ? btf.flag(type)
        : btf.kind(type) === KIND.INT && (intEncoding(btf, type) & 1) !== 0
      return plain(signed ? 1 : 0)
    }
    case 'lshift_u64': {
      const first = spec.bitOffset - place.offset * 8
      const little = 64 - (first + place.bits)
      const big = (8 - place.size) * 8 + first
      return plain((byteOrder === 'little' ? little : big) >>> 0, certain)
    }
    case 'rshift_u64':
      return plain((64 - place.bits) >>> 0)
    default:
      throw new RelocationError('unknown_kind', kind)
  }
}

function elementValue(kind: CoreRelocation['kind'], spec: Spec, last: Accessor): Value {
  if (kind === 'byte_off') {
    const size = accessSizeOf(spec, last.type)
    return { value: BigInt(Math.floor(spec.bitOffset / 8)), size, type: last.type, certain: true }
  }
  if (kind === 'byte_sz') return plain(sizeOrRefuse(spec.btf, last.type))
  throw new RelocationError('array_access', kind)
}

/** Bytes that one load moves; for an array, those of an element. */
function accessSizeOf(spec: Spec, id: number): number {
  const { btf } = spec
  let type = resolve(btf, id)
  for (let depth = 0; btf.kind(type) === KIND.ARRAY; depth++) {
    if (depth > 32) throw new RelocationError('too_complex')
    type = resolve(btf, btf.word(type, 12))
  }
  return sizeOrRefuse(btf, type)
}

interface ValuePlace {
  readonly bitfield: boolean
  /** offset in bytes of the load that reads the field; `size` is the size of that load */
  readonly offset: number
  readonly size: number
  /** bits of the field itself */
  readonly bits: number
}

function placeOf(spec: Spec, last: Accessor, type: number): ValuePlace {
  const { btf, bitOffset } = spec
  const raw = btf.word(last.type, 20 + last.index * 12)
  const bits = btf.flag(last.type) ? raw >>> 24 : 0
  if (bits === 0) {
    const size = sizeOrRefuse(btf, type)
    return { bitfield: false, offset: Math.floor(bitOffset / 8), size, bits: size * 8 }
  }
  let size = btf.sizeOrType(type)
  if (size === 0) throw new RelocationError('no_size')
  const start = () => Math.floor(Math.floor(bitOffset / 8) / size) * size
  // the smallest load that covers the whole bitfield
  while (bitOffset + bits - start() * 8 > size * 8) {
    if (size >= 8) throw new RelocationError('unreadable_bitfield')
    size *= 2
  }
  return { bitfield: true, offset: start(), size, bits }
}
