/*
 * The table of kinds: what follows the 12 bytes of `struct btf_type`, and where type ids and names lie in it. Validating,
 * walking and copying records are loops over this table (libbpf src/btf.c `layouts[]`, src/btf_iter.c; kernel
 * include/uapi/linux/btf.h).
 */

/** `BTF_KIND_*` by name. */
export const KIND = {
  VOID: 0,
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
  LOC_PARAM: 20,
  LOC_PROTO: 21,
  LOCSEC: 22,
} as const

export type KindName = keyof typeof KIND

/** Bytes of `struct btf_type`: name offset, info, and a word that is a size or a type id. */
export const HEADER_SIZE = 12

export interface KindLayout {
  readonly name: KindName
  /** meaning of the third word of the header */
  readonly third: 'size' | 'type' | 'unused'
  /** bytes that follow the header, before the elements */
  readonly payload: number
  /** bytes that follow for each of `vlen` elements */
  readonly element: number
  /** byte offsets of type ids, from the start of the record */
  readonly ids: readonly number[]
  /** byte offset of the name within an element; -1 where elements have none */
  readonly elementName: number
  /** byte offsets of the type ids within an element */
  readonly elementIds: readonly number[]
}

function layout(
  name: KindName,
  third: KindLayout['third'],
  rest: Partial<Omit<KindLayout, 'name' | 'third'>> = {},
): KindLayout {
  const ids = third === 'type' ? [8] : []
  return { name, third, payload: 0, element: 0, ids, elementName: -1, elementIds: [], ...rest }
}

const MEMBERS = { element: 12, elementName: 0, elementIds: [4] }

/** Indexed by kind number. */
export const KINDS: readonly KindLayout[] = [
  layout('VOID', 'unused'),
  layout('INT', 'size', { payload: 4 }),
  layout('PTR', 'type'),
  layout('ARRAY', 'unused', { payload: 12, ids: [12, 16] }),
  layout('STRUCT', 'size', MEMBERS),
  layout('UNION', 'size', MEMBERS),
  layout('ENUM', 'size', { element: 8, elementName: 0 }),
  layout('FWD', 'unused'),
  layout('TYPEDEF', 'type'),
  layout('VOLATILE', 'type'),
  layout('CONST', 'type'),
  layout('RESTRICT', 'type'),
  layout('FUNC', 'type'), // vlen is the linkage, not a count
  layout('FUNC_PROTO', 'type', { element: 8, elementName: 0, elementIds: [4] }),
  layout('VAR', 'type', { payload: 4 }),
  layout('DATASEC', 'size', { element: 12, elementIds: [0] }),
  layout('FLOAT', 'size'),
  layout('DECL_TAG', 'type', { payload: 4 }),
  layout('TYPE_TAG', 'type'),
  layout('ENUM64', 'size', { element: 12, elementName: 0 }),
  layout('LOC_PARAM', 'size', { payload: 4, element: 4 }),
  layout('LOC_PROTO', 'unused', { element: 4, elementIds: [0] }),
  layout('LOCSEC', 'unused', { element: 12, elementIds: [0, 4] }),
]

/** The UAPI name of a kind without `BTF_KIND_`; `KIND_<n>` for a kind that only a file's layout section describes. */
export function kindName(kind: number): string {
  return KINDS[kind]?.name ?? `KIND_${kind}`
}

/*
 * The word `info` has these fields in the UAPI since 2026: vlen in bits 0–23, kind in bits 24–30, kind_flag in bit 31.
 * Older files use 16 and 5 bits for vlen and kind and have zeros in between, so they read the same.
 */
export const MAX_KINDS = 128
export const infoVlen = (info: number): number => info & 0xffffff
export const infoKind = (info: number): number => (info >>> 24) & 0x7f
export const infoFlag = (info: number): boolean => info >>> 31 === 1
