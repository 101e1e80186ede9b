/*
 * The state of the machine that runs BPF, as far as it is followed: registers and stack of each frame.
 */

import type { FunctionCode } from './function-code.ts'
import { ALL } from './interval.ts'
import type { BpfProgram } from './program.ts'
import { type AbstractValue, includes, LOST, type Pointer, type Scalar, widened } from './value.ts'

/** Where an exploration is in doubt: the first branch whose sides the verifier may not both explore. */
export interface Doubt {
  readonly program: BpfProgram
  /** index of the branch in its program; undefined if there is no single one */
  readonly branch?: number
}

export interface Frame {
  readonly code: FunctionCode
  /** the instruction after the call, in the frame below */
  readonly back: number
  readonly registers: AbstractValue[]
  /** by offset from the top of the stack, a multiple of 8, below 0; without what was never written */
  readonly stack: Map<number, AbstractValue>
}

/** The frames, of which the last one runs, and its next instruction. */
export interface State {
  frames: Frame[]
  at: number
  /** set once the path is one that the verifier may exclude */
  doubt: Doubt | undefined
}

/** A pointer that is not NULL, and that the verifier knows not to be NULL. */
export const NOT_NULL: Pointer = { is: 'pointer', zero: 'no', loose: false, id: 0 }

/** What registers hold that may not be read: after a call, and before the first write. */
export const UNREADABLE: Pointer = { is: 'pointer', zero: 'cannot tell', loose: true, id: 0 }

/** Bytes on the stack of which the verifier knows nothing (STACK_MISC). */
export const MISC: Scalar = { is: 'scalar', may: ALL, sure: ALL, id: 0, kin: 0 }

/** A new frame, the one with that number, with values in r1 to r5. */
export function newFrame(
  code: FunctionCode,
  number: number,
  back: number,
  argument: (register: number) => AbstractValue,
): Frame {
  const registers = Array.from({ length: 11 }, (_, register) =>
    register >= 1 && register <= 5 ? argument(register) : UNREADABLE,
  )
  registers[10] = { is: 'stack', frame: number, offset: 0 }
  return { code, back, registers, stack: new Map() }
}

export function copyOf({ frames, at, doubt }: State): State {
  return {
    frames: frames.map(({ code, back, registers, stack }) => ({
      code,
      back,
      registers: [...registers],
      stack: new Map(stack),
    })),
    at,
    doubt,
  }
}

/** The number of registers and stack slots of a state. */
export function cellsOf({ frames }: State): number {
  let cells = 0
  for (const { registers, stack } of frames) cells += registers.length + stack.size
  return cells
}

/** The slot of 8 bytes that holds an offset from the top of the stack. */
export function slotOf(offset: number): number {
  return Math.floor(offset / 8) * 8
}

/** Writes what a call leaves in r0 to r5. */
export function clobber(registers: AbstractValue[]): void {
  registers.fill(UNREADABLE, 0, 6)
}

/** The registers that a frame still reads: those of the callee's caller that a call keeps, and all of the last one. */
function liveOf(frames: readonly Frame[], index: number, at: number): number {
  const { code } = frames[index]!
  const above = frames[index + 1]
  return above ? code.live[above.back]! & 0x3c0 : code.live[at]!
}

/**
 * True if what is explored from `outer` covers what would be explored from `inner`, at the same instruction and by the
 * same calls. If not `certain`, only what may happen counts.
 */
export function covered(outer: State, inner: State, certain: boolean): boolean {
  return outer.frames.every((frame, index) => {
    const other = inner.frames[index]!
    const live = liveOf(outer.frames, index, outer.at)
    for (let register = 0; register < 10; register++) {
      if ((live & (1 << register)) === 0) continue
      if (!includes(frame.registers[register]!, other.registers[register]!, certain)) return false
    }
    for (const [slot, value] of frame.stack) {
      if (!includes(value, other.stack.get(slot) ?? LOST, certain)) return false
    }
    if (!certain) return true
    for (const slot of other.stack.keys()) if (!frame.stack.has(slot)) return false
    return true
  })
}

/** A state that covers both, in what may happen. */
export function joined(a: State, b: State): State {
  return {
    frames: a.frames.map(({ code, back, registers, stack }, index) => {
      const other = b.frames[index]!
      const both = registers.map((value, n) => widened(value, other.registers[n]!))
      const slots = new Map<number, AbstractValue>()
      for (const slot of new Set([...stack.keys(), ...other.stack.keys()])) {
        slots.set(slot, widened(stack.get(slot) ?? LOST, other.stack.get(slot) ?? LOST))
      }
      return { code, back, registers: both, stack: slots }
    }),
    at: a.at,
    doubt: a.doubt,
  }
}

/** Forgets what the stack holds at an address that is written to, and above it. */
export function forgetStack(state: State, address: AbstractValue, offset: number): void {
  if (address.is !== 'stack') return
  if (address === LOST || address.offset === undefined) {
    const frames = address === LOST ? state.frames : [state.frames[address.frame]!]
    for (const { stack } of frames) for (const slot of stack.keys()) stack.set(slot, LOST)
    return
  }
  const { stack } = state.frames[address.frame]!
  const first = slotOf(address.offset + offset)
  for (const slot of stack.keys()) if (slot >= first) stack.set(slot, LOST)
}

/**
 * Puts what a branch tells about the value of a register in its place: wholly in that register and in all copies of a
 * pointer; in copies of a number only as far as every verifier agrees, since older ones do not know copies.
 */
export function refine(state: State, register: number, by: AbstractValue): void {
  const last = state.frames.at(-1)!.registers
  const value = last[register]!
  const learn = (held: AbstractValue): AbstractValue => {
    if (held.is === 'pointer' && value.is === 'pointer') {
      return held.id !== 0 && held.id === value.id ? by : held
    }
    if (held.is !== 'scalar' || value.is !== 'scalar' || by.is !== 'scalar') return held
    if (held.id !== 0 && held.id === value.id) return { ...held, sure: by.sure }
    return held.kin !== 0 && held.kin === value.kin ? { ...held, sure: undefined } : held
  }
  for (const { registers, stack } of state.frames) {
    for (let n = 0; n < 10; n++) registers[n] = learn(registers[n]!)
    for (const [slot, held] of stack) {
      const known = learn(held)
      if (known !== held) stack.set(slot, known)
    }
  }
  last[register] = by
}
