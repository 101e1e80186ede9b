/*
 * Checks whether an object loads, attaches and runs on a kernel, and if not, where and why. Each relocation is decided as
 * libbpf decides it. An instruction that the kernel refuses matters only if the verifier reaches it. Everything else
 * that BTF can decide is looked up: attach targets, kfuncs, helpers, types of maps and programs. What BTF does not tell
 * is "cannot tell", never yes.
 */

import type { Btf } from './btf.ts'
import { decodeText } from './bytes.ts'
import { BtfError } from './error.ts'
import type { CoreRelocation, LineInfo } from './ext.ts'
import { INSTRUCTION_SIZE } from './instruction.ts'
import { type KernelEnum, KernelSymbols, type Presence } from './kernel-symbol.ts'
import type { BpfObject } from './object.ts'
import type { BpfProgram } from './program.ts'
import { Reachability, type Reached } from './reachability.ts'
import type { BpfExtern } from './reference.ts'
import { type Relocated, type RelocationOutcome, relocate } from './relocate.ts'
import { RelocationError } from './relocation-error.ts'
import {
  type KernelCall,
  type ProgramRequirement,
  type Requirements,
  requirementsOf,
} from './requirement.ts'
import { MAX_MESSAGE, MAX_NAME, short } from './short.ts'
import { parseSpec, subjectOf } from './spec.ts'

/** The source line of an instruction. */
export interface SourceLine {
  readonly file: string
  /** counted from 1 */
  readonly line: number
  readonly text: string
}

/** `cannot_tell`: BTF does not decide it, or the verifier may know more than this library. */
export type Verdict = 'yes' | 'no' | 'cannot_tell'

/** Every reason for which an object does not work on a kernel. */
export const REASONS = [
  /** libbpf refuses the relocation, and with it the object */
  'invalid_relocation',
  /** the field, type or enumerator is missing, and the verifier reaches the access */
  'missing_type',
  /** the field has a size that the instruction cannot access */
  'size_mismatch',
  /** the kernel's field is smaller than what the program reads, as pointers on 32 bits are */
  'short_field',
  /** the function, hook, tracepoint or struct that the program is attached to is missing */
  'missing_target',
  /** the section names no type or no target, so the loader must set it */
  'unknown_target',
  /** the kernel has no BTF of its own, which the program needs to be loaded */
  'no_kernel_btf',
  'missing_kfunc',
  'missing_ksym',
  /** the kfunc or variable has another prototype or type */
  'incompatible_symbol',
  /** a value of the kernel's configuration, which BTF does not have */
  'unknown_config',
  'missing_helper',
  'missing_map_type',
  'missing_program_type',
  'missing_attach_type',
  /** the struct of a struct_ops map is missing */
  'missing_struct_ops',
] as const
export type ReasonCode = (typeof REASONS)[number]

/** When it fails: as libbpf loads the object, as a program is attached, or by wrong values as it runs. */
export type CheckStage = 'load' | 'attach' | 'run'

export interface Reason {
  readonly code: ReasonCode
  readonly verdict: Exclude<Verdict, 'yes'>
  readonly stage: CheckStage
  /** a sentence without the place; at most 600 characters */
  readonly message: string
  /** index of the instruction in its program */
  readonly instruction?: number
  /** the access or query as C: `task_struct->se.vruntime` */
  readonly access?: string
  readonly source?: SourceLine
  /** the branch that decides whether the instruction is reached, where the verdict hangs on one */
  readonly onlyIf?: SourceLine
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

export interface CheckedProgram {
  readonly name: string
  readonly section: string
  /** false for a program that libbpf does not load unless asked to: its section begins with `?` */
  readonly loaded: boolean
  /** whether it loads, attaches and reads the right values, with the functions that it calls */
  readonly verdict: Verdict
  /** whether the kernel loads it */
  readonly loads: Verdict
  /** reasons in the program itself */
  readonly reasons: readonly Reason[]
  readonly relocations: readonly CheckedRelocation[]
}

export interface Check {
  /** whether the object loads, attaches and reads the right values */
  readonly verdict: Verdict
  /** whether libbpf loads it: it refuses the object if one program fails */
  readonly loads: Verdict
  /** reasons that lie in no program, such as a map */
  readonly reasons: readonly Reason[]
  /** programs and subprograms, also those without relocations, sorted by section and offset */
  readonly programs: readonly CheckedProgram[]
}

export interface CheckOptions {
  /** the BTF of the kernel's modules, opened over its own: all count as loaded */
  readonly modules?: readonly Btf[]
  /** also programs in sections that begin with `?`, which libbpf loads only when asked to */
  readonly allPrograms?: boolean
  /** whether the kernel has BTF of its own; undefined if that is not known */
  readonly hasOwnBtf?: boolean
  /** `uname -r` */
  readonly release?: string
}

/** Checks an object against a kernel's BTF. Errors: `unsupported` if their byte orders differ, `cycle`. */
export function checkObject(object: BpfObject, kernel: Btf, options: CheckOptions = {}): Check {
  if (object.byteOrder !== kernel.byteOrder) {
    throw new BtfError(
      'unsupported',
      `the object is ${object.byteOrder}-endian, the kernel ${kernel.byteOrder}-endian`,
    )
  }
  return new Checker(object, kernel, options).check()
}

class Checker {
  readonly #object: BpfObject
  readonly #kernel: Btf
  readonly #options: CheckOptions
  readonly #requirements: Requirements
  readonly #symbols: KernelSymbols
  readonly #descriptions: Descriptions
  readonly #loaded: ReadonlySet<BpfProgram>

