/*
 * Infers alignments, which BTF does not store, so that C with the same offsets can be printed. The alignment of a scalar
 * follows from its size, but ABIs differ on scalars wider than a pointer: i386 aligns u64 to 4 bytes, ARM, MIPS and
 * PowerPC to 8. So an alignment says whether it is certain. An uncertain one is the largest of any ABI; a printer that
 * fills every gap itself is correct in both cases.
 */

import type { Btf } from './btf.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import { memberBits, resolve, sizeOf } from './layout.ts'
import type { StructType } from './type.ts'

export interface Alignment {
  /** bytes */
  readonly bytes: number
  /** whether every ABI with this pointer size agrees */
  readonly certain: boolean
}

const BYTE: Alignment = { bytes: 1, certain: true }
/** Structs within structs; the kernel's deepest is below 20. */
const MAX_NESTING = 256

/** Alignments of the types of one BTF, each computed once. */
export class Alignments {
  readonly #btf: Btf
  readonly #known = new Map<number, Alignment>()
  readonly #packed = new Map<number, boolean>()
  readonly #natural = new Map<number, Alignment>()
  #wide: Alignment | undefined

  constructor(btf: Btf) {
    this.#btf = btf
  }

  /** The alignment of a type as it is printed. Errors: `cycle`. */
  of(id: number, depth = 0): Alignment {
    if (depth > MAX_NESTING) throw new BtfError('cycle', `type ${id} contains itself`)
    const resolved = resolve(this.#btf, id)
    const known = this.#known.get(resolved)
    if (known) return known
    const alignment = this.#compute(resolved, depth)
    this.#known.set(resolved, alignment)
    return alignment
  }

  /**
   * True if a struct or union needs `packed`: a member is misaligned, or the size is not a multiple of the alignment
   * (libbpf `btf_is_struct_packed`).
   */
  isPacked(struct: StructType, depth = 0): boolean {
    const known = this.#packed.get(struct.id)
    if (known !== undefined) return known
    const packed =
      struct.members.some((member) => {
        const { bytes } = this.of(member.type, depth + 1)
        const { offset, size } = memberBits(this.#btf, struct, member)
        // a bitfield may start anywhere, but must not cross a boundary of its type
        const unit = (sizeOf(this.#btf, member.type) ?? 0) * 8
        if (size > 0) return (offset % unit) + size > unit
        return offset % (bytes * 8) !== 0
      }) || struct.size % this.natural(struct, depth).bytes !== 0
    this.#packed.set(struct.id, packed)
    return packed
  }

  #compute(id: number, depth: number): Alignment {
    const type = this.#btf.type(id)
    switch (type.kind) {
      case 'INT':
      case 'FLOAT':
      case 'ENUM':
      case 'ENUM64':
        return this.#scalar(type.size)
      case 'PTR':
        return { bytes: this.#btf.pointerSize, certain: true }
      case 'ARRAY':
        return this.of(type.type, depth + 1)
      case 'STRUCT':
      case 'UNION':
        return this.isPacked(type, depth) ? BYTE : this.natural(type, depth)
      default:
        return BYTE
    }
  }

  /** The largest alignment of a struct's members. */
  natural(struct: StructType, depth = 0): Alignment {
    const known = this.#natural.get(struct.id)
    if (known) return known
    let bytes = 1
    let certain = true
    for (const member of struct.members) {
      const alignment = this.of(member.type, depth + 1)
      bytes = Math.max(bytes, alignment.bytes)
      certain &&= alignment.certain
    }
    const natural = { bytes, certain }
    this.#natural.set(struct.id, natural)
    return natural
  }

  #scalar(size: number): Alignment {
    // a size that is not a power of two is that of a long double of 10 or 12 bytes, which is made of words
    const bytes = size > 0 ? size & -size : 1
    if (bytes <= this.#btf.pointerSize) return { bytes, certain: true }
    if (bytes === 8) return this.#eightBytes()
    return { bytes: Math.min(bytes, 16), certain: false }
  }

  /**
   * The alignment of 8-byte scalars with 4-byte pointers. If many structs have such members at odd multiples of 4 bytes,
   * the ABI is that of i386; if few do, those structs are packed.
   */
  #eightBytes(): Alignment {
    this.#wide ??= { bytes: aligns8To4(this.#btf) ? 4 : 8, certain: false }
    return this.#wide
  }
}

function aligns8To4(btf: Btf): boolean {
  let withWide = 0
  let misaligned = 0
  for (let id = 1; id < btf.endId; id++) {
    if (btf.kind(id) !== KIND.STRUCT) continue
    const type = btf.type(id)
    if (type.kind !== 'STRUCT') continue
    const wide = type.members.filter((member) => {
      const target = resolve(btf, member.type)
      const kind = btf.kind(target)
      const scalar = kind === KIND.INT || kind === KIND.FLOAT || kind === KIND.ENUM64
      return scalar && btf.sizeOrType(target) === 8 && memberBits(btf, type, member).size === 0
    })
    if (wide.length === 0) continue
    withWide++
    if (type.size % 8 === 4 || wide.some((member) => member.bitOffset % 64 === 32)) misaligned++
  }
  return misaligned * 5 > withWide
}
