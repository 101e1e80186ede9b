/*
 * Checks whether an object loads on a kernel, and if not, where and why it fails. Each relocation is decided as libbpf
 * decides it. A poisoned instruction matters only if the verifier reaches it. Control flow decides this, or the result
 * stays open and names the branch that it depends on.
 */

import type { Btf } from './btf.ts'
import { decodeText } from './bytes.ts'
import { BtfError } from './error.ts'
import type { CoreRelocation, LineInfo } from './ext.ts'
import { INSTRUCTION_SIZE } from './instruction.ts'
import type { BpfObject } from './object.ts'
import { Reachability, type Reached } from './reachability.ts'
import { type Relocated, type RelocationOutcome, relocate } from './relocate.ts'
import { RelocationError } from './relocation-error.ts'
import { MAX_NAME, short } from './short.ts'
import { parseSpec, subjectOf } from './spec.ts'

/** The source line of an instruction. */
export interface SourceLine {
  readonly file: string
  /** counted from 1 */
  readonly line: number
  readonly text: string
}

/** True if the verifier reaches a poisoned instruction. `onlyIf` is the branch that decides, if one is found. */
export type Guard =
  | { readonly is: 'guarded' }
  | { readonly is: 'unguarded' }
  | { readonly is: 'reached only if'; readonly onlyIf?: SourceLine }

export interface CheckedRelocation {
  /** index of the instruction in its program */
  readonly instruction: number
  readonly kind: CoreRelocation['kind']
  /** the access or query as C: `task_struct->se.vruntime`, `enum pid_type: PIDTYPE_TGID` */
  readonly access: string
  readonly outcome: RelocationOutcome
  readonly source?: SourceLine
  /** only for a poisoned instruction */
  readonly guard?: Guard
}

/**
 * `yes`: CO-RE does not keep it from loading. `no`: a relocation is fatal, or every path reaches a poisoned instruction.
 * `depends`: some paths reach one, unless the verifier can exclude them.
 */
export type Loads = 'yes' | 'no' | 'depends'

export interface CheckedProgram {
  readonly name: string
  readonly section: string
  readonly loads: Loads
  readonly relocations: readonly CheckedRelocation[]
}

export interface Check {
  /** for the whole object: libbpf refuses it if one program fails */
  readonly loads: Loads
  /** programs and subprograms, also those without relocations, sorted by section and offset */
  readonly programs: readonly CheckedProgram[]
}

/**
 * Checks an object against a kernel's BTF, and that of its modules, opened over it: all count as loaded. Errors:
 * `unsupported` if their byte orders differ, `cycle`.
 */
export function checkObject(object: BpfObject, kernel: Btf, modules: readonly Btf[] = []): Check {
  if (object.byteOrder !== kernel.byteOrder) {
    throw new BtfError(
      'unsupported',
      `the object is ${object.byteOrder}-endian, the kernel ${kernel.byteOrder}-endian`,
    )
  }
  const { relocations, code } = relocate(object, kernel, modules)
  const reachability = new Reachability(object, code)
  const descriptions = describe(object)
  const byProgram = Map.groupBy(relocations, (relocated) => relocated.program)
  const programs = object.programs.map((program): CheckedProgram => {
    const checked = (byProgram.get(program) ?? []).map((relocated) =>
      checkRelocation(relocated, reachability, descriptions),
    )
    const { name, section } = program
    const names = { name: short(name), section: short(section) }
    return { ...names, loads: worst(checked.map(loadsWith)), relocations: checked }
  })
  return { loads: worst(programs.map((program) => program.loads)), programs }
}

/** Facts about an object's relocations that do not depend on the kernel. */
interface Descriptions {
  readonly lines: Lines
  readonly of: ReadonlyMap<CoreRelocation, Pick<CheckedRelocation, 'kind' | 'access' | 'source'>>
}

/** Cached, because an object is checked against many kernels. */
const described = new WeakMap<BpfObject, Descriptions>()

