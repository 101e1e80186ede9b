/*
 * Checking: would this object load on that kernel, and if not, where and why. Each relocation is decided as libbpf
 * decides it; a poisoned instruction matters only if the verifier reaches it, which control flow tells, or which is
 * left open with the branch it hangs on.
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
import { parseSpec, subjectOf } from './spec.ts'

/** Where in its source an instruction comes from. */
export interface SourceLine {
  readonly file: string
  /** counted from 1 */
  readonly line: number
  readonly text: string
}

/** Whether the verifier meets a poisoned instruction; `onlyIf` is the branch that decides, where one is found. */
export type Guard =
  | { readonly is: 'guarded' }
  | { readonly is: 'unguarded' }
  | { readonly is: 'reached only if'; readonly onlyIf?: SourceLine }

export interface CheckedRelocation {
  /** number of the instruction in its program */
  readonly instruction: number
  readonly kind: CoreRelocation['kind']
  /** what is accessed or asked for, as C: `task_struct->se.vruntime`, `enum pid_type: PIDTYPE_TGID` */
  readonly access: string
  readonly outcome: RelocationOutcome
  readonly source?: SourceLine
  /** of a poisoned one */
  readonly guard?: Guard
}

/**
 * `yes`: it loads as far as CO-RE goes. `no`: a relocation is fatal, or a poisoned instruction is reached whatever
 * happens. `depends`: a poisoned instruction is reached on some ways, unless the verifier knows more than we do.
 */
export type Loads = 'yes' | 'no' | 'depends'

export interface CheckedProgram {
  readonly name: string
  readonly section: string
  readonly loads: Loads
  readonly relocations: readonly CheckedRelocation[]
}

export interface Check {
  /** of the object: libbpf refuses it as a whole when one program fails */
  readonly loads: Loads
  /** programs and subprograms in the order of their sections and offsets, those without relocations too */
  readonly programs: readonly CheckedProgram[]
}

/**
 * Checks an object against a kernel's BTF. Errors: `unsupported` where their byte orders differ, `cycle`.
 */
export function checkObject(object: BpfObject, kernel: Btf): Check {
  if (object.byteOrder !== kernel.byteOrder) {
    throw new BtfError(
      'unsupported',
      `the object is ${object.byteOrder}-endian, the kernel ${kernel.byteOrder}-endian`,
    )
  }
  const { relocations, code } = relocate(object, kernel)
  const reachability = new Reachability(object, code)
  const descriptions = describe(object)
  const byProgram = Map.groupBy(relocations, (relocated) => relocated.program)
  const programs = object.programs.map((program): CheckedProgram => {
    const checked = (byProgram.get(program) ?? []).map((relocated) =>
      checkRelocation(relocated, reachability, descriptions),
    )
    const { name, section } = program
    return { name, section, loads: worst(checked.map(loadsWith)), relocations: checked }
  })
  return { loads: worst(programs.map((program) => program.loads)), programs }
}

/** What is said of an object's relocations, whatever the kernel. */
interface Descriptions {
  readonly lines: Lines
  readonly of: ReadonlyMap<CoreRelocation, Pick<CheckedRelocation, 'kind' | 'access' | 'source'>>
}

/** An object is checked against many kernels. */
const described = new WeakMap<BpfObject, Descriptions>()

function describe(object: BpfObject): Descriptions {
  const known = described.get(object)
  if (known) return known
  const lines = new Lines(object.ext.lines)
  const of = new Map(
    object.ext.relocations.map((relocation) => {
      const { kind, section, offset } = relocation
      const source = lines.at(section, offset)
      const access = accessText(object, relocation)
      return [relocation, { kind, access, ...(source && { source }) }]
    }),
  )
  described.set(object, { lines, of })
  return { lines, of }
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

/** Line records by section, in order of their offsets. */
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

/** What a relocation is about, as C. */
function accessText(object: BpfObject, relocation: CoreRelocation): string {
  const { btf } = object
  const type = btf.type(relocation.type)
  const sort = { STRUCT: 'struct ', UNION: 'union ', ENUM: 'enum ', ENUM64: 'enum ' }
  const named = `${sort[type.kind as keyof typeof sort] ?? ''}${type.name || '(anonymous)'}`
  try {
    const subject = subjectOf(relocation.kind)
    if (subject === 'type') return named
    const [first, ...rest] = parseSpec(btf, relocation).accessors
    if (subject === 'enumerator') return `${named}: ${decodeText(first!.name!)}`
    const root = first!.index > 0 ? `${type.name}[${first!.index}]` : type.name
    return rest.reduce((text, step, i) => {
      if (step.name === undefined) return `${text}[${step.index}]`
      return `${text}${i === 0 && first!.index === 0 ? '->' : '.'}${decodeText(step.name)}`
    }, root)
  } catch (error) {
    if (error instanceof RelocationError) return `${named} + ${relocation.access}`
    throw error
  }
}
