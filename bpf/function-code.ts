/* The instructions of one function, decoded, with what its exploration needs to know of them. */

import { INSTRUCTION_SIZE, type Instruction, isPoison, readInstruction } from './instruction.ts'
import { KIND } from './kind.ts'
import { type FunctionFlow, flowOf } from './liveness.ts'
import type { BpfObject } from './object.ts'
import type { BpfProgram } from './program.ts'
import type { Reference } from './reference.ts'

/** Limit of the verifier; a longer function is not explored. */
const MAX_INSTRUCTIONS = 1_000_000
/** Instructions of all functions of an object: symbols may overlap, so that a small object has many long functions. */
const MAX_DECODED = 4_000_000

export interface FunctionCode extends FunctionFlow {
  readonly program: BpfProgram
  /** unique in its object */
  readonly number: number
  readonly instructions: readonly Instruction[]
  /** by index of the instruction */
  readonly references: ReadonlyMap<number, Reference>
}

/** Decodes the functions of an object when they are asked for; `patched` is its relocated code. */
export class FunctionCodes {
  readonly object: BpfObject
  readonly #patched: ReadonlyMap<string, Uint8Array>
  readonly #codes = new Map<BpfProgram, FunctionCode | undefined>()
  #targets: ReadonlyMap<string, BpfProgram> | undefined
  #callbacks: ReadonlyMap<BpfProgram, BpfProgram> | undefined
  #decoded = 0

  constructor(object: BpfObject, patched: ReadonlyMap<string, Uint8Array>) {
    this.object = object
    this.#patched = patched
  }

  /** Undefined for a function that the verifier refuses: it is too long, a path leaves it, or a register does not exist. */
  of(program: BpfProgram): FunctionCode | undefined {
    if (!this.#codes.has(program)) this.#codes.set(program, this.#decode(program))
    return this.#codes.get(program)
  }

  /** The function that an instruction calls, by the offset of the call in its section. */
  callee(section: string, offset: number): BpfProgram | undefined {
    this.#targets ??= new Map(
      this.object.calls.map((call) => [`${call.section}\0${call.offset}`, call.target]),
    )
    return this.#targets.get(`${section}\0${offset}`)
  }

  /** The function that the verifier enters if a program throws, by a declaration tag of the program. */
  exceptionCallback(program: BpfProgram): BpfProgram | undefined {
    this.#callbacks ??= exceptionCallbacks(this.object)
    return this.#callbacks.get(program)
  }

  #decode(program: BpfProgram): FunctionCode | undefined {
    const { section, offset, size } = program
    const bytes = this.#patched.get(section)
    const original = this.object.code.get(section)
    const count = size / INSTRUCTION_SIZE
    if (!bytes || !original || count > MAX_INSTRUCTIONS || count === 0) return undefined
    this.#decoded += count
    if (this.#decoded > MAX_DECODED) return undefined
    const order = this.object.byteOrder
    const instructions: Instruction[] = []
    for (let at = offset; at < offset + size; at += INSTRUCTION_SIZE) {
      const instruction = readInstruction(bytes, at, order)
      // what a poisoned instruction was tells how its program goes on
      instructions.push(isPoison(instruction) ? readInstruction(original, at, order) : instruction)
    }
    const ofSection = this.object.references.get(section)
    const references = new Map<number, Reference>()
    for (let n = 0; n < count; n++) {
      const reference = ofSection?.get(offset + n * INSTRUCTION_SIZE)
      if (reference) references.set(n, reference)
    }
    const flow = flowOf(instructions)
    return flow && { program, number: this.#codes.size, instructions, references, ...flow }
  }
}

const TAG = 'exception_callback:'

/** For each program the exception callback that `__exception_cb` names (libbpf `bpf_prog_assign_exc_cb`). */
export function exceptionCallbacks({ btf, programs }: BpfObject): Map<BpfProgram, BpfProgram> {
  const callbacks = new Map<BpfProgram, BpfProgram>()
  if (btf.countOf('DECL_TAG') === 0) return callbacks
  const byName = new Map(programs.map((program) => [program.name, program]))
  for (let id = btf.startId; id < btf.endId; id++) {
    if (btf.kind(id) !== KIND.DECL_TAG) continue
    const name = btf.name(id)
    if (!name.startsWith(TAG)) continue
    const program = byName.get(btf.name(btf.sizeOrType(id)))
    const callback = byName.get(name.slice(TAG.length))
    if (program && callback) callbacks.set(program, callback)
  }
  return callbacks
}
