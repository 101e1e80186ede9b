/*
 * Relocates an object: patches every instruction that a relocation names with the relocation's value in a kernel, as
 * libbpf does when it loads the object (src/relo_core.c `bpf_core_patch_insn`). Each relocation has an outcome; a refusal
 * is an outcome too, not an error.
 */

import type { Btf } from './btf.ts'
import type { ByteOrder } from './bytes.ts'
import type { CoreRelocation } from './ext.ts'
import {
  accessSize,
  CLASS,
  INSTRUCTION_SIZE,
  LDIMM64,
  POISON,
  readInstruction,
  withAccessSize,
  writeInstruction,
} from './instruction.ts'
import type { BpfObject } from './object.ts'
import { type BpfProgram, programAt } from './program.ts'
import { type RefusalCode, RelocationError } from './relocation-error.ts'
import type { RelocationValue } from './relocation-value.ts'
import { Resolver } from './resolve.ts'

/** The outcome of a relocation. Values are unsigned 64-bit numbers, as libbpf prints them. */
export type RelocationOutcome =
  /**
   * patched; `bytes` is set if a load or store now moves another number of bytes, `field` if the address of a field is
   * computed that has another size in the kernel
   */
  | {
      is: 'ok'
      old: bigint
      new: bigint
      bytes?: { old: number; new: number }
      field?: { old: number; new: number }
    }
  /** patched with 0, because the kernel lacks the field, type or value that a query is about */
  | { is: 'absent'; old: bigint }
  /**
   * replaced by an instruction that the verifier refuses if it is reached: the field, type or value is missing, or has a
   * size that the instruction cannot access
   */
  | { is: 'poisoned'; why: 'missing' | 'access' }
  /** libbpf refuses the whole object */
  | { is: 'fatal'; why: RefusalCode; message: string }

export interface Relocated {
  readonly relocation: CoreRelocation
  readonly program: BpfProgram
  /** index of the instruction in its program */
  readonly instruction: number
  /** ids of the kernel's matching root types; those of different modules may be equal */
  readonly candidates: readonly number[]
  readonly outcome: RelocationOutcome
}

export interface RelocatedObject {
  /** in the order of `.BTF.ext`; like libbpf without relocations of instructions outside all programs */
  readonly relocations: readonly Relocated[]
  /** the executable sections, patched */
  readonly code: ReadonlyMap<string, Uint8Array>
}

/**
 * Relocates an object against a kernel's BTF, and that of its modules, opened over it. Tries all relocations, while
 * libbpf stops at the first fatal one. Errors: `cycle`.
 */
export function relocate(
  object: BpfObject,
  kernel: Btf,
  modules: readonly Btf[] = [],
): RelocatedObject {
  return relocateBy(new Resolver(object, kernel, { modules }), object)
}

/** Relocates an object as `relocate` does. */
export function relocateBy(resolver: Resolver, object: BpfObject): RelocatedObject {
  const code = new Map([...object.code].map(([name, bytes]) => [name, Uint8Array.from(bytes)]))
  const relocations: Relocated[] = []
  for (const relocation of object.ext.relocations) {
    const program = programAt(object.programs, relocation.section, relocation.offset)
    const bytes = code.get(relocation.section)
    if (!program || !bytes) continue
    const instruction = Math.floor((relocation.offset - program.offset) / INSTRUCTION_SIZE)
    let candidates: readonly number[] = []
    let outcome: RelocationOutcome
    try {
      const { result, targets } = resolver.resolve(relocation)
      candidates = targets.map((target) => target.root)
      const missing = targets.length === 0 && relocation.kind !== 'local_type_id'
      outcome = patch(bytes, relocation.offset, object.byteOrder, result, missing)
    } catch (error) {
      if (!(error instanceof RelocationError)) throw error
      outcome = { is: 'fatal', why: error.code, message: error.message }
    }
    relocations.push({ relocation, program, instruction, candidates, outcome })
  }
  return { relocations, code }
}

