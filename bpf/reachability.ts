/*
 * Finds the instructions of a program that the verifier may reach after relocation. Constants are followed through
 * registers and the stack, so a branch on a patched 0 or 1 has one edge only. If a condition is unknown, both edges count.
 * So an instruction that is not reached here is dead code for the verifier too. An instruction on every path to an exit is
 * distinguished from one behind some branch. Calls lead to the object's other functions.
 */

import type { ByteOrder } from './bytes.ts'
import {
  CALL,
  CLASS,
  EXIT,
  INSTRUCTION_SIZE,
  type Instruction,
  LDIMM64,
  readInstruction,
} from './instruction.ts'
import { type BpfCall, type BpfObject, type BpfProgram, programAt } from './object.ts'

/** Limit of the verifier; a longer function is not analysed. */
const MAX_INSTRUCTIONS = 1_000_000
/** Steps of all walks through the edges of one function. */
const MAX_STEPS = 50_000_000
/** Average number of visits per instruction while constants are followed. */
const MAX_VISITS = 64

export type Reached =
  /** on no path */
  | { readonly is: 'never' }
  /** on every path to an exit */
  | { readonly is: 'always' }
  /** on some paths; `branch` is the nearest branch that decides, if one is found */
  | { readonly is: 'maybe'; readonly program: BpfProgram; readonly branch?: number }

/** Reachability in one object; `code` is its patched code. */
export class Reachability {
  readonly #object: BpfObject
  readonly #code: ReadonlyMap<string, Uint8Array>
  readonly #flows = new Map<BpfProgram, Flow | undefined>()
  readonly #functions = new Map<BpfProgram, Reached>()
  readonly #callers: ReadonlyMap<BpfProgram, readonly BpfCall[]>

  constructor(object: BpfObject, code: ReadonlyMap<string, Uint8Array>) {
    this.#object = object
    this.#code = code
    this.#callers = Map.groupBy(object.calls, (call) => call.target)
  }

  /** True if an instruction is reached, by its index in its program. */
  of(program: BpfProgram, instruction: number): Reached {
    const outside = this.#function(program)
    if (outside.is === 'never') return outside
    const flow = this.#flow(program)
    if (!flow) return { is: 'maybe', program }
    const inside = flow.reach(instruction, program)
    return inside.is === 'always' ? outside : inside
  }

  /** True if a function is reached. Programs, and functions that are verified on their own, always are. */
  #function(program: BpfProgram): Reached {
    const known = this.#functions.get(program)
    if (known) return known
    const callers = this.#callers.get(program) ?? []
    const isEntry = program.section !== '.text' || (program.global && callers.length > 0)
    this.#functions.set(program, isEntry ? { is: 'always' } : { is: 'never' })
    if (isEntry) return { is: 'always' }

    let best: Reached = { is: 'never' }
    for (const { section, offset } of callers) {
      const caller = programAt(this.#object, section, offset)
      if (!caller || best.is === 'always') continue
      const reach = this.of(caller, (offset - caller.offset) / INSTRUCTION_SIZE)
      if (best.is === 'never' || reach.is === 'always') best = reach
    }
    this.#functions.set(program, best)
    return best
  }

  #flow(program: BpfProgram): Flow | undefined {
    if (!this.#flows.has(program)) {
      const bytes = this.#code.get(program.section)
      const small = program.size <= MAX_INSTRUCTIONS * INSTRUCTION_SIZE
      const flow = bytes && small ? follow(bytes, program, this.#object.byteOrder) : undefined
      this.#flows.set(program, flow)
    }
    return this.#flows.get(program)
  }
}

/** Known 64-bit constants: of registers r0 to r10 by number, and of stack slots (see `slot`). Others are unknown. */
type RegisterState = Map<number, bigint>

/** The control flow of one function. */
class Flow {
  /** reached instruction → its successors; `#before` has its predecessors */
  readonly #next: ReadonlyMap<number, readonly number[]>
  readonly #before = new Map<number, number[]>()
  readonly #exits: readonly number[]
  #steps = 0

  constructor(next: ReadonlyMap<number, readonly number[]>) {
    this.#next = next
    for (const [at, edges] of next) {
      for (const edge of edges) {
        const before = this.#before.get(edge)
        if (before) before.push(at)
        else this.#before.set(edge, [at])
      }
    }
    this.#exits = [...next].filter(([, edges]) => edges.length === 0).map(([at]) => at)
  }

