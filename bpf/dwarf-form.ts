/*
 * The forms of DWARF attributes (DWARF 5, section 7.5.6, and GNU's extensions): how many bytes a value has. Those of
 * 64-bit DWARF are not here, since no kernel has it.
 */

/** Forms whose meaning matters, apart from their size. */
export const FORM = {
  string: 0x08,
  strp: 0x0e,
  refAddr: 0x10,
  ref1: 0x11,
  ref2: 0x12,
  ref4: 0x13,
  ref8: 0x14,
  refUdata: 0x15,
  indirect: 0x16,
  secOffset: 0x17,
  strx: 0x1a,
  strx1: 0x25,
  strx2: 0x26,
  strx3: 0x27,
  strx4: 0x28,
} as const

/** The number of bytes of a value; or how its end is found, where a number of bytes stands before it or none does. */
export type FormSize = number | 'leb' | 'string' | 'block' | 'block1' | 'block2' | 'block4'

// biome-ignore format: a table
const SIZES: Readonly<Record<number, FormSize>> = {
  3: 'block2', 4: 'block4', 5: 2, 6: 4, 7: 8, 8: 'string', 9: 'block', 10: 'block1', 11: 1,
  12: 1, 13: 'leb', 14: 4, 15: 'leb', 17: 1, 18: 2, 19: 4, 20: 8, 21: 'leb', 23: 4, 24: 'block',
  25: 0, 26: 'leb', 27: 'leb', 28: 4, 29: 4, 30: 16, 31: 4, 32: 8, 33: 0, 34: 'leb', 35: 'leb',
  36: 8, 37: 1, 38: 2, 39: 3, 40: 4, 41: 1, 42: 2, 43: 3, 44: 4,
  7937: 'leb', 7938: 'leb', 7968: 4, 7969: 4,
}

/** The size of a form in a unit; undefined for a form that no version knows, and for DW_FORM_indirect. */
export function sizeOfForm(
  form: number,
  { version, addressSize }: { version: number; addressSize: number },
): FormSize | undefined {
  if (form === 0x01) return addressSize
  if (form === FORM.refAddr) return version === 2 ? addressSize : 4
  return SIZES[form]
}
