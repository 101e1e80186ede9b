/*
 * Explores the paths of a program as the verifier does (kernel/bpf/verifier.c `do_check`), to tell which instructions it
 * reaches. A branch is followed on one side only if its condition follows from values that are known at load time:
 * relocated values, `.rodata`, externs. Where the verifier may know more than this library, both sides are followed, and
 * what is reached there is reached in doubt: the answer names the branch.
 *
 * Calls are followed into static functions with their arguments, and into functions whose address is passed to a helper
 * or kfunc. A global function is explored on its own.
 */

import { type Side, sidesOf } from './branch.ts'
import type { FunctionCode, FunctionCodes } from './function-code.ts'
import { BOUNDED, FILLS, NEVER_NULL, OR_NULL, READS } from './helper.ts'
import {
  accessSize,
  CALL,
  CLASS,
  EXIT,
  INSTRUCTION_SIZE,
  type Instruction,
  LDIMM64,
  PSEUDO_CALL,
  PSEUDO_KFUNC_CALL,
} from './instruction.ts'
import { ALL, lowBits } from './interval.ts'
import {
  cellsOf,
  clobber,
  copyOf,
  covered,
  type Doubt,
  type Frame,
  forgetStack,
  joined,
  MISC,
  NOT_NULL,
  newFrame,
  refine,
  type State,
  slotOf,
  UNREADABLE,
} from './machine.ts'
import type { BpfProgram } from './program.ts'
import type { BpfExtern, Reference } from './reference.ts'
import {
  type AbstractValue,
  compute,
  constant,
  constantOf,
  free,
  LOST,
  type Scalar,
  UNKNOWN,
} from './value.ts'

/** Instructions that one exploration steps through; beyond, nothing is certain. */
const MAX_STEPS = 400_000
/** States of one instruction and chain of calls that are explored one by one; further ones are explored as one. */
const MAX_STATES = 24
/** Registers and stack slots of all states that are remembered: some hundred megabytes at most. */
const MAX_CELLS = 4_000_000
/** Frames of the verifier (MAX_CALL_FRAMES). */
const MAX_FRAMES = 8

/** Bytes of a frame's stack (MAX_BPF_STACK). */
const MAX_STACK = 512
const ATOMIC = 0xc0
/** Immediates of atomic operations; CMPXCHG includes FETCH. */
const FETCH = 0x01
const CMPXCHG = 0xf1
const LOAD_ACQUIRE = 0x100
const MAY_GOTO = 0xe5
const TYPED_CONTEXT: AbstractValue = { is: 'pointer', zero: 'no', loose: true, id: 0 }

/** The value that a kernel gives an extern: `absent`, a number, an address that is not 0, or `unknown`. */
export type ExternValue =
  | { readonly is: 'absent' | 'address' | 'unknown' }
  | { readonly is: 'number'; readonly value: bigint }

export type Reached =
  /** on no path */
  | { readonly is: 'never' }
  /** the verifier explores a path to it */
  | { readonly is: 'always' }
  /** only on paths that the verifier may exclude */
  | { readonly is: 'maybe'; readonly doubt: Doubt }

/** The states of one instruction and chain of calls that were explored. */
interface Seen {
  readonly exact: State[]
  wide: State | undefined
}

/** The instructions of a function that are reached, and how. */
interface Coverage {
  /** by instruction: 0 never, 1 in doubt, 2 certainly */
  readonly reached: Uint8Array
  readonly doubts: Map<number, Doubt>
}

/** Explores one program, with all functions that it calls. */
export class Exploration {
  readonly #codes: FunctionCodes
  readonly #extern: (extern: BpfExtern) => ExternValue
  readonly #coverage = new Map<FunctionCode, Coverage>()
  readonly #roots = new Map<BpfProgram, 1 | 2>()
  #pending: State[] = []
  readonly #seen = new Map<string, Seen>()
  #steps = 0
  #states = MAX_STATES
  /** registers and stack slots of the states that are remembered */
  #cells = 0
  #ids = 0
  /** why nothing that was not reached counts as unreachable: an instruction that is not understood, or the limit */
  #gaveUp: Doubt | undefined

