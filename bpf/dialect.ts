/*
 * Dialects: BTF for older libbpf, which refuses a whole file for one kind that it does not know (src/btf.c
 * `btf_type_size`). What a dialect lacks is replaced as libbpf itself does for older kernels (src/libbpf.c
 * `bpf_object__sanitize_btf`): by a type under the same id, of the same size, so that everything else stays as it is.
 *
 * With one exception: libbpf makes an ENUM64 a UNION, for a verifier that looks at sizes alone. Here it becomes an ENUM
 * with those values that one can hold, since objects that were built before there was ENUM64 look for an ENUM, by its
 * fields and by values that mostly are small (`netdev_priv_flags`). A value that is not there is absent to them; cut to
 * 32 bits, as pahole's `--skip_encoding_btf_enum64` has it, it would be wrong.
 *
 * An ENUM's kind_flag, for signed values, is left: older versions do not look at it, and take all values to be signed.
 */

import type { Btf } from './btf.ts'
import { encodeBtf } from './encode.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import type { BtfType } from './type.ts'

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

/** Of elements of a type: `BTF_INFO_VLEN` had 16 bits before 2026. */
const MAX_VLEN = 0xffff

/**
 * The BTF with nothing in it that the version of libbpf does not know: the same types under the same ids, with the same
 * sizes and offsets, and a header of 24 bytes. Errors: `unsupported` for split BTF, which is to be merged before, and
 * for a kind that only a layout section describes; `too_large` for a type of more than 65535 elements.
 */
export function toDialect(btf: Btf, dialect: Dialect): Uint8Array {
  if (btf.base) throw new BtfError('unsupported', 'split BTF has no dialect of its own')
  const { byteOrder, strings } = btf
  return encodeBtf(typesFor(btf, DIALECTS[dialect]), { byteOrder, strings })
}

function* typesFor(btf: Btf, newest: number): Generator<BtfType> {
  for (const type of btf.types()) {
    if (btf.vlen(type.id) > MAX_VLEN) {
      throw new BtfError('too_large', `type ${type.id} has more than ${MAX_VLEN} elements`)
    }
    yield btf.kind(type.id) > newest ? replacement(type) : type
  }
}

function replacement(type: BtfType): BtfType {
  const { id, name } = type
  switch (type.kind) {
    case 'FLOAT':
      // without a name: no struct can be called `float`
      return { kind: 'STRUCT', id, name: '', size: type.size, flag: false, members: [] }
    case 'DECL_TAG': {
      const byte = { size: 1, bits: 8, bitOffset: 0, signed: false, char: false, bool: false }
      return { kind: 'INT', id, name, ...byte }
    }
    case 'TYPE_TAG':
      return { kind: 'CONST', id, name: '', type: type.type, flag: false }
    case 'ENUM64': {
      const { size, signed } = type
      const values = type.values
        .filter(({ value }) => BigInt.asIntN(32, value) === value)
        .map((v) => ({ name: v.name, value: Number(v.value) }))
      return { kind: 'ENUM', id, name, size, signed, values }
    }
    default:
      return type
  }
}
