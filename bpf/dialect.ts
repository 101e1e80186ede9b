/*
 * Dialects: BTF for older versions of libbpf, which refuse a whole file for one unknown kind (src/btf.c `btf_type_size`).
 * A type of an unknown kind is replaced by another type with the same id and size, so everything else stays unchanged.
 * libbpf does the same for older kernels (src/libbpf.c `bpf_object__sanitize_btf`).
 *
 * There is one exception. libbpf turns an ENUM64 into a UNION, for a verifier that looks at sizes only. Here it becomes an
 * ENUM with the values that fit 32 bits: objects from before ENUM64 look for an ENUM, by its fields and by values that
 * are mostly small (`netdev_priv_flags`). A value that does not fit is absent to them. Truncated to 32 bits, as by
 * pahole's `--skip_encoding_btf_enum64`, it would be wrong.
 *
 * The kinds of inlined calls (LOC_PARAM, LOC_PROTO, LOCSEC) have no use for a loader: nothing of them is left but their ids.
 *
 * The kind_flag of an ENUM with signed values stays: older versions ignore it and read all values as signed.
 */

import type { Btf } from './btf.ts'
import { encodeBtf } from './encode.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import type { BtfType } from './type.ts'

/**
 * The newest kind that each version of libbpf knows; it knows all older kinds too. FLOAT came with 0.4, DECL_TAG and
 * TYPE_TAG with 0.6, ENUM64 with 1.0. No version listed knows LOC_PARAM, LOC_PROTO and LOCSEC.
 */
export const DIALECTS = {
  'libbpf-0.3': KIND.DATASEC,
  'libbpf-0.5': KIND.FLOAT,
  'libbpf-0.8': KIND.TYPE_TAG,
  'libbpf-1.0': KIND.ENUM64,
} as const

export type Dialect = keyof typeof DIALECTS

/** Elements per type: `BTF_INFO_VLEN` had 16 bits before 2026. */
const MAX_VLEN = 0xffff

/**
 * Converts BTF for a version of libbpf: the same ids, sizes and offsets, only kinds that the version knows, and a header
 * of 24 bytes. Errors: `unsupported` for split BTF, which must be merged first, and for a kind that only a layout section
 * describes; `too_large` for a type with more than 65535 elements.
 */
export function toDialect(btf: Btf, dialect: Dialect): Uint8Array {
  if (btf.base)
    throw new BtfError('unsupported', 'cannot convert split BTF: merge it with its base first')
  const { byteOrder, strings } = btf
  return encodeBtf(typesFor(btf, DIALECTS[dialect]), { byteOrder, strings })
}

function* typesFor(btf: Btf, newest: number): Generator<BtfType> {
  for (const type of btf.types()) {
    const known = btf.kind(type.id) > newest ? replacement(type) : type
    const isEmptied = known.kind === 'STRUCT' && type.kind !== 'STRUCT'
    if (!isEmptied && btf.vlen(type.id) > MAX_VLEN) {
      throw new BtfError(
        'too_large',
        `type ${type.id} has ${btf.vlen(type.id)} elements: expected at most ${MAX_VLEN}`,
      )
    }
    yield known
  }
}

function replacement(type: BtfType): BtfType {
  const { id, name } = type
  switch (type.kind) {
    case 'FLOAT':
      // without a name, because no struct can have the name `float`
      return { kind: 'STRUCT', id, name: '', size: type.size, flag: false, members: [] }
    case 'LOC_PARAM':
    case 'LOC_PROTO':
    case 'LOCSEC':
      return { kind: 'STRUCT', id, name: '', size: 0, flag: false, members: [] }
    case 'DECL_TAG':
      return {
        kind: 'INT',
        id,
        name,
        size: 1,
        signed: false,
        char: false,
        bool: false,
        bits: 8,
        bitOffset: 0,
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