  constructor(
    program: BpfProgram,
    codes: FunctionCodes,
    extern: (extern: BpfExtern) => ExternValue,
  ) {
    this.#codes = codes
    this.#extern = extern
    this.#explore(program)
    if (this.#steps <= MAX_STEPS) return
    // Too many paths: once more with the states of each instruction joined. What it does not reach is unreachable.
    this.#states = 1
    this.#steps = 0
    this.#cells = 0
    this.#gaveUp = undefined
    this.#seen.clear()
    this.#roots.clear()
    this.#explore(program)
  }

  #explore(program: BpfProgram): void {
    const typed = isTypedContext(program.section)
    this.#start(program, undefined, (register) =>
      register === 1 && typed ? TYPED_CONTEXT : free(ALL, ++this.#ids),
    )
    const callback = this.#codes.exceptionCallback(program)
    if (callback) this.#start(callback, undefined, () => free(ALL, ++this.#ids))
    for (let next = this.#pending.pop(); next; next = this.#pending.pop()) this.#run(next)
  }

  /** Queues a function that the verifier enters with arguments of its own: a program, a callback, a global function. */
  #start(
    target: BpfProgram,
    doubt: Doubt | undefined,
    argument: (register: number) => AbstractValue,
  ): void {
    const rank = doubt ? 1 : 2
    if ((this.#roots.get(target) ?? 0) >= rank) return
    this.#roots.set(target, rank)
    const code = this.#codes.of(target)
    if (!code) {
      this.#gaveUp ??= { program: target }
      return
    }
    const frame = newFrame(code, 0, 0, argument)
    this.#pending.push({ frames: [frame], at: 0, doubt })
  }

  /** How an instruction is reached, by its index in its program. */
  of(program: BpfProgram, instruction: number): Reached {
    const code = this.#codes.of(program)
    const coverage = code && this.#coverage.get(code)
    const reached = coverage?.reached[instruction] ?? 0
    if (reached === 2) return { is: 'always' }
    if (reached === 1) return { is: 'maybe', doubt: coverage!.doubts.get(instruction)! }
    return this.#gaveUp ? { is: 'maybe', doubt: this.#gaveUp } : { is: 'never' }
  }

  /** Runs a state until its path ends or is one that was explored before. */
  #run(state: State): void {
    for (;;) {
      const frame = state.frames.at(-1)!
      const { code } = frame
      const { at } = state
      if (at < 0 || at >= code.instructions.length) {
        // the verifier refuses a program that runs out of its function
        this.#gaveUp ??= { program: code.program }
        return
      }
      if (++this.#steps > MAX_STEPS) {
        this.#gaveUp ??= { program: code.program }
        this.#pending = []
        return
      }
      if ((at === 0 || code.meets.has(at)) && this.#explored(state)) return
      this.#mark(code, at, state.doubt)
      if (!this.#step(state, frame, code.instructions[at]!)) return
    }
  }

  #mark(code: FunctionCode, at: number, doubt: Doubt | undefined): void {
    let coverage = this.#coverage.get(code)
    if (!coverage) {
      coverage = { reached: new Uint8Array(code.instructions.length), doubts: new Map() }
      this.#coverage.set(code, coverage)
    }
    if (!doubt) coverage.reached[at] = 2
    else if (coverage.reached[at] === 0) {
      coverage.reached[at] = 1
      coverage.doubts.set(at, doubt)
    }
  }

  /** True if a state adds nothing to those that were explored here. Otherwise it is remembered; it may be widened. */
  #explored(state: State): boolean {
    const chain = state.frames.map(({ code, back }) => `${code.number}:${back}`).join()
    const key = `${chain}@${state.at}`
    let seen = this.#seen.get(key)
    if (!seen) {
      seen = { exact: [], wide: undefined }
      this.#seen.set(key, seen)
    }
    const certain = state.doubt === undefined
    if (seen.exact.some((other) => (!other.doubt || !certain) && covered(other, state, certain))) {
      return true
    }
    if (seen.exact.length < this.#states) {
      const copy = copyOf(state)
      this.#cells += cellsOf(copy)
      // as many states as memory has room for, like too many steps
      if (this.#cells > MAX_CELLS) this.#steps = MAX_STEPS + 1
      seen.exact.push(copy)
      return false
    }
    if (seen.wide && covered(seen.wide, state, false)) return true
    const wide = seen.wide ? joined(seen.wide, state) : copyOf(state)
    seen.wide = copyOf(wide)
    state.frames = wide.frames
    state.doubt ??= { program: state.frames.at(-1)!.code.program }
    return false
  }

  /** Applies an instruction. False if the path ends. */
  #step(state: State, frame: Frame, instruction: Instruction): boolean {
    const { code: op, destination, source, immediate, offset } = instruction
    const { registers } = frame
    const fresh = () => ++this.#ids
    switch (op & 7) {
      case CLASS.ALU:
      case CLASS.ALU64: {
        const right = (op & 8) !== 0 ? registers[source]! : constant(BigInt(immediate))
        registers[destination] = compute(op, registers[destination]!, right, offset, fresh)
        state.at++
        return true
      }
      case CLASS.LD:
        this.#loadImmediate(state, frame, instruction)
        return true
      case CLASS.LDX:
        registers[destination] = this.#load(state, registers[source]!, instruction)
        state.at++
        return true
      case CLASS.ST:
      case CLASS.STX:
        this.#store(state, frame, instruction)
        state.at++
        return true
      default:
        return this.#jump(state, frame, instruction)
    }
  }

  #loadImmediate(state: State, { code, registers }: Frame, instruction: Instruction): void {
    if (instruction.code !== LDIMM64) {
      // a load from a packet, as old filters do it: calls a helper inside, with the result in r0
      for (let register = 0; register <= 5; register++) registers[register] = UNKNOWN
      registers[0] = free(lowBits(32), ++this.#ids)
      state.at++
      return
    }
    const reference = code.references.get(state.at)
    const second = code.instructions[state.at + 1]
    const { destination, source, immediate } = instruction
    registers[destination] = reference
      ? this.#addressOf(reference)
      : source === 0
        ? constant((BigInt(second?.immediate ?? 0) << 32n) | BigInt(immediate >>> 0))
        : NOT_NULL
    state.at += 2
  }

  #addressOf(reference: Reference): AbstractValue {
    switch (reference.is) {
      case 'function':
        return { is: 'function', target: reference.target }
      case 'map':
        return NOT_NULL
      case 'data':
        return { is: 'data', section: reference.section, offset: reference.offset }
      case 'extern': {
        const { extern } = reference
        if (extern.kind === 'kconfig') return { is: 'kconfig', extern }
        const value = this.#extern(extern)
        if (value.is === 'absent') return constant(0n)
        if (value.is === 'number') return constant(value.value)
        if (value.is === 'unknown') return { ...NOT_NULL, zero: 'cannot tell' }
        // the verifier knows that the address of a kfunc is not 0 (PTR_TO_MEM), and forgets it of some variables
        return extern.kind === 'kfunc' ? NOT_NULL : { ...NOT_NULL, zero: 'cannot tell' }
      }
      case 'unknown':
        return UNKNOWN
    }
  }