  constructor(object: BpfObject, kernel: Btf, options: CheckOptions) {
    this.#object = object
    this.#kernel = kernel
    this.#options = options
    this.#requirements = requirementsOf(object)
    this.#symbols = new KernelSymbols(object, this.#requirements, kernel, options)
    this.#descriptions = describe(object)
    this.#loaded = new Set(
      this.#requirements.programs
        .filter(({ section }) => options.allPrograms === true || section?.optional !== true)
        .map(({ program }) => program),
    )
  }

  check(): Check {
    const object = this.#object
    const { modules = [] } = this.#options
    const { relocations, code } = relocate(object, this.#kernel, modules)
    const reachability = new Reachability(object, code, [...this.#loaded], (extern) =>
      this.#symbols.extern(extern),
    )
    const relocationsOf = Map.groupBy(relocations, ({ program }) => program)
    const callsOf = Map.groupBy(this.#requirements.calls, ({ program }) => program)
    const requirementOf = new Map(this.#requirements.programs.map((one) => [one.program, one]))
    const own = object.programs.map((program) => {
      const checked = (relocationsOf.get(program) ?? []).map((relocated) =>
        this.#checkRelocation(relocated, reachability),
      )
      const requirement = requirementOf.get(program)
      const isLoaded = program.section === '.text' || this.#loaded.has(program)
      const reasons = isLoaded
        ? [
            ...(requirement ? this.#programReasons(requirement) : []),
            ...checked.flatMap((relocation) => this.#relocationReasons(relocation)),
            ...(callsOf.get(program) ?? []).flatMap((call) =>
              this.#callReasons(call, reachability),
            ),
          ]
        : []
      return { program, checked, reasons, isLoaded }
    })
    const reasonsOf = new Map(own.map(({ program, reasons }) => [program, reasons]))
    const programs = own.map(({ program, checked, reasons, isLoaded }): CheckedProgram => {
      const all = reachability.calledBy(program).flatMap((other) => reasonsOf.get(other) ?? [])
      return {
        name: short(program.name),
        section: short(program.section),
        loaded: isLoaded,
        ...verdicts([...reasons, ...all]),
        reasons,
        relocations: checked,
      }
    })
    const reasons = [...this.#objectReasons()]
    const all = [...reasons, ...own.flatMap((one) => one.reasons)]
    return { ...verdicts(all), reasons, programs }
  }

  #checkRelocation(
    { relocation, program, instruction, outcome }: Relocated,
    reachability: Reachability,
  ): CheckedRelocation {
    return {
      instruction,
      ...this.#descriptions.of.get(relocation)!,
      outcome,
      ...(outcome.is === 'poisoned' && {
        guard: this.#guardOf(reachability.of(program, instruction)),
      }),
    }
  }

  #guardOf(reached: Reached): Guard {
    if (reached.is === 'never') return { is: 'guarded' }
    if (reached.is === 'always') return { is: 'unguarded' }
    const onlyIf = this.#branchOf(reached)
    return { is: 'reached only if', ...(onlyIf && { onlyIf }) }
  }

  #branchOf(reached: Reached): SourceLine | undefined {
    if (reached.is !== 'maybe' || reached.doubt.branch === undefined) return undefined
    const { program, branch } = reached.doubt
    return this.#descriptions.lines.at(program.section, program.offset + branch * INSTRUCTION_SIZE)
  }

  #relocationReasons(relocation: CheckedRelocation): Reason[] {
    const { outcome, guard, instruction, access, source, kind } = relocation
    const place = { instruction, access, ...(source && { source }) }
    if (outcome.is === 'fatal') {
      const message = short(`${access} (${kind}): ${outcome.message}`, MAX_MESSAGE)
      return [{ code: 'invalid_relocation', verdict: 'no', stage: 'load', message, ...place }]
    }
    if (outcome.is === 'ok' && outcome.field && this.#kernel.pointerSize === 4) {
      // a program that asks for the size reads as many bytes as there are
      if (this.#descriptions.sized.has(access)) return []
      const { old, new: now } = outcome.field
      if (old === 8 && now === 4) {
        const message = `${access} has ${now} bytes in this kernel, and the program reads ${old}`
        return [{ code: 'short_field', verdict: 'cannot_tell', stage: 'run', message, ...place }]
      }
    }
    if (outcome.is !== 'poisoned' || guard?.is === 'guarded') return []
    const isMissing = outcome.why === 'missing'
    const what = isMissing ? 'is missing' : 'has a size that this instruction cannot access'
    const onlyIf = guard?.is === 'reached only if' ? guard.onlyIf : undefined
    return [
      {
        code: isMissing ? 'missing_type' : 'size_mismatch',
        verdict: guard?.is === 'unguarded' ? 'no' : 'cannot_tell',
        stage: 'load',
        message: `${access} (${kind}) ${what}`,
        ...place,
        ...(onlyIf && { onlyIf }),
      },
    ]
  }

  /** The reasons that keep a program from being loaded or attached, apart from its instructions. */
  #programReasons({ section, target }: ProgramRequirement): Reason[] {
    if (!section) return [unknownTarget('libbpf does not know the section of the program')]
    const { programType, attachType, kind, target: named } = section
    const needsBtf = NEEDS_BTF.has(programType)
    if (needsBtf && this.#options.hasOwnBtf === false) {
      return [noKernelBtf(`a program of type ${kind}`)]
    }
    const reasons = this.#enumReasons('bpf_prog_type', programType, {
      code: 'missing_program_type',
      message: `this kernel has no programs of type ${programType}`,
      stage: 'load',
    })
    if (attachType !== undefined && !UNCHECKED_ATTACH_TYPES.test(kind)) {
      const attach = {
        code: 'missing_attach_type',
        message: `this kernel has no attach type ${attachType}`,
        stage: needsBtf ? 'load' : 'attach',
      } as const
      reasons.push(...this.#enumReasons('bpf_attach_type', attachType, attach))
    }
    if (kind.startsWith('freplace')) {
      reasons.push(unknownTarget('the program that it replaces is not known'))
    } else if (needsBtf && named === undefined && NEEDS_TARGET.test(kind)) {
      reasons.push(unknownTarget(`the section names no target for a program of type ${kind}`))
    }
    if (target && !this.#symbols.has(target)) {
      // the kernel's functions are not all in BTF: pahole leaves out those that the compiler changed
      const isProbe = programType === 'BPF_PROG_TYPE_KPROBE'
      const isRaw = programType.startsWith('BPF_PROG_TYPE_RAW_TRACEPOINT')
      const isUntold = isProbe || (isRaw && !this.#symbols.hasTracepoints)
      const thing = `${nounOf(kind)} ${short(section.target!)}`
      const message = isProbe
        ? `${short(section.target!)} is not among the functions in this kernel's BTF: it is missing, inlined or renamed`
        : `this kernel has no ${thing}`
      reasons.push({
        code: 'missing_target',
        verdict: isUntold ? 'cannot_tell' : 'no',
        stage: isProbe || isRaw ? 'attach' : 'load',
        message: isUntold && isRaw ? `this kernel's BTF does not list the ${thing}` : message,
      })
    }
    return reasons
  }

  #callReasons({ program, instruction, calls }: KernelCall, reachability: Reachability): Reason[] {
    const problem =
      'helper' in calls ? this.#helperProblem(calls.helper) : this.#kfuncProblem(calls.kfunc)
    if (!problem) return []
    const reached = reachability.of(program, instruction)
    if (reached.is === 'never') return []
    const offset = program.offset + instruction * INSTRUCTION_SIZE
    const source = this.#descriptions.lines.at(program.section, offset)
    const onlyIf = this.#branchOf(reached)
    const isSure = problem.presence === 'missing' && reached.is === 'always'
    return [
      {
        code: problem.code,
        verdict: isSure ? 'no' : 'cannot_tell',
        stage: 'load',
        message: problem.message,
        instruction,
        ...(source && { source }),
        ...(onlyIf && { onlyIf }),
      },
    ]
  }

  #helperProblem(helper: number): Problem | undefined {
    const presence = this.#symbols.enumerator('bpf_func_id', helper)
    if (presence === 'there') return undefined
    const tail = presence === 'unknown' ? 'may be missing' : 'is missing'
    return { code: 'missing_helper', presence, message: `the helper with number ${helper} ${tail}` }
  }

  /** A weak kfunc that is missing must not be called. `#objectReasons` has the strong ones. */
  #kfuncProblem(extern: BpfExtern): Problem | undefined {
    if (!extern.weak || this.#symbols.extern(extern).is !== 'absent') return undefined
    const message = `${short(extern.name)} is missing, and the verifier reaches the call`
    return { code: 'missing_kfunc', presence: 'missing', message }
  }

  *#objectReasons(): Generator<Reason> {
    for (const { name, type } of this.#requirements.maps) {
      yield* this.#enumReasons('bpf_map_type', type, {
        code: 'missing_map_type',
        message: `the map ${short(name)} has type ${type}, which this kernel does not have`,
        stage: 'load',
      })
    }
    for (const name of this.#requirements.structOps) {
      const isThere =
        this.#symbols.has({ kind: 'STRUCT', name }) &&
        this.#symbols.has({ kind: 'STRUCT', name: `bpf_struct_ops_${name}` })
      if (this.#options.hasOwnBtf === false) yield noKernelBtf(`a map of struct_ops`)
      else if (!isThere) {
        const message = `this kernel has no struct_ops ${short(name)}`
        yield { code: 'missing_struct_ops', verdict: 'no', stage: 'load', message }
      }
    }
    for (const extern of this.#object.externs) yield* this.#externReasons(extern)
  }

  *#externReasons(extern: BpfExtern): Generator<Reason> {
    const { kind, weak, name } = extern
    const value = this.#symbols.extern(extern)
    const subject = short(name)
    if (kind !== 'kconfig' && this.#options.hasOwnBtf === false && !extern.typeless) {
      yield noKernelBtf(`the extern ${subject}`)
      return
    }
    if (weak) return
    const reason = (code: ReasonCode, verdict: Reason['verdict'], message: string): Reason => {
      return { code, verdict, stage: 'load', message }
    }
    if (value.is === 'unknown') {
      yield kind === 'kconfig'
        ? reason('unknown_config', 'cannot_tell', `BTF does not tell the value of ${subject}`)
        : reason('missing_ksym', 'cannot_tell', `BTF does not tell whether ${subject} is there`)
    } else if (value.is === 'absent' && this.#symbols.isIncompatible(extern)) {
      yield reason('incompatible_symbol', 'no', `${subject} has another type in this kernel`)
    } else if (value.is === 'absent') {
      const code = kind === 'kfunc' ? 'missing_kfunc' : 'missing_ksym'
      yield reason(code, 'no', `this kernel has no ${subject}`)
    }
  }

  #enumReasons(
    name: KernelEnum,
    enumerator: string | number,
    reason: Pick<Reason, 'code' | 'message' | 'stage'>,
  ): Reason[] {
    const presence = this.#symbols.enumerator(name, enumerator)
    if (presence === 'there') return []
    return [{ ...reason, verdict: presence === 'missing' ? 'no' : 'cannot_tell' }]
  }
}

