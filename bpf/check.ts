/*
 * Checks whether an object loads, attaches and runs on a kernel, and if not, where and why. Each relocation is decided as
 * libbpf decides it. An instruction that the kernel refuses matters only if the verifier reaches it. Everything else
 * that BTF can decide is looked up: attach targets, kfuncs, helpers, types of maps and programs. What BTF does not tell
 * is "cannot tell", never yes.
 */

import { accessText, lastName } from './access-text.ts'
import { Btf } from './btf.ts'
import { addRootTypes, findCandidates } from './candidate.ts'
import { BtfError } from './error.ts'
import type { CoreRelocation } from './ext.ts'
import type { FunctionList } from './function-list.ts'
import { INSTRUCTION_SIZE } from './instruction.ts'
import { type KernelEnum, KernelSymbols, type Presence, SymbolSearch } from './kernel-symbol.ts'
import type { NameQuery } from './name-query.ts'
import type { BpfObject } from './object.ts'
import { patternReasons, probeReasons, trampolineReasons } from './probe-target.ts'
import type { BpfProgram } from './program.ts'
import { Reachability, type Reached } from './reachability.ts'
import type { Reason, ReasonCode, Verdict } from './reason.ts'
import type { BpfExtern } from './reference.ts'
import { type Relocated, type RelocationOutcome, relocateBy } from './relocate.ts'
import {
  type KernelCall,
  type ProgramRequirement,
  type Requirements,
  requirementsOf,
} from './requirement.ts'
import { Resolver } from './resolve.ts'
import { MAX_MESSAGE, short } from './short.ts'
import { Lines, type SourceLine } from './source-line.ts'
import { sureTypes } from './sure-types.ts'
import type { TypeSource } from './type-source.ts'

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
  /** called if the answer depends on the version in `release` (`versionOf`), and not only on whether it has one */
  readonly onVersion?: () => void
  /**
   * the BTF is made of headers: a type that it lacks may be in the kernel, and one that it has may not. What depends on
   * such a type, and on the ids of types, is "cannot tell"; `sureTypes` has the others.
   */
  readonly partial?: boolean
  /** the functions in the kernel's symbol table; without them only BTF tells of the targets of kprobes */
  readonly functions?: FunctionList
}

/** Checks an object against a kernel's BTF. Errors: `unsupported` if their byte orders differ, `cycle`. */
export function checkObject(
  object: BpfObject,
  kernel: TypeSource,
  options: CheckOptions = {},
): Check {
  if (object.byteOrder !== kernel.byteOrder) {
    throw new BtfError(
      'unsupported',
      `the object is ${object.byteOrder}-endian, the kernel ${kernel.byteOrder}-endian`,
    )
  }
  return new Checker(object, kernel, options).check()
}

/** An object's questions, which are the same for every kernel. */
interface Questions {
  readonly requirements: Requirements
  readonly search: SymbolSearch
  /** for the types of `search` and the candidates of root types */
  readonly query: NameQuery
}

/** The group of root types in a query; the kinds of symbols, of which there are five, have lower bits. */
const ROOT_TYPES = 0x80

const questions = new WeakMap<BpfObject, Questions>()

function questionsOf(object: BpfObject): Questions {
  let known = questions.get(object)
  if (!known) {
    const requirements = requirementsOf(object)
    const search = SymbolSearch.of(object, requirements)
    const query = search.query()
    addRootTypes(query, object.btf, object.ext.relocations, ROOT_TYPES)
    known = { requirements, search, query }
    questions.set(object, known)
  }
  return known
}

/** The BTF itself, of which all types are read. */
function wholeOf(kernel: TypeSource): Btf {
  if (kernel instanceof Btf) return kernel
  throw new TypeError('partial BTF is read as a whole')
}

/** The query for all types that a check looks up by name. */
export const queryOf = (object: BpfObject): NameQuery => questionsOf(object).query

class Checker {
  readonly #object: BpfObject
  readonly #kernel: TypeSource
  readonly #options: CheckOptions
  readonly #requirements: Requirements
  readonly #symbols: KernelSymbols
  readonly #resolver: Resolver
  readonly #descriptions: Descriptions
  readonly #loaded: ReadonlySet<BpfProgram>
  /** with partial BTF: for each root type the candidates that the kernel surely has */
  readonly #sure: ReadonlyMap<number, readonly number[]> | undefined

