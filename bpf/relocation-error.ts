/* The reasons why libbpf refuses a whole object for one of its relocations. */

import { short } from './short.ts'

export const REFUSALS = {
  invalid_spec: 'the access string does not fit the root type',
  unknown_kind: 'libbpf does not know this kind of relocation',
  anonymous_type: 'the root type is anonymous, so no kernel type can match it',
  too_deep: 'the path from the root type to the field has more than 64 steps',
  too_complex: 'the types are too deeply or too intricately nested to be compared',
  no_size: 'a type needs a size but has none',
  array_access: 'this kind of relocation does not apply to an array element',
  unreadable_bitfield: 'one load of at most 8 bytes cannot read the bitfield',
  ambiguous_offset: 'several types of the kernel match, but have the field at different offsets',
  ambiguous_value: 'several types of the kernel match, but give different values',
  invalid_instruction: 'the relocation does not point to an instruction',
  unsupported_instruction: 'an instruction of this form cannot be patched',
  unexpected_value: 'the instruction does not hold the value that follows from the object’s types',
  unexpected_size: 'the access size of the instruction differs from the size of the object’s field',
  offset_range: 'the offset in the kernel does not fit an instruction',
  access_size: 'no instruction can access a field of the size in the kernel',
} as const

export type RefusalCode = keyof typeof REFUSALS

/** Thrown while one relocation is resolved. `relocate` and `minimizeBtf` catch it, so callers never see it. */
export class RelocationError extends Error {
  override readonly name = 'RelocationError'
  readonly code: RefusalCode

  constructor(code: RefusalCode, detail = '') {
    super(detail ? `${REFUSALS[code]}: ${short(detail)}` : REFUSALS[code])
    this.code = code
  }
}
