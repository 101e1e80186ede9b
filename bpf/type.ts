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
  | UnknownType