interface Problem {
  readonly code: ReasonCode
  readonly presence: Presence
  readonly message: string
}

/** Programs that libbpf loads only with the kernel's own BTF (`prog_needs_vmlinux_btf`). */
const NEEDS_BTF: ReadonlySet<string> = new Set([
  'BPF_PROG_TYPE_TRACING',
  'BPF_PROG_TYPE_LSM',
  'BPF_PROG_TYPE_STRUCT_OPS',
])

/** Sections whose attach type old kernels ignore as they load and attach the program in an older way. */
const UNCHECKED_ATTACH_TYPES =
  /^(tcx?\/|netkit\/|xdp|sockops|sk_skb|sk_msg|cgroup_skb\/|cgroup\/(sock|dev)$|lirc_mode2|flow_dissector|usdt)/

function nounOf(kind: string): string {
  if (kind.startsWith('lsm')) return 'LSM hook'
  if (kind.startsWith('iter')) return 'iterator'
  return /^(tp_btf|raw_t)/.test(kind) ? 'tracepoint' : 'function'
}

/** Sections of programs that libbpf loads only with a target. */
const NEEDS_TARGET = /^(fentry|fexit|fmod_ret|fsession|tp_btf|lsm|iter)(\.s)?$/

function unknownTarget(message: string): Reason {
  return { code: 'unknown_target', verdict: 'cannot_tell', stage: 'load', message }
}