  #load(state: State, address: AbstractValue, { code, offset }: Instruction): AbstractValue {
    const size = accessSize(code)
    const signed = (code & 0xe0) === 0x80
    const all = signed ? ALL : lowBits(size * 8)
    const unknown: Scalar = { ...UNKNOWN, may: all }
    const loaded = () => (signed ? UNKNOWN : free(all, ++this.#ids))
    switch (address.is) {
      case 'stack': {
        if (address.offset === undefined) return unknown
        const { stack } = state.frames[address.frame]!
        const at = address.offset + offset
        const slot = slotOf(at)
        const held = stack.get(slot)
        if (held === MISC) return loaded()
        if (size !== 8 || at !== slot) return unknown
        return held ?? LOST
      }
      case 'data': {
        const bytes = this.#codes.object.constants.get(address.section)
        if (!bytes) return loaded()
        const at = address.offset === undefined ? -1 : address.offset + offset
        if (at < 0 || at + size > bytes.length) return unknown
        return constant(
          readNumber(bytes, at, size, this.#codes.object.byteOrder === 'little', signed),
        )
      }
      case 'kconfig': {
        const value = offset === 0 ? this.#extern(address.extern) : undefined
        if (value?.is === 'absent') return constant(0n)
        return value?.is === 'number' ? constant(value.value) : unknown
      }
      case 'pointer':
        return address.loose && size === 8 && !signed
          ? { is: 'pointer', zero: 'cannot tell', loose: true, id: ++this.#ids }
          : loaded()
      case 'function':
        return unknown
      case 'scalar':
        // an address of which nothing is known may lead to the stack
        return address.sure ? loaded() : unknown
    }
  }

  #store(state: State, { registers }: Frame, instruction: Instruction): void {
    const { code, destination, source, offset, immediate } = instruction
    const mode = code & 0xe0
    const size = accessSize(code)
    const address = registers[destination]!
    if (mode === ATOMIC && (code & 7) === CLASS.STX) {
      if (immediate === LOAD_ACQUIRE) {
        registers[destination] = UNKNOWN
        return
      }
      forgetStack(state, address, offset)
      // an atomic operation may fetch into its source, or into r0
      if ((immediate & FETCH) !== 0)
        registers[(immediate & CMPXCHG) === CMPXCHG ? 0 : source] = UNKNOWN
      return
    }
    const value = (code & 7) === CLASS.ST ? constant(BigInt(immediate)) : registers[source]!
    if (address.is !== 'stack' || address.offset === undefined) {
      forgetStack(state, address, offset)
      return
    }
    const at = address.offset + offset
    // the verifier refuses a store outside of the stack
    if (at < -MAX_STACK || at >= 0) return
    const { stack } = state.frames[address.frame]!
    if (size === 8 && at % 8 === 0) stack.set(at, value)
    else stack.set(slotOf(at), LOST)
  }

  /** Applies a jump, a call or an exit. False if the path ends. */
  #jump(state: State, frame: Frame, instruction: Instruction): boolean {
    const { code, offset, immediate } = instruction
    if (code === EXIT) return this.#exit(state, frame)
    if (code === CALL) return this.#call(state, frame, instruction)
    if (code === 0x05 || code === 0x06) {
      state.at += 1 + (code === 0x05 ? offset : immediate)
      return true
    }
    if (code === MAY_GOTO) {
      this.#pending.push({ ...copyOf(state), at: state.at + 1 + offset })
      state.at++
      return true
    }
    if (!isConditional(code)) {
      // an indirect call or jump, or an instruction that this library does not know
      this.#gaveUp ??= { program: frame.code.program, branch: state.at }
      return false
    }
    return this.#branch(state, frame, instruction)
  }

  #exit(state: State, frame: Frame): boolean {
    if (state.frames.length === 1) return false
    const result = frame.registers[0]!
    state.frames.pop()
    const below = state.frames.at(-1)!
    const gone = state.frames.length
    clobber(below.registers)
    // a pointer to the stack of the function that ended cannot be returned
    below.registers[0] = result.is === 'stack' && result.frame >= gone ? UNKNOWN : result
    state.at = frame.back
    return true
  }