  constructor(object: BpfObject, kernel: TypeSource, options: CheckOptions) {
    this.#object = object
    this.#kernel = kernel
    this.#options = options
    const { requirements, search, query } = questionsOf(object)
    this.#requirements = requirements
    const ids = kernel.idsOf(query)
    const sure = options.partial ? sureTypes(wholeOf(kernel)) : undefined
    const told = sure ? ids.filter((id) => sure[id] === 1) : ids
    this.#symbols = new KernelSymbols(object, search, kernel, options, told)
    this.#sure = sure && findCandidates(object.btf, kernel, object.ext.relocations, { ids: told })
    const { modules = [] } = options
    this.#resolver = new Resolver(object, kernel, { modules, ids })
    this.#descriptions = describe(object)
    this.#loaded = new Set(
      this.#requirements.programs
        .filter(({ section }) => options.allPrograms === true || section?.optional !== true)
        .map(({ program }) => program),
    )
  }

  check(): Check {
    const object = this.#object
    const { relocations, code } = relocateBy(this.#resolver, object)
    const reachability = new Reachability(object, code, [...this.#loaded], (extern) => {
      const value = this.#symbols.extern(extern)
      return value.is === 'absent' && this.#options.partial ? { is: 'unknown' } : value
    })
    const relocationsOf = Map.groupBy(relocations, ({ program }) => program)
    const callsOf = Map.groupBy(this.#requirements.calls, ({ program }) => program)
    const requirementOf = new Map(this.#requirements.programs.map((one) => [one.program, one]))
    const own = object.programs.map((program) => {
      const relocated = relocationsOf.get(program) ?? []
      const checked = relocated.map((one) => this.#checkRelocation(one, reachability))
      const requirement = requirementOf.get(program)
      const isLoaded = program.section === '.text' || this.#loaded.has(program)
      const reasons = isLoaded
        ? [
            ...(requirement ? this.#programReasons(requirement) : []),
            ...checked.flatMap((one, n) =>
              this.#isSure(relocated[n]!.relocation)
                ? this.#relocationReasons(one)
                : notCovered(one),
            ),
            ...(callsOf.get(program) ?? []).flatMap((call) =>
              this.#callReasons(call, reachability),
            ),
          ].map((reason) => this.#asTold(reason))
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
    const reasons = [...this.#objectReasons()].map((reason) => this.#asTold(reason))
    const all = [...reasons, ...own.flatMap((one) => one.reasons)]
    return { ...verdicts(all), reasons, programs }
  }

  /** A reason as far as the BTF tells: what partial BTF lacks may be in the kernel. */
  #asTold(reason: Reason): Reason {
    if (!this.#options.partial || reason.verdict !== 'no' || TOLD_IN_PART.has(reason.code))
      return reason
    const message = short(`${reason.message}, as far as partial BTF tells`, MAX_MESSAGE)
    return { ...reason, verdict: 'cannot_tell', message }
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

  /** False if the kernel's own BTF may give another outcome than partial BTF: it has other ids, and may lack a type. */
  #isSure({ kind, type }: CoreRelocation): boolean {
    if (!this.#sure || kind === 'local_type_id') return true
    return kind !== 'target_type_id' && (this.#sure.get(type)?.length ?? 0) > 0
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
  #programReasons({ section, target, pattern }: ProgramRequirement): Reason[] {
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
    const isProbe = programType === 'BPF_PROG_TYPE_KPROBE'
    const { functions } = this.#options
    // MODULE:FUNCTION is of a module
    if (functions && isProbe && target && !named?.includes(':')) {
      const inModule = this.#symbols.hasInModule(target)
      return [...reasons, ...probeReasons(functions, target.name, inModule)]
    }
    if (functions && pattern !== undefined)
      return [...reasons, ...patternReasons(functions, pattern)]
    if (target && !this.#symbols.has(target)) {
      // the kernel's functions are not all in BTF: pahole leaves out those that the compiler changed
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
    } else if (functions && target && /^f(entry|exit|session|mod_ret)/.test(kind)) {
      const inModule = this.#symbols.hasInModule(target)
      reasons.push(...trampolineReasons(functions, target.name, inModule))
    }
    return reasons
  }

  #callReasons({ program, instruction, calls }: KernelCall, reachability: Reachability): Reason[] {
    const problem = this.#problemOf(calls)
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

  #problemOf(calls: KernelCall['calls']): Problem | undefined {
    if ('helper' in calls) return this.#helperProblem(calls.helper)
    return 'kfunc' in calls ? this.#kfuncProblem(calls.kfunc) : this.#atomicProblem()
  }

  #atomicProblem(): Problem | undefined {
    const presence = this.#symbols.atomics
    if (presence === 'there') return undefined
    const tail = presence === 'unknown' ? 'may lack' : 'lacks'
    const message = `this kernel ${tail} the atomic instructions of Linux 5.12`
    return { code: 'missing_instruction', presence, message }
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
    const presence = this.#options.partial ? 'unknown' : 'missing'
    return { code: 'missing_kfunc', presence, message }
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

/**
 * Reasons that partial BTF is sure of: they depend on nothing but enums of which it has all values, if it has one, or on
 * what is known of the kernel otherwise.
 */
const TOLD_IN_PART: ReadonlySet<ReasonCode> = new Set<ReasonCode>([
  ...(['missing_helper', 'missing_map_type', 'missing_program_type'] as const),
  ...(['missing_attach_type', 'no_kernel_btf'] as const),
])

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

/**
 * The reason for a relocation that partial BTF does not decide. Whether the instruction is reached does not matter: of a
 * type that the kernel has several times, libbpf refuses the whole object.
 */
function notCovered({ outcome, instruction, access, source, kind }: CheckedRelocation): Reason[] {
  const why =
    kind === 'target_type_id'
      ? 'partial BTF gives types other ids'
      : outcome.is === 'ok'
        ? 'only headers are known to have it'
        : 'it is not in this partial BTF, and may be in the kernel'
  const message = short(`${access} (${kind}): ${why}`, MAX_MESSAGE)
  const place = { instruction, access, ...(source && { source }) }
  return [{ code: 'not_covered', verdict: 'cannot_tell', stage: 'load', message, ...place }]
}

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
  const verdicts = new Set(reasons.map(({ verdict }) => verdict))
  return verdicts.has('no') ? 'no' : verdicts.has('cannot_tell') ? 'cannot_tell' : 'yes'
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