  reach(instruction: number, program: BpfProgram): Reached {
    if (!this.#next.has(instruction)) return { is: 'never' }
    if (this.#steps > MAX_STEPS) return { is: 'maybe', program }
    // the instructions from which an exit is reached without this instruction
    const escapes = this.#walk(this.#exits, instruction, (at) => this.#before.get(at) ?? [])
    if (!escapes.has(0)) return { is: 'always' }
    const branch = this.#nearestBranch(instruction, escapes)
    return branch === undefined ? { is: 'maybe', program } : { is: 'maybe', program, branch }
  }

  /** All instructions that are reached from `from` along `edges` without passing `without`. */
  #walk(
    from: readonly number[],
    without: number,
    edges: (at: number) => readonly number[],
  ): Set<number> {
    const reached = new Set<number>()
    const pending = [...from]
    for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
      this.#steps++
      if (at === without || reached.has(at)) continue
      reached.add(at)
      for (const edge of edges(at)) pending.push(edge)
    }
    return reached
  }

  /** The nearest branch before an instruction that also has an edge to an exit around it. */
  #nearestBranch(instruction: number, escapes: ReadonlySet<number>): number | undefined {
    const seen = new Set([instruction])
    let ring = [instruction]
    while (ring.length > 0) {
      const outer: number[] = []
      for (const inner of ring) {
        for (const at of this.#before.get(inner) ?? []) {
          this.#steps++
          if (seen.has(at)) continue
          seen.add(at)
          const edges = this.#next.get(at)!
          if (edges.length > 1 && edges.some((edge) => escapes.has(edge))) return at
          outer.push(at)
        }
      }
      ring = outer
    }
    return undefined
  }
}

/** Follows constants until nothing changes. Undefined if an edge leaves the function or the work exceeds its limit. */
function follow(bytes: Uint8Array, program: BpfProgram, order: ByteOrder): Flow | undefined {
  const count = program.size / INSTRUCTION_SIZE
  const states = new Map<number, RegisterState>([[0, new Map()]])
  const nexts = new Map<number, readonly number[]>()
  const pending = [0]
  let visits = 0
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    if (++visits > count * MAX_VISITS) return undefined
    const read = (index: number) =>
      readInstruction(bytes, program.offset + index * INSTRUCTION_SIZE, order)
    const instruction = read(at)
    const state = new Map(states.get(at)!)
    const second = instruction.code === LDIMM64 && at + 1 < count ? read(at + 1) : undefined
    const edges = step(instruction, second, state, at)
    if (edges.some((edge) => edge < 0 || edge >= count)) return undefined
    nexts.set(at, edges)
    for (const edge of edges) {
      const known = states.get(edge)
      if (!known) states.set(edge, new Map(state))
      else if (!forget(known, state)) continue
      pending.push(edge)
    }
  }
  return new Flow(nexts)
}

/** Deletes from `known` the constants that differ in `other`; returns whether any was deleted. */
function forget(known: RegisterState, other: RegisterState): boolean {
  let changed = false
  for (const [place, value] of known) {
    if (other.get(place) === value) continue
    known.delete(place)
    changed = true
  }
  return changed
}

/** Applies an instruction to a state; returns its successors. */
function step(
  instruction: Instruction,
  second: Instruction | undefined,
  state: RegisterState,
  at: number,
): number[] {
  const { code, destination, source, offset, immediate } = instruction
  const set = (place: number, value: bigint | undefined) => {
    if (value === undefined) state.delete(place)
    else state.set(place, BigInt.asUintN(64, value))
  }
  switch (code & 7) {
    case CLASS.ALU64:
    case CLASS.ALU: {
      const operand = (code & 8) !== 0 ? state.get(source) : BigInt(immediate)
      set(destination, arithmetic(code, state.get(destination), operand, offset))
      return [at + 1]
    }
    case CLASS.LD:
      if (!second) {
        // packet loads write r0 and clobber r1 to r5
        for (let register = 0; register <= 5; register++) state.delete(register)
        return [at + 1]
      }
      set(
        destination,
        source === 0
          ? (BigInt(second.immediate >>> 0) << 32n) | BigInt(immediate >>> 0)
          : undefined,
      )
      return [at + 2]
    case CLASS.LDX:
      set(destination, code === 0x79 && source === 10 ? state.get(slot(offset)) : undefined)
      return [at + 1]
    case CLASS.ST:
    case CLASS.STX:
      store(instruction, state)
      return [at + 1]
    default:
      return jump(instruction, state, at)
  }
}

