/*
 * Dialects: BTF for older libbpf, which refuses a whole file for one kind that it does not know (src/btf.c
 * `btf_type_size`). What a dialect lacks is replaced as libbpf itself does for older kernels (src/libbpf.c
 * `bpf_object__sanitize_btf`): by a type under the same id, of the same size, so that everything else stays as it is.
 * An ENUM's kind_flag, for signed values, is left: they do not look at it, and take all values to be signed.
 *
 * What is lost to CO-RE: a field of a FLOAT or of an ENUM64 that becomes a UNION is not found by an object in which it
 * is a number, and that enum's values are gone. Objects that have those kinds themselves no such libbpf opens.
 */

import type { Btf } from './btf.ts'
import { encodeBtf } from './encode.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import type { BtfType, Enum64Type, IntType } from './type.ts'

/**
 * The newest kind that each version of libbpf knows; it knows all before it. FLOAT came with 0.4, DECL_TAG and TYPE_TAG
 * with 0.6, ENUM64 with 1.0.
 */
export const DIALECTS = {
  'libbpf-0.3': KIND.DATASEC,
  'libbpf-0.5': KIND.FLOAT,
  'libbpf-0.8': KIND.TYPE_TAG,
  'libbpf-1.0': KIND.ENUM64,
} as const

export type Dialect = keyof typeof DIALECTS

/** `BTF_INFO_VLEN` before 2026 */
const MAX_VLEN = 0xffff

/**
 * The BTF with nothing in it that the version of libbpf does not know: the same types under the same ids, with the same
 * sizes and offsets, and a header of 24 bytes. Where an ENUM64 has values that an ENUM cannot hold, one INT more is at
 * the end. Errors: `unsupported` for split BTF, which is to be merged before, and for a kind that only a layout section
 * describes; `too_large` for a type of more than 65535 elements.
 */
export function toDialect(btf: Btf, dialect: Dialect): Uint8Array {
  if (btf.base) throw new BtfError('unsupported', 'split BTF has no dialect of its own')
  const { byteOrder, strings } = btf
  return encodeBtf(replaceAll(btf, DIALECTS[dialect]), { byteOrder, strings })
}

function* replaceAll(btf: Btf, newest: number): Generator<BtfType> {
  let holders = 0
  for (const type of btf.types()) {
    if (type.kind !== 'FUNC' && btf.vlen(type.id) > MAX_VLEN) {
      throw new BtfError('too_large', `type ${type.id} has ${btf.vlen(type.id)} elements`)
    }
    const replaced = replace(type, newest, btf.endId)
    if (type.kind === 'ENUM64' && replaced.kind === 'UNION') holders++
    yield replaced
  }
  if (holders > 0) yield byte(btf.endId, 'enum64_placeholder')
}

/** The type as the dialect has it; `holder` is the type of a UNION's members that were values of an ENUM64. */
function replace(type: BtfType, newest: number, holder: number): BtfType {
  const { id, name } = type
  switch (type.kind) {
    case 'FLOAT':
      // no struct can be called `float`
      if (newest >= KIND.FLOAT) return type
      return { kind: 'STRUCT', id, name: '', size: type.size, flag: false, members: [] }
    case 'DECL_TAG':
      return newest >= KIND.DECL_TAG ? type : byte(id, name)
    case 'TYPE_TAG':
      if (newest >= KIND.TYPE_TAG) return type
      return { kind: 'CONST', id, name: '', type: type.type, flag: false }
    case 'ENUM64':
      return newest >= KIND.ENUM64 ? type : narrowed(type, holder)
    default:
      return type
  }
}

/** An ENUM where that can hold all values, signed as older libbpf takes them; else a UNION with their names. */
function narrowed({ id, name, size, signed, values }: Enum64Type, holder: number): BtfType {
  if (values.every(({ value }) => BigInt.asIntN(32, value) === value)) {
    const narrow = values.map((v) => ({ name: v.name, value: Number(v.value) }))
    return { kind: 'ENUM', id, name, size, signed, values: narrow }
  }
  const members = values.map((v) => ({ name: v.name, type: holder, bitOffset: 0, bitfieldSize: 0 }))
  return { kind: 'UNION', id, name, size, flag: false, members }
}

function byte(id: number, name: string): IntType {
  const encoding = { signed: false, char: false, bool: false, bits: 8, bitOffset: 0 }
  return { kind: 'INT', id, name, size: 1, ...encoding }
}