  #call(state: State, frame: Frame, instruction: Instruction): boolean {
    const { code, registers } = frame
    const { source, immediate } = instruction
    const at = state.at
    const reference = code.references.get(at)
    const back = at + 1
    if (source === PSEUDO_CALL && reference?.is !== 'extern') {
      const place = code.program.offset + at * INSTRUCTION_SIZE
      const target = this.#codes.callee(code.program.section, place)
      const callee = target && this.#codes.of(target)
      if (!callee || state.frames.length >= MAX_FRAMES) {
        this.#gaveUp ??= { program: code.program, branch: at }
        return false
      }
      if (!target.global) {
        state.frames.push(newFrame(callee, state.frames.length, back, (n) => registers[n]!))
        state.at = 0
        return true
      }
      this.#start(target, state.doubt, () => free(ALL, ++this.#ids))
      for (const n of [1, 2, 3, 4, 5]) forgetStack(state, registers[n]!, 0)
      clobber(registers)
      registers[0] = free(ALL, ++this.#ids)
      state.at = back
      return true
    }
    for (const n of [1, 2, 3, 4, 5]) {
      const argument = registers[n]!
      if (argument.is === 'function') this.#start(argument.target, state.doubt, () => UNREADABLE)
    }
    if (reference?.is === 'extern' || source === PSEUDO_KFUNC_CALL) {
      const extern = reference?.is === 'extern' ? reference.extern : undefined
      if (extern?.name === 'bpf_throw') return false
      for (const n of [1, 2, 3, 4, 5]) forgetStack(state, registers[n]!, 0)
      clobber(registers)
      registers[0] = this.#resultOf(extern)
    } else this.#helper(state, registers, immediate)
    state.at = back
    return true
  }