/** The key of a stack slot at an offset from r10, which is negative: keys lie below those of registers. */
function slot(offset: number): number {
  return offset - 1
}

/** Only stores of whole 64-bit slots at r10 are followed; any other store may change any slot. */
function store(
  { code, destination, source, offset, immediate }: Instruction,
  state: RegisterState,
): void {
  const plain = (code & 0xe0) === 0x60
  const value = (code & 7) === CLASS.ST ? BigInt.asUintN(64, BigInt(immediate)) : state.get(source)
  if (!plain || destination !== 10 || (code & 0x18) !== 0x18 || offset % 8 !== 0) {
    for (const place of state.keys()) if (place < 0) state.delete(place)
    // an atomic operation may fetch into its source, or into r0
    if (!plain) {
      state.delete(source)
      state.delete(0)
    }
  } else if (value === undefined) state.delete(slot(offset))
  else state.set(slot(offset), value)
}

function jump(instruction: Instruction, state: RegisterState, at: number): number[] {
  const { code, destination, source, offset, immediate } = instruction
  if (code === EXIT) return []
  if (code === CALL || code === 0x8d) {
    for (const place of [...state.keys()]) if (place < 6) state.delete(place)
    return [at + 1]
  }
  if (code === 0x05) return [at + 1 + offset]
  if (code === 0x06) return [at + 1 + immediate]
  const narrow = (code & 7) === CLASS.JMP32
  const left = state.get(destination)
  const right = (code & 8) !== 0 ? state.get(source) : BigInt(immediate)
  const taken =
    left === undefined || right === undefined
      ? undefined
      : compare(code & 0xf0, left, right, narrow ? 32 : 64)
  const edges = [at + 1, at + 1 + offset]
  if (taken === undefined) return [...new Set(edges)]
  return [taken ? edges[1]! : edges[0]!]
}

function compare(
  operation: number,
  left: bigint,
  right: bigint,
  bits: number,
): boolean | undefined {
  const a = BigInt.asUintN(bits, left)
  const b = BigInt.asUintN(bits, right)
  const [sa, sb] = [BigInt.asIntN(bits, left), BigInt.asIntN(bits, right)]
  switch (operation) {
    case 0x10:
      return a === b
    case 0x20:
      return a > b
    case 0x30:
      return a >= b
    case 0x40:
      return (a & b) !== 0n
    case 0x50:
      return a !== b
    case 0x60:
      return sa > sb
    case 0x70:
      return sa >= sb
    case 0xa0:
      return a < b
    case 0xb0:
      return a <= b
    case 0xc0:
      return sa < sb
    case 0xd0:
      return sa <= sb
    default:
      return undefined
  }
}

/** The result of an ALU instruction; undefined if it is unknown. */
function arithmetic(
  code: number,
  left: bigint | undefined,
  right: bigint | undefined,
  offset: number,
): bigint | undefined {
  const bits = (code & 7) === CLASS.ALU ? 32 : 64
  const operation = code & 0xf0
  if (operation === 0xb0) {
    // a nonzero offset makes it a sign-extending move
    if (right === undefined || offset !== 0) return undefined
    return BigInt.asUintN(bits, right)
  }
  if (left === undefined) return undefined
  const a = BigInt.asUintN(bits, left)
  if (operation === 0x80) return BigInt.asUintN(bits, -a)
  if (right === undefined) return undefined
  const b = BigInt.asUintN(bits, right)
  const shift = b & BigInt(bits - 1)
  switch (operation) {
    case 0x00:
      return BigInt.asUintN(bits, a + b)
    case 0x10:
      return BigInt.asUintN(bits, a - b)
    case 0x20:
      return BigInt.asUintN(bits, a * b)
    case 0x40:
      return a | b
    case 0x50:
      return a & b
    case 0x60:
      return BigInt.asUintN(bits, a << shift)
    case 0x70:
      return a >> shift
    case 0xa0:
      return a ^ b
    case 0xc0:
      return BigInt.asUintN(bits, BigInt.asIntN(bits, a) >> shift)
    default:
      return undefined
  }
}
