/*
 * The public door of `bpf/`: the formats of BPF type information, without any I/O. Bytes come in as Uint8Array or
 * ByteSource, values and bytes go out; everything bad about the bytes is a BtfError with a code.
 */

export { Btf, type ParseOptions, parseBtf } from './btf.ts'
export { type ByteOrder, type ByteSource, memorySource } from './bytes.ts'
export { printHeader } from './c.ts'
export {
  type Check,
  type CheckedProgram,
  type CheckedRelocation,
  checkObject,
  type Guard,
  type Loads,
  type SourceLine,
} from './check.ts'
export { DIALECTS, type Dialect, toDialect } from './dialect.ts'
export {
  type BtfDiff,
  type Change,
  diffBtf,
  type ElementChanges,
  type MemberChange,
  type TypeChange,
  type ValueChange,
} from './diff.ts'
export { printDiff } from './diff-text.ts'
export { Elf, type ElfSection, type ElfSymbol, isElf, openElf } from './elf.ts'
export { type EncodeOptions, encodeBtf } from './encode.ts'
export { BTF_ERROR_CODES, BtfError, type BtfErrorCode } from './error.ts'
export {
  type BtfExt,
  type CoreRelocation,
  type FunctionInfo,
  type LineInfo,
  RELOCATION_KINDS,
  type RelocationKind,
} from './ext.ts'
export { readBtf } from './file.ts'
export { describeImage, isKernelImage } from './image.ts'
export { KIND, type KindName, kindName } from './kind.ts'
export {
  compareLayouts,
  type LayoutComparison,
  layoutOf,
  type MemberLayout,
  memberBits,
  resolve,
  type StructLayout,
  sizeOf,
} from './layout.ts'
export { mergeBtf } from './merge.ts'
export { minimizeBtf } from './minimize.ts'
export { buildIdOf, type ElfNote, parseNotes } from './note.ts'
export { type BpfCall, type BpfObject, type BpfProgram, openObject } from './object.ts'
export { printLayout } from './print-layout.ts'
export {
  type Relocated,
  type RelocatedObject,
  type RelocationOutcome,
  relocate,
} from './relocate.ts'
export { REFUSALS, type RefusalCode } from './relocation-error.ts'
export type {
  ArrayType,
  BtfType,
  DatasecType,
  DeclTagType,
  Enum64Type,
  EnumType,
  FloatType,
  FuncProtoType,
  FuncType,
  FwdType,
  IntType,
  Linkage,
  Member,
  ReferenceType,
  StructType,
  UnknownType,
  VarType,
  VoidType,
} from './type.ts'
export type { EnumValue, MemberPlace, TypeName, TypeSort } from './type-shape.ts'
export { describeVmlinux, type Vmlinux } from './vmlinux.ts'