function noKernelBtf(what: string): Reason {
  const message = `${what} needs the kernel's own BTF, which this kernel does not have`
  return { code: 'no_kernel_btf', verdict: 'no', stage: 'load', message }
}

function verdicts(reasons: readonly Reason[]): { verdict: Verdict; loads: Verdict } {
  return { verdict: worst(reasons), loads: worst(reasons.filter(({ stage }) => stage === 'load')) }
}

function worst(reasons: readonly Reason[]): Verdict {
  if (reasons.some(({ verdict }) => verdict === 'no')) return 'no'
  return reasons.length > 0 ? 'cannot_tell' : 'yes'
}

/** Facts about an object's relocations that do not depend on the kernel. */
interface Descriptions {
  readonly lines: Lines
  /** accesses as C of which the object asks for the size */
  readonly sized: ReadonlySet<string>
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
      const access = short(accessText(object, relocation))
      const source = lines.naming(lastName(access), section, offset)
      return [relocation, { kind, access, ...(source && { source }) }]
    }),
  )
  const sizes = [...of.values()].filter(({ kind }) => kind === 'byte_sz')
  const sized = new Set(sizes.map(({ access }) => access))
  described.set(object, { lines, sized, of })
  return { lines, sized, of }
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

/** Line records by section, sorted by offset. */
class Lines {
  readonly #bySection: ReadonlyMap<string, readonly LineInfo[]>