function patch(
  code: Uint8Array,
  at: number,
  order: ByteOrder,
  result: RelocationValue,
  missing: boolean,
): RelocationOutcome {
  if (at % INSTRUCTION_SIZE !== 0) throw new RelocationError('invalid_instruction')
  const instruction = readInstruction(code, at, order)
  const wide = instruction.code === LDIMM64
  if (wide && at + 2 * INSTRUCTION_SIZE > code.length)
    throw new RelocationError('invalid_instruction')
  const poison = (why: 'missing' | 'access'): RelocationOutcome => {
    if (wide) writeInstruction(code, at + INSTRUCTION_SIZE, order, POISON)
    writeInstruction(code, at, order, POISON)
    return { is: 'poisoned', why }
  }
  if (!result.new) return poison('missing')

  const value = result.new.value
  const expect = (held: bigint) => {
    if (result.old.certain && held !== result.old.value) {
      throw new RelocationError('unexpected_value', `${held}, expected ${result.old.value}`)
    }
    return held
  }
  const done = (old: bigint): RelocationOutcome =>
    missing ? { is: 'absent', old } : { is: 'ok', old, new: value }

  switch (instruction.code & 7) {
    case CLASS.ALU:
    case CLASS.ALU64: {
      if ((instruction.code & 8) !== 0)
        throw new RelocationError(
          'unsupported_instruction',
          'an ALU instruction without an immediate',
        )
      const old = expect(unsigned(instruction.immediate))
      writeInstruction(code, at, order, { ...instruction, immediate: low(value) })
      const { size } = result.old
      const isResized = !missing && size !== 0 && size !== result.new.size
      if (isResized)
        return { is: 'ok', old, new: value, field: { old: size, new: result.new.size } }
      return done(old)
    }
    case CLASS.LDX:
    case CLASS.ST:
    case CLASS.STX: {
      const old = expect(unsigned(instruction.offset))
      if (value > 0x7fffn) throw new RelocationError('offset_range', `${value}`)
      if (result.wrongAccess) return poison('access')
      const patched = { ...instruction, offset: Number(value) }
      if (result.old.size === result.new.size) {
        writeInstruction(code, at, order, patched)
        return done(old)
      }
      const bytes = { old: result.old.size, new: result.new.size }
      writeInstruction(code, at, order, { ...patched, code: resized(instruction.code, bytes) })
      return { is: 'ok', old, new: value, bytes }
    }
    case CLASS.LD: {
      if (!wide) throw new RelocationError('unsupported_instruction', 'an LD other than LDIMM64')
      const second = readInstruction(code, at + INSTRUCTION_SIZE, order)
      const { source, offset } = instruction
      if (source || offset || second.code || second.destination || second.source || second.offset) {
        throw new RelocationError('unsupported_instruction', 'an LDIMM64 with a source or offset')
      }
      const held = (BigInt(second.immediate >>> 0) << 32n) | BigInt(instruction.immediate >>> 0)
      const old = expect(held)
      writeInstruction(code, at, order, { ...instruction, immediate: low(value) })
      const high = { ...second, immediate: low(value >> 32n) }
      writeInstruction(code, at + INSTRUCTION_SIZE, order, high)
      return done(old)
    }
    default:
      throw new RelocationError(
        'unsupported_instruction',
        `code 0x${instruction.code.toString(16)}`,
      )
  }
}

function resized(code: number, bytes: { old: number; new: number }): number {
  if (accessSize(code) !== bytes.old) {
    throw new RelocationError('unexpected_size', `${accessSize(code)} bytes, expected ${bytes.old}`)
  }
  const other = withAccessSize(code, bytes.new)
  if (other === undefined) throw new RelocationError('access_size', `${bytes.new}`)
  return other
}

/** Sign-extends to 64 bits, then reads as unsigned, as C compares an s32 with a u64. */
function unsigned(value: number): bigint {
  return BigInt.asUintN(64, BigInt(value))
}

function low(value: bigint): number {
  return Number(BigInt.asIntN(32, value))
}