function describe(object: BpfObject): Descriptions {
  const known = described.get(object)
  if (known) return known
  const lines = new Lines(object.ext.lines)
  const of = new Map(
    object.ext.relocations.map((relocation) => {
      const { kind, section, offset } = relocation
      const source = lines.at(section, offset)
      const access = short(accessText(object, relocation))
      return [relocation, { kind, access, ...(source && { source }) }]
    }),
  )
  described.set(object, { lines, of })
  return { lines, of }
}

/** The number of types that `kernelIdsIn` names. */
const MAX_IDS = 16

/**
 * The types, as C, whose id in the kernel an object asks for (`bpf_core_type_id_kernel`); at most 16. Minimized BTF
 * gives other ids than the kernel.
 */
export function kernelIdsIn(object: BpfObject): string[] {
  const asked = object.ext.relocations.values().filter(({ kind }) => kind === 'target_type_id')
  const types = new Set<string>()
  for (const relocation of asked) {
    types.add(short(accessText(object, relocation)))
    if (types.size === MAX_IDS) break
  }
  return [...types]
}

function checkRelocation(
  { relocation, program, instruction, outcome }: Relocated,
  reachability: Reachability,
  { lines, of }: Descriptions,
): CheckedRelocation {
  return {
    instruction,
    ...of.get(relocation)!,
    outcome,
    ...(outcome.is === 'poisoned' && {
      guard: guardOf(reachability.of(program, instruction), lines),
    }),
  }
}

function guardOf(reach: Reached, lines: Lines): Guard {
  if (reach.is === 'never') return { is: 'guarded' }
  if (reach.is === 'always') return { is: 'unguarded' }
  if (reach.branch === undefined) return { is: 'reached only if' }
  const { section, offset } = reach.program
  const onlyIf = lines.at(section, offset + reach.branch * INSTRUCTION_SIZE)
  return { is: 'reached only if', ...(onlyIf && { onlyIf }) }
}

function loadsWith({ outcome, guard }: CheckedRelocation): Loads {
  if (outcome.is === 'fatal' || guard?.is === 'unguarded') return 'no'
  return guard?.is === 'reached only if' ? 'depends' : 'yes'
}

function worst(all: readonly Loads[]): Loads {
  if (all.includes('no')) return 'no'
  return all.includes('depends') ? 'depends' : 'yes'
}

/** Line records by section, sorted by offset. */
class Lines {
  readonly #bySection: ReadonlyMap<string, readonly LineInfo[]>

  constructor(lines: readonly LineInfo[]) {
    const inOrder = [...lines].sort((a, b) => a.offset - b.offset)
    this.#bySection = Map.groupBy(inOrder, (info) => info.section)
  }

  /** The last record at or before an instruction. */
  at(section: string, offset: number): SourceLine | undefined {
    const lines = this.#bySection.get(section) ?? []
    let [low, high] = [0, lines.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (lines[middle]!.offset <= offset) low = middle + 1
      else high = middle
    }
    const info = lines[low - 1]
    return info && { file: info.file, line: info.line, text: info.text.trim() }
  }
}

function nameText(name: Uint8Array): string {
  // a character has at most 4 bytes
  return short(decodeText(name.subarray(0, 4 * MAX_NAME + 4)))
}

/** The access or query of a relocation as C. */
function accessText(object: BpfObject, relocation: CoreRelocation): string {
  const { btf } = object
  const { kind, name } = btf.type(relocation.type)
  const type = { kind, name: short(name) }
  const sort = { STRUCT: 'struct ', UNION: 'union ', ENUM: 'enum ', ENUM64: 'enum ' }
  const named = `${sort[type.kind as keyof typeof sort] ?? ''}${type.name || '(anonymous)'}`
  try {
    const subject = subjectOf(relocation.kind)
    if (subject === 'type') return named
    const [first, ...rest] = parseSpec(btf, relocation).accessors
    if (subject === 'enumerator') return `${named}: ${nameText(first!.name!)}`
    const root = first!.index > 0 ? `${type.name}[${first!.index}]` : type.name
    return rest.reduce((text, step, i) => {
      if (step.name === undefined) return `${text}[${step.index}]`
      return `${text}${i === 0 && first!.index === 0 ? '->' : '.'}${nameText(step.name)}`
    }, root)
  } catch (error) {
    if (error instanceof RelocationError) return `${named} + ${short(relocation.access)}`
    throw error
  }
}