  constructor(lines: readonly LineInfo[]) {
    const inOrder = [...lines].sort((a, b) => a.offset - b.offset)
    this.#bySection = Map.groupBy(inOrder, (info) => info.section)
  }

  /** The last record at or before an instruction. */
  at(section: string, offset: number): SourceLine | undefined {
    return lineOf(this.#bySection.get(section)?.[this.#index(section, offset)])
  }

  /**
   * The line of an access: the record at the instruction if it names the member, else the nearest neighbour that does.
   * clang often puts the relocated instruction of a `BPF_CORE_READ` on the line before it.
   */
  naming(member: string, section: string, offset: number): SourceLine | undefined {
    const lines = this.#bySection.get(section) ?? []
    const index = this.#index(section, offset)
    const around = [...NEIGHBOURS].map((distance) => lines[index + distance])
    const named = around.find((info) => info !== undefined && mentions(info.text, member))
    return lineOf(named ?? lines[index])
  }

  #index(section: string, offset: number): number {
    const lines = this.#bySection.get(section) ?? []
    let [low, high] = [0, lines.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (lines[middle]!.offset <= offset) low = middle + 1
      else high = middle
    }
    return low - 1
  }
}

/** Records that are looked at for the name of a member, by their distance; what follows is likelier. */
const NEIGHBOURS = [0, 1, 2, 3, -1, -2, -3]

function lineOf(info: LineInfo | undefined): SourceLine | undefined {
  return info && { file: info.file, line: info.line, text: info.text.trim() }
}

/** True if a text has a name as a whole word. */
function mentions(text: string, name: string): boolean {
  for (let at = text.indexOf(name); at >= 0; at = text.indexOf(name, at + 1)) {
    const [before, after] = [text[at - 1] ?? '', text[at + name.length] ?? '']
    if (!/\w/.test(before) && !/\w/.test(after)) return true
  }
  return false
}

/** The member, type or enumerator that an access as C ends with, without flavour and index. */
function lastName(access: string): string {
  const names = access.match(/[A-Za-z_]\w*/g) ?? []
  return (names.at(-1) ?? '').replace(/___[^_].*$/, '')
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
