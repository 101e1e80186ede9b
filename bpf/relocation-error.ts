/* Why libbpf refuses a whole object because of one of its relocations. */

export const REFUSALS = {
  invalid_spec: 'the access string does not fit its root type',
  unknown_kind: 'a relocation kind that no libbpf knows',
  anonymous_type: 'an anonymous type cannot be looked for in a kernel',
  too_deep: 'more than 64 steps from the root type to the field',
  too_complex: 'the types are nested too deep, or in too many ways, to be compared',
  no_size: 'a type without a size where one is needed',
  array_access: 'this kind of relocation cannot be about an element of an array',
  unreadable_bitfield: 'the bitfield cannot be read with one load of 8 bytes',
  ambiguous_offset: 'several types of the kernel match, with the field at different offsets',
  ambiguous_value: 'several types of the kernel match, with different results',
  invalid_instruction: 'no instruction of a program is where the relocation points',
  unsupported_instruction: 'the instruction is none that can be patched',
  unexpected_value: 'the instruction does not hold the value that the object’s own types give',
  unexpected_size: 'the instruction does not access as many bytes as the object’s own field has',
  offset_range: 'the offset in the kernel is more than an instruction can hold',
  access_size: 'the field in the kernel has a size that no instruction accesses',
} as const

export type RefusalCode = keyof typeof REFUSALS

/** Thrown within relocating one instruction, and caught there: outside a refusal is a value. */
export class RelocationError extends Error {
  override readonly name = 'Refusal'
  readonly code: RefusalCode

  constructor(code: RefusalCode, detail = '') {
    super(detail ? `${REFUSALS[code]}: ${detail}` : REFUSALS[code])
    this.code = code
  }
}