  #resultOf(extern: BpfExtern | undefined): AbstractValue {
    const { btf } = this.#codes.object
    const declared = extern && btf.type(extern.id)
    const proto = declared?.kind === 'FUNC' ? btf.type(declared.type) : undefined
    if (proto?.kind !== 'FUNC_PROTO') return UNKNOWN
    let id = proto.type
    for (let depth = 0; depth < 32; depth++) {
      const type = btf.type(id)
      if (type.kind === 'PTR') {
        const zero = /^bpf_iter_\w+_next$/.test(extern!.name) ? 'yes' : 'cannot tell'
        return { is: 'pointer', zero, loose: true, id: ++this.#ids }
      }
      if (!('type' in type) || typeof type.type !== 'number') break
      id = type.type
    }
    return free(ALL, ++this.#ids)
  }

  #helper(state: State, registers: AbstractValue[], helper: number): void {
    const fill = FILLS.get(helper)
    if (fill) {
      const [address, size] = [registers[fill[0]]!, constantOf(registers[fill[1]]!)]
      if (size === undefined) forgetStack(state, address, 0)
      else if (address.is === 'stack' && address.offset !== undefined) {
        const end = Math.min(0, address.offset + Number(size < 512n ? size : 512n))
        const start = Math.max(-MAX_STACK, slotOf(address.offset))
        const { stack } = state.frames[address.frame]!
        for (let slot = start; slot < end; slot += 8) {
          const whole = slot >= address.offset && slot + 8 <= end
          // a number that was there remains in part
          const isUnknown = whole || !stack.has(slot) || stack.get(slot) === MISC
          stack.set(slot, isUnknown ? MISC : LOST)
        }
      } else forgetStack(state, address, 0)
    } else if (!READS.has(helper)) {
      for (const n of [1, 2, 3, 4, 5]) forgetStack(state, registers[n]!, 0)
    }
    clobber(registers)
    registers[0] = OR_NULL.has(helper)
      ? { is: 'pointer', zero: 'yes', loose: false, id: ++this.#ids }
      : NEVER_NULL.has(helper)
        ? { is: 'pointer', zero: 'cannot tell', loose: true, id: ++this.#ids }
        : BOUNDED.has(helper)
          ? {
              ...UNKNOWN,
              sure: { first: BigInt.asUintN(64, -4095n), more: 4095n },
              id: ++this.#ids,
            }
          : free(ALL, ++this.#ids)
  }

  /** Follows one or both sides of a conditional jump. */
  #branch(state: State, frame: Frame, instruction: Instruction): boolean {
    const { code, destination, source, offset, immediate } = instruction
    const { registers } = frame
    const next = state.at + 1
    const byRegister = (code & 8) !== 0
    const right = byRegister ? registers[source]! : constant(BigInt(immediate))
    const { jump, fall } = sidesOf(code, registers[destination]!, right)
    const doubt: Doubt = { program: frame.code.program, branch: state.at }
    const take = (from: State, side: Side, to: number) => {
      if (!side.certain) from.doubt ??= doubt
      if (side.left) refine(from, destination, side.left)
      if (side.right && byRegister) refine(from, source, side.right)
      from.at = to
    }
    if (!jump && !fall) return false
    if (jump && fall) {
      const other = copyOf(state)
      take(other, jump, next + offset)
      this.#pending.push(other)
    }
    if (fall) take(state, fall, next)
    else take(state, jump!, next + offset)
    return true
  }
}

/** Programs whose context holds pointers that the verifier knows not to be NULL. */
function isTypedContext(section: string): boolean {
  return /^\??(tp_btf|fentry|fexit|fmod_ret|lsm|iter|struct_ops|freplace|fsession|lsm_cgroup)\b/.test(
    section,
  )
}

function isConditional(code: number): boolean {
  const operation = code & 0xf0
  return operation >= 0x10 && operation <= 0xd0 && operation !== 0x80 && operation !== 0x90
}

function readNumber(
  bytes: Uint8Array,
  at: number,
  size: number,
  little: boolean,
  signed: boolean,
): bigint {
  let value = 0n
  for (let i = 0; i < size; i++) {
    value = (value << 8n) | BigInt(bytes[little ? at + size - 1 - i : at + i]!)
  }
  return signed ? BigInt.asIntN(size * 8, value) : value
}
