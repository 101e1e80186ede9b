/*
 * Dialects: BTF for older versions of libbpf and cilium/ebpf, which refuse a whole file for one unknown kind (libbpf
 * src/btf.c `btf_type_size`; cilium/ebpf btf/btf_types.go), or for a header of more than 24 bytes (cilium/ebpf 2041).
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
 *
 * libbpf 1.7 bisects for a name if the types are in order of their names, as kernels since 7.0 have them: first those
 * without a name (src/btf.c `btf_check_sorted`). The dialect for it has other ids; older versions read it, too.
 */

import type { Btf } from './btf.ts'
import { decodeLatin1 } from './bytes.ts'
import { encodeBtf } from './encode.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import { renumbered } from './renumber.ts'
import type { BtfType } from './type.ts'

/**
 * The newest kind that each version knows; it knows all older kinds too. libbpf: FLOAT came with 0.4, DECL_TAG and TYPE_TAG
 * with 0.6, ENUM64 with 1.0. cilium/ebpf: FLOAT came with 0.7, DECL_TAG and TYPE_TAG with 0.9.2, ENUM64 with 0.10, and the
 * header of 32 bytes with 0.22. No version listed knows LOC_PARAM, LOC_PROTO and LOCSEC.
 */
export const DIALECTS = {
  'libbpf-0.3': KIND.DATASEC,
  'libbpf-0.5': KIND.FLOAT,
  'libbpf-0.8': KIND.TYPE_TAG,
  'libbpf-1.0': KIND.ENUM64,
  'libbpf-1.7': KIND.ENUM64,
  'cilium-0.6': KIND.DATASEC,
  'cilium-0.9.1': KIND.FLOAT,
  'cilium-0.9.3': KIND.TYPE_TAG,
  'cilium-0.21': KIND.ENUM64,
} as const

export type Dialect = keyof typeof DIALECTS

/** The dialects whose types are in order of their names. */
const SORTED: ReadonlySet<Dialect> = new Set(['libbpf-1.7'])

/** Elements per type: `BTF_INFO_VLEN` had 16 bits before 2026. */
const MAX_VLEN = 0xffff

/**
 * Converts BTF for a version of libbpf or cilium/ebpf: the same ids, sizes and offsets, only kinds that the version knows,
 * and a header of 24 bytes. For `libbpf-1.7` the types are sorted by name, and have new ids. Errors: `unsupported` for
 * split BTF, which must be merged first, and for a kind that only a layout section describes; `too_large` for a type
 * with more than 65535 elements.
 */
export function toDialect(btf: Btf, dialect: Dialect): Uint8Array {
  if (btf.base)
    throw new BtfError('unsupported', 'cannot convert split BTF: merge it with its base first')
  const { byteOrder, strings } = btf
  const types = typesFor(btf, DIALECTS[dialect])
  const ordered = SORTED.has(dialect) ? sortedByName(btf, types) : types
  return encodeBtf(ordered, { byteOrder, strings })
}

/** Types in order of their names, byte by byte, those without a name first; types of one name keep their order. */
function* sortedByName(btf: Btf, types: Iterable<BtfType>): Generator<BtfType> {
  const named = [...types].map((type) => {
    const bytes = type.name === '' ? '' : decodeLatin1(btf.stringBytes(btf.word(type.id, 0)))
    return { type, bytes }
  })
  named.sort((a, b) => (a.bytes < b.bytes ? -1 : a.bytes > b.bytes ? 1 : 0))
  const ids = new Map(named.map(({ type }, i) => [type.id, i + 1]))
  for (const { type } of named) yield renumbered(type, (id) => ids.get(id)!)
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
