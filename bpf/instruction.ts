/*
 * BPF instructions: eight bytes each, in the object's byte order (include/uapi/linux/bpf.h `struct bpf_insn`,
 * Documentation/bpf/standardization/instruction-set.rst).
 */

import { type ByteOrder, viewOf } from './bytes.ts'

export const INSTRUCTION_SIZE = 8

export interface Instruction {
  /** class in the low three bits; the rest is size and mode of a load or store, or source and operation */
  readonly code: number
  readonly destination: number
  readonly source: number
  /** 16 bits, signed */
  readonly offset: number
  /** 32 bits, signed */
  readonly immediate: number
}

/** Instruction classes: the low three bits of the code. */
export const CLASS = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU: 4, JMP: 5, JMP32: 6, ALU64: 7 } as const

/** The code of the first half of a 64-bit immediate load. */
export const LDIMM64 = 0x18

/** The code of a call: with the source PSEUDO_CALL to another function of the object, otherwise to a helper. */
export const CALL = 0x85
export const PSEUDO_CALL = 1
export const PSEUDO_KFUNC_CALL = 2
export const EXIT = 0x95

/** `call 0xbad2310`: libbpf's replacement for an instruction that must not be reached. */
export const POISON: Instruction = {
  code: CALL,
  destination: 0,
  source: 0,
  offset: 0,
  immediate: 0xbad2310,
}

export function isPoison({ code, immediate }: Instruction): boolean {
  return code === CALL && immediate === POISON.immediate
}

/** The size bits of loads and stores, and the number of bytes that they mean. */
const SIZES: readonly (readonly [bits: number, bytes: number])[] = [
  [0x18, 8],
  [0x00, 4],
  [0x08, 2],
  [0x10, 1],
]

/** Bytes that a load or store moves. */
export function accessSize(code: number): number {
  return SIZES.find(([bits]) => bits === (code & 0x18))![1]
}

/** The code with another access size; undefined for a size that no instruction has. */
export function withAccessSize(code: number, bytes: number): number | undefined {
  const size = SIZES.find(([, b]) => b === bytes)
  return size && (code & ~0x18) | size[0]
}

/** Reads the instruction at a byte offset. The caller knows that the bytes are that long. */
export function readInstruction(bytes: Uint8Array, at: number, order: ByteOrder): Instruction {
  const view = viewOf(bytes)
  const little = order === 'little'
  const registers = view.getUint8(at + 1)
  const [low, high] = [registers & 0xf, registers >> 4]
  return {
    code: view.getUint8(at),
    destination: little ? low : high,
    source: little ? high : low,
    offset: view.getInt16(at + 2, little),
    immediate: view.getInt32(at + 4, little),
  }
}

/** Writes an instruction; offset and immediate are truncated to their width. */
export function writeInstruction(
  bytes: Uint8Array,
  at: number,
  order: ByteOrder,
  instruction: Instruction,
): void {
  const view = viewOf(bytes)
  const little = order === 'little'
  const { destination, source } = instruction
  view.setUint8(at, instruction.code)
  view.setUint8(at + 1, little ? destination | (source << 4) : source | (destination << 4))
  view.setInt16(at + 2, instruction.offset, little)
  view.setInt32(at + 4, instruction.immediate, little)
}

/** BPF_STX | BPF_ATOMIC with 4 and 8 bytes. */
const ATOMICS: readonly number[] = [0xc3, 0xdb]
/** From here on immediates of atomics are loads and stores with barriers. */
const FIRST_BARRIER = 0x100

/** True for the atomic operations that came with Linux 5.12: all but an addition whose old value is not asked for. */
export function isNewAtomic({ code, immediate }: Instruction): boolean {
  return ATOMICS.includes(code) && immediate > 0 && immediate < FIRST_BARRIER
}
