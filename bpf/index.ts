/*
 * The public interface of the library, by verb. The library does no I/O: bytes come in as Uint8Array or ByteSource, and
 * values and bytes go out. Bad input throws a BtfError with a code. README.md has an example for each verb.
 */

// Parse: bytes to BTF, and BTF to types.
export { Btf, type ParseOptions, parseBtf } from './btf.ts'
export { BTF_ERROR_CODES, BtfError, type BtfErrorCode } from './error.ts'
export { readBtf } from './file.ts'

// Types: the values that `Btf.type` returns.
export { KIND, type KindName, kindName } from './kind.ts'
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
  LocParamType,
  LocProtoType,
  LocsecType,
  Member,
  ReferenceType,
  StructType,
  UnknownType,
  VarType,
  VoidType,
} from './type.ts'

// Layout: sizes, offsets, and their comparison.
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

// Constants: offsets, sizes and enumerators by their names.
export { constantsOf, isConstantPath, type KernelConstant } from './constant.ts'

// Open: BPF objects with their programs and CO-RE relocations.
export {
  type BtfExt,
  type CoreRelocation,
  type FunctionInfo,
  type LineInfo,
  RELOCATION_KINDS,
  type RelocationKind,
} from './ext.ts'
export { type BpfCall, type BpfObject, openObject } from './object.ts'
export type { BpfProgram } from './program.ts'
export type { BpfExtern, Reference } from './reference.ts'

// Check: whether an object loads on a kernel.
export {
  type Check,
  type CheckedProgram,
  type CheckedRelocation,
  checkObject,
  type CheckOptions,
  type Guard,
  kernelIdsIn,
} from './check.ts'
export { type CheckStage, REASONS, type Reason, type ReasonCode, type Verdict } from './reason.ts'
export type { SourceLine } from './source-line.ts'
export { asksForFunctions } from './requirement.ts'
export { ambiguousStructs } from './ambiguity.ts'
export { needsModules } from './needs-modules.ts'

// Share: which kernels get the same answer about an object.
export { eachIdentity } from './name-identity.ts'
export { TypeTrace } from './type-trace.ts'
export type { TypeSource } from './type-source.ts'
export { versionOf } from './kernel-symbol.ts'

// Relocate: the instructions of an object, patched for a kernel.
export {
  type Relocated,
  type RelocatedObject,
  type RelocationOutcome,
  relocate,
} from './relocate.ts'
export { REFUSALS, type RefusalCode } from './relocation-error.ts'

// Minimize: only the types that some objects need.
export { minimizeBtf } from './minimize.ts'

// Rebase: a module from its distilled base onto a kernel.
export { relocateBase } from './distilled-base.ts'

// Merge: modules and their base as one BTF.
export { mergeBtf } from './merge.ts'

// Diff: the changes between two BTFs, as a value and as text.
export {
  type BtfDiff,
  type Change,
  diffBtf,
  diffShapes,
  type ElementChanges,
  type MemberChange,
  type ShapeChange,
  type TypeChange,
  type ValueChange,
} from './diff.ts'
export { printDiff } from './diff-text.ts'
export type { EnumValue, MemberPlace, TypeName, TypeShape, TypeSort } from './type-shape.ts'

// Declared: what a BTF declares by name, with keys that compare over many BTFs.
export {
  DECLARATION_KINDS,
  type DeclarationForm,
  type DeclarationKind,
  DeclaredForms,
} from './declared.ts'

// Print: a C header of all types, or one type with its offsets.
export { type HeaderOptions, printHeader } from './c.ts'
export { printLayout } from './print-layout.ts'

// List: one type as lines with links, its users, and names that contain a text; for pages.
export {
  type LinkedText,
  type ListedMember,
  type ListingLine,
  listType,
  type TypeListing,
} from './type-listing.ts'
export { type TypeUser, type TypeUsers, usersOf } from './type-users.ts'
export { searchNames } from './name-search.ts'

// Encode: types to bytes, also for older versions of libbpf.
export { isWrapped, type WrapOptions, wrapInElf } from './container.ts'
export { DIALECTS, type Dialect, toDialect } from './dialect.ts'
export { type EncodeOptions, encodeBtf } from './encode.ts'
export { typesOnly } from './types-only.ts'

// Delta: a BTF as the difference from another one.
export { DeltaChainCache, type LineStep, type StartedChain } from './delta-cache.ts'
export { applyDelta, DeltaChain, type DeltaOptions, needsParent } from './delta-decode.ts'
export { encodeDelta } from './delta-encode.ts'
export { plainDelta } from './delta-stream.ts'

// ELF: sections, symbols and notes, read on demand.
export { type ByteOrder, type ByteSource, memorySource } from './bytes.ts'
export { Elf, type ElfSection, type ElfSymbol, isElf, openElf } from './elf.ts'
export { buildIdOf, type ElfNote, parseNotes } from './note.ts'

// Functions: the names in a vmlinux's symbol table, and which of them are inlined somewhere.
export { FunctionList, type FunctionMark } from './function-list.ts'
export { readFunctions } from './function-symbols.ts'
export { readInlinedCalls } from './inlined-calls.ts'

// Identify: a vmlinux, a flat kernel image, or the BTF of a whole kernel.
export { describeImage, isKernelImage } from './image.ts'
export { describeKernelBtf, type KernelBtf } from './kernel-btf.ts'
export { describeVmlinux, type Vmlinux } from './vmlinux.ts'
