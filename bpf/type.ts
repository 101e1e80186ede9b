/*
 * Types as values, as `Btf.type` decodes them: a discriminated union over the UAPI's names of kinds. References are type
 * ids of the same BTF, 0 for void. Names are strings, '' for none. Sizes are bytes unless a name says bits.
 */

export interface VoidType {
  readonly kind: 'VOID'
  readonly id: 0
  readonly name: ''
}

export interface IntType {
  readonly kind: 'INT'
  readonly id: number
  readonly name: string
  readonly size: number
  readonly signed: boolean
  readonly char: boolean
  readonly bool: boolean
  /** width and position of the value in its storage, in bits; other than `size * 8` and 0 in old bitfields only */
  readonly bits: number
  readonly bitOffset: number
}

export interface FloatType {
  readonly kind: 'FLOAT'
  readonly id: number
  readonly name: string
  readonly size: number
}

/** A pointer to another type, its alias, or its qualified or tagged form. Only TYPEDEF and TYPE_TAG have names. */
export interface ReferenceType {
  readonly kind: 'PTR' | 'TYPEDEF' | 'VOLATILE' | 'CONST' | 'RESTRICT' | 'TYPE_TAG'
  readonly id: number
  readonly name: string
  readonly type: number
  /** kind_flag: the name of a TYPE_TAG is an attribute of any kind, not the argument of btf_type_tag */
  readonly flag: boolean
}

export interface ArrayType {
  readonly kind: 'ARRAY'
  readonly id: number
  readonly name: string
  readonly type: number
  readonly indexType: number
  readonly length: number
}

export interface Member {
  readonly name: string
  readonly type: number
  /** bits from the start of the struct */
  readonly bitOffset: number
  /**
   * bits of a bitfield, 0 for other members (libbpf `btf_member_bitfield_size`). Only structs with kind_flag have it; in
   * others the INT has `bits` and `bitOffset` (see `memberBits`)
   */
  readonly bitfieldSize: number
}

export interface StructType {
  readonly kind: 'STRUCT' | 'UNION'
  readonly id: number
  readonly name: string
  readonly size: number
  /** kind_flag: member offsets carry bitfield sizes */
  readonly flag: boolean
  readonly members: readonly Member[]
}

export interface EnumType {
  readonly kind: 'ENUM'
  readonly id: number
  readonly name: string
  readonly size: number
  readonly signed: boolean
  readonly values: readonly { readonly name: string; readonly value: number }[]
}

export interface Enum64Type {
  readonly kind: 'ENUM64'
  readonly id: number
  readonly name: string
  readonly size: number
  readonly signed: boolean
  readonly values: readonly { readonly name: string; readonly value: bigint }[]
}

export interface FwdType {
  readonly kind: 'FWD'
  readonly id: number
  readonly name: string
  readonly of: 'struct' | 'union'
}

export const LINKAGES = ['static', 'global', 'extern'] as const
export type Linkage = (typeof LINKAGES)[number]

export interface FuncType {
  readonly kind: 'FUNC'
  readonly id: number
  readonly name: string
  /** its FUNC_PROTO */
  readonly type: number
  readonly linkage: Linkage
}

export interface FuncProtoType {
  readonly kind: 'FUNC_PROTO'
  readonly id: number
  readonly name: string
  /** the type that it returns */
  readonly type: number
  /** a last parameter without a name and of type 0 is `...` */
  readonly parameters: readonly { readonly name: string; readonly type: number }[]
}

export interface VarType {
  readonly kind: 'VAR'
  readonly id: number
  readonly name: string
  readonly type: number
  readonly linkage: Linkage
}

export interface DatasecType {
  readonly kind: 'DATASEC'
  readonly id: number
  readonly name: string
  readonly size: number
  readonly variables: readonly {
    readonly type: number
    readonly offset: number
    readonly size: number
  }[]
}

export interface DeclTagType {
  readonly kind: 'DECL_TAG'
  readonly id: number
  readonly name: string
  readonly type: number
  /** index of the tagged member or parameter; -1 for the type itself */
  readonly component: number
  /** kind_flag: the name is an attribute of any kind, not the argument of btf_decl_tag */
  readonly flag: boolean
}

/**
 * Where a parameter of an inlined function is: a constant, an address, or registers. `flags` are BTF_LOC_PARAM_*, which
 * say how to read the values (include/uapi/linux/btf.h `enum btf_loc_param_flags`).
 */
export interface LocParamType {
  readonly kind: 'LOC_PARAM'
  readonly id: number
  readonly name: string
  /** bytes of the parameter */
  readonly size: number
  readonly flags: number
  /** its values, unsigned; a value of 64 bits is two words, the lower first */
  readonly words: readonly number[]
}

/** The places of all parameters at an inlined call. */
export interface LocProtoType {
  readonly kind: 'LOC_PROTO'
  readonly id: number
  readonly name: string
  /** a LOC_PARAM for each parameter; 0 where its place is not known */
  readonly places: readonly number[]
}

/** The inlined calls in one section of the kernel's code: LOCSEC `inline.text` has those in `.text`. */
export interface LocsecType {
  readonly kind: 'LOCSEC'
  readonly id: number
  readonly name: string
  readonly locations: readonly {
    /** the FUNC that is inlined */
    readonly func: number
    /** its LOC_PROTO */
    readonly proto: number
    /** bytes from the start of the section */
    readonly offset: number
  }[]
}

/** A type of a kind newer than this library, which the file's layout section makes skippable. */
export interface UnknownType {
  readonly kind: 'UNKNOWN'
  readonly id: number
  readonly name: string
  readonly number: number
}

export type BtfType =
  | VoidType
  | IntType
  | FloatType
  | ReferenceType
  | ArrayType
  | StructType
  | EnumType
  | Enum64Type
  | FwdType
  | FuncType
  | FuncProtoType
  | VarType
  | DatasecType
  | DeclTagType
  | LocParamType
  | LocProtoType
  | LocsecType
  | UnknownType
