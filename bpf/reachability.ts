/*
 * Which instructions of an object the verifier reaches after relocation. Only programs that libbpf loads count, and a
 * program is explored only if one of its instructions is asked for.
 */

import { Exploration, type ExternValue, type Reached } from './exploration.ts'
import { exceptionCallbacks, FunctionCodes } from './function-code.ts'
import type { BpfObject } from './object.ts'
import { type BpfProgram, programAt } from './program.ts'
import type { BpfExtern } from './reference.ts'

export type { ExternValue, Reached } from './exploration.ts'

/** Reachability in one object. `patched` is its relocated code, `roots` are the programs that are loaded. */
export class Reachability {
  readonly #codes: FunctionCodes
  readonly #extern: (extern: BpfExtern) => ExternValue
  readonly #roots: ReadonlySet<BpfProgram>
  readonly #explorations = new Map<BpfProgram, Exploration>()
  readonly #users: ReadonlyMap<BpfProgram, readonly BpfProgram[]>
  #called: ReadonlyMap<BpfProgram, readonly BpfProgram[]> | undefined

  constructor(
    object: BpfObject,
    patched: ReadonlyMap<string, Uint8Array>,
    roots: readonly BpfProgram[],
    extern: (extern: BpfExtern) => ExternValue,
  ) {
    this.#codes = new FunctionCodes(object, patched)
    this.#roots = new Set(roots)
    this.#extern = extern
    this.#users = usersOf(object)
  }

  /** How an instruction is reached, by its index in its program. */
  of(program: BpfProgram, instruction: number): Reached {
    let best: Reached = { is: 'never' }
    for (const root of this.#rootsOf(program)) {
      const reached = this.#explored(root).of(program, instruction)
      if (reached.is === 'always') return reached
      if (best.is === 'never') best = reached
    }
    return best
  }

  /** The functions that a program can call, without itself. */
  calledBy(program: BpfProgram): BpfProgram[] {
    if (!this.#roots.has(program)) return []
    this.#called ??= usersOf(this.#codes.object, true)
    const seen = new Set([program])
    for (const user of seen) for (const other of this.#called.get(user) ?? []) seen.add(other)
    seen.delete(program)
    return [...seen]
  }

  #explored(root: BpfProgram): Exploration {
    let exploration = this.#explorations.get(root)
    if (!exploration) {
      exploration = new Exploration(root, this.#codes, this.#extern)
      this.#explorations.set(root, exploration)
    }
    return exploration
  }

  /** The programs from which a function can be called. */
  #rootsOf(program: BpfProgram): BpfProgram[] {
    const seen = new Set([program])
    for (const user of seen) for (const other of this.#users.get(user) ?? []) seen.add(other)
    return [...seen].filter((user) => this.#roots.has(user))
  }
}

/** For each function the functions that call it or take its address; `reversed`, those that it calls. */
function usersOf(object: BpfObject, reversed = false): Map<BpfProgram, BpfProgram[]> {
  const users = new Map<BpfProgram, BpfProgram[]>()
  const add = (section: string, offset: number, target: BpfProgram) => {
    const user = programAt(object.programs, section, offset)
    if (!user) return
    const [key, value] = reversed ? [user, target] : [target, user]
    const known = users.get(key)
    if (known) known.push(value)
    else users.set(key, [value])
  }
  for (const { section, offset, target } of object.calls) add(section, offset, target)
  for (const [user, callback] of exceptionCallbacks(object)) {
    add(user.section, user.offset, callback)
  }
  for (const [section, references] of object.references) {
    for (const [offset, reference] of references) {
      if (reference.is === 'function') add(section, offset, reference.target)
    }
  }
  return users
}
