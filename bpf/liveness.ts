/* Which registers a function still reads, and where its paths meet. */

import { CALL, CLASS, EXIT, type Instruction, LDIMM64 } from './instruction.ts'

const ALL_REGISTERS = 0x7ff
const ARGUMENTS = 0x3e
const CLOBBERED = 0x3f

/** The control flow of one function. */
export interface FunctionFlow {
  /** bit n of an entry: register n is read from that instruction on, before it is written */
  readonly live: Uint16Array
  /** the targets of jumps, and what follows a conditional one */
  readonly meets: ReadonlySet<number>
}

/** Finds the flow of a function; undefined if a path leaves it or a register does not exist. Indirect jumps have no successor here. */
export function flowOf(instructions: readonly Instruction[]): FunctionFlow | undefined {
  const meets = new Set<number>()
  for (let at = 0; at < instructions.length; at++) {
    const instruction = instructions[at]!
    // a call that does not return may be the last
    const end = instruction.code === CALL ? instructions.length : instructions.length - 1
    const next = successors(instruction, at)
    if (instruction.destination > 10 || instruction.source > 10) return undefined
    if (next.some((to) => to < 0 || to > end)) return undefined
    if (isJump(instruction)) for (const to of next) meets.add(to)
  }
  return { live: liveRegisters(instructions), meets }
}

/**
 * Finds the live registers with a list of work: an instruction is looked at again only when a successor of it changes,
 * which happens at most once for each register.
 */
function liveRegisters(instructions: readonly Instruction[]): Uint16Array {
  const live = new Uint16Array(instructions.length + 1)
  const before = new Map<number, number[]>()
  for (const [at, instruction] of instructions.entries()) {
    for (const to of successors(instruction, at)) {
      // that the one above leads here goes without saying
      if (to === at + 1) continue
      const known = before.get(to)
      if (known) known.push(at)
      else before.set(to, [at])
    }
  }
  const pending = [...instructions.keys()]
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    const instruction = instructions[at]!
    let after = 0
    for (const to of successors(instruction, at)) after |= live[to]!
    const now = readBefore(instruction, after)
    if (live[at] === now) continue
    live[at] = now
    if (at > 0) pending.push(at - 1)
    for (const from of before.get(at) ?? []) pending.push(from)
  }
  return live
}

function isJump({ code }: Instruction): boolean {
  const cls = code & 7
  return (cls === CLASS.JMP || cls === CLASS.JMP32) && code !== CALL && code !== EXIT
}

function successors(instruction: Instruction, at: number): number[] {
  const { code, offset, immediate } = instruction
  if (code === LDIMM64) return [at + 2]
  if (!isJump(instruction)) return code === EXIT ? [] : [at + 1]
  if (code === 0x05) return [at + 1 + offset]
  if (code === 0x06) return [at + 1 + immediate]
  if (code === 0x0d) return []
  return [at + 1, at + 1 + offset]
}

function readBefore({ code, destination, source, immediate }: Instruction, after: number): number {
  const d = 1 << destination
  const s = 1 << source
  switch (code & 7) {
    case CLASS.ALU:
    case CLASS.ALU64: {
      const right = (code & 8) !== 0 && (code & 0xf0) !== 0xd0 ? s : 0
      return (code & 0xf0) === 0xb0 ? (after & ~d) | right : after | d | right
    }
    case CLASS.LD:
      return code === LDIMM64 ? after & ~d : (after & ~CLOBBERED) | s | (1 << 6)
    case CLASS.LDX:
      return (after & ~d) | s
    case CLASS.ST:
      return after | d
    case CLASS.STX:
      // a load-acquire writes its destination; a compare-and-exchange reads r0
      if ((code & 0xe0) === 0xc0 && immediate === 0x100) return (after & ~d) | s
      return after | d | s | ((code & 0xe0) === 0xc0 ? 1 : 0)
    default:
      if (code === EXIT) return 1
      if (code === CALL) return (after & ~CLOBBERED) | ARGUMENTS
      if (code === 0x05 || code === 0x06) return after
      if (code === 0x8d || code === 0x0d) return ALL_REGISTERS
      return after | d | ((code & 8) !== 0 ? s : 0)
  }
}
