/*
 * What an object asks of a kernel besides relocations: maps, program and attach types, attach targets, helpers, kfuncs
 * and other symbols of the kernel. None of it depends on a kernel, so it is read once for each object.
 */

import type { Btf } from './btf.ts'
import { CALL, INSTRUCTION_SIZE, isNewAtomic, LDIMM64, readInstruction } from './instruction.ts'
import { KIND } from './kind.ts'
import { resolve } from './layout.ts'
import type { BpfObject } from './object.ts'
import { type BpfProgram, programAt } from './program.ts'
import type { BpfExtern } from './reference.ts'
import { parseSectionName, type SectionName } from './section-name.ts'

/** A type of the kernel's BTF by kind and name. */
export interface WantedType {
  readonly kind: 'ENUM' | 'FUNC' | 'STRUCT' | 'TYPEDEF' | 'VAR'
  readonly name: string
}

/** An instruction that calls a helper or a kfunc, or that old kernels lack (`isNewAtomic`). */
export interface KernelCall {
  readonly program: BpfProgram
  /** index in its program */
  readonly instruction: number
  readonly calls:
    | { readonly helper: number }
    | { readonly kfunc: BpfExtern }
    | { readonly atomic: true }
}

export interface MapRequirement {
  readonly name: string
  /** a number of enum bpf_map_type */
  readonly type: number
}

export interface ProgramRequirement {
  readonly program: BpfProgram
  /** undefined for a section that libbpf does not know */
  readonly section: SectionName | undefined
  /** the type to which the program is attached, if BTF has it: a function, a typedef, or the struct of a struct_ops */
  readonly target?: WantedType
  /** a pattern of functions, of which `kprobe.multi` is attached to all that match */
  readonly pattern?: string
}

export interface Requirements {
  /** the programs that libbpf can load, in the object's order */
  readonly programs: readonly ProgramRequirement[]
  readonly calls: readonly KernelCall[]
  readonly maps: readonly MapRequirement[]
  /** names of the structs whose operations the object implements */
  readonly structOps: readonly string[]
}

const known = new WeakMap<BpfObject, Requirements>()

/** Reads what an object asks of a kernel. */
export function requirementsOf(object: BpfObject): Requirements {
  let requirements = known.get(object)
  if (!requirements) {
    requirements = {
      programs: object.programs
        .filter(({ section }) => section !== '.text')
        .map((program) => programRequirement(program)),
      calls: [...readCalls(object)],
      maps: readMaps(object.btf),
      structOps: readStructOps(object.btf),
    }
    known.set(object, requirements)
  }
  return requirements
}

function programRequirement(program: BpfProgram): ProgramRequirement {
  const section = parseSectionName(program.section)
  const target = section && targetOf(section)
  const pattern = section && patternOf(section)
  return { program, section, ...(target && { target }), ...(pattern && { pattern }) }
}

/** libbpf looks for these in the kernel's BTF (`btf_get_kernel_prefix_kind`). */
function targetOf({ kind, target }: SectionName): WantedType | undefined {
  if (target === undefined) return undefined
  const family = kind.split('.')[0]!
  // MODULE:FUNCTION names the module that has it
  const name = target.slice(target.indexOf(':') + 1)
  switch (family) {
    case 'fentry':
    case 'fexit':
    case 'fmod_ret':
    case 'fsession':
      return kind.includes('.multi') ? undefined : { kind: 'FUNC', name }
    case 'lsm':
    case 'lsm_cgroup':
      return { kind: 'FUNC', name: `bpf_lsm_${name}` }
    case 'iter':
      return { kind: 'FUNC', name: `bpf_iter_${name}` }
    case 'tp_btf':
      return { kind: 'TYPEDEF', name: `btf_trace_${name}` }
    case 'raw_tp':
    case 'raw_tracepoint':
      return { kind: 'TYPEDEF', name: `btf_trace_${name}` }
    case 'kprobe':
    case 'kretprobe':
      return isMulti(kind) ? undefined : probedFunction(name)
    default:
      return undefined
  }
}

/** libbpf reads FUNCTION+OFFSET, and ignores what follows (`attach_kprobe`). */
function probedFunction(target: string): WantedType | undefined {
  const [name] = /^[\w.]+/.exec(target) ?? []
  return name === undefined ? undefined : { kind: 'FUNC', name }
}

const isMulti = (kind: string): boolean => /\.(multi|session)$/.test(kind)

/** libbpf attaches these to every function that matches (`attach_kprobe_multi`). */
function patternOf({ kind, target }: SectionName): string | undefined {
  return /^k(ret)?probe/.test(kind) && isMulti(kind) ? target : undefined
}

/** True if an object has programs that are attached to functions, so that a list of the kernel's functions decides. */
export function asksForFunctions(object: BpfObject): boolean {
  const { programs } = requirementsOf(object)
  return programs.some(({ target, pattern }) => target?.kind === 'FUNC' || pattern !== undefined)
}

function* readCalls(object: BpfObject): Generator<KernelCall> {
  for (const [section, bytes] of object.code) {
    const references = object.references.get(section)
    for (let at = 0; at + INSTRUCTION_SIZE <= bytes.length; at += INSTRUCTION_SIZE) {
      const read = readInstruction(bytes, at, object.byteOrder)
      const { code, source, immediate } = read
      if (code === LDIMM64) at += INSTRUCTION_SIZE
      const isAtomic = isNewAtomic(read)
      if (code !== CALL && !isAtomic) continue
      const program = programAt(object.programs, section, at)
      if (!program) continue
      const instruction = (at - program.offset) / INSTRUCTION_SIZE
      if (isAtomic) {
        yield { program, instruction, calls: { atomic: true } }
        continue
      }
      const reference = references?.get(at)
      if (reference?.is === 'extern' && reference.extern.kind === 'kfunc') {
        yield { program, instruction, calls: { kfunc: reference.extern } }
      } else if (source === 0) yield { program, instruction, calls: { helper: immediate } }
    }
  }
}

/** Maps as BTF defines them: `__uint(type, N)` is a pointer to an array of N (libbpf `parse_btf_map_def`). */
function readMaps(btf: Btf): MapRequirement[] {
  return [...variablesOf(btf, '.maps')].flatMap(({ name, type: id }) => {
    const type = btf.type(resolve(btf, id))
    const member = type.kind === 'STRUCT' && type.members.find((member) => member.name === 'type')
    const pointer = member && btf.type(resolve(btf, member.type))
    const array = pointer && pointer.kind === 'PTR' && btf.type(resolve(btf, pointer.type))
    return array && array.kind === 'ARRAY' ? [{ name, type: array.length }] : []
  })
}

function readStructOps(btf: Btf): string[] {
  const names = new Set<string>()
  for (const section of ['.struct_ops', '.struct_ops.link']) {
    for (const { type: id } of variablesOf(btf, section)) {
      const type = btf.type(resolve(btf, id))
      if (type.kind === 'STRUCT' && type.name !== '') names.add(type.name.replace(/___[^_].*$/, ''))
    }
  }
  return [...names]
}

function* variablesOf(btf: Btf, section: string): Generator<{ name: string; type: number }> {
  for (let id = btf.startId; id < btf.endId; id++) {
    if (btf.kind(id) !== KIND.DATASEC || btf.name(id) !== section) continue
    const type = btf.type(id)
    if (type.kind !== 'DATASEC') continue
    for (const { type: variable } of type.variables) {
      const found = btf.type(variable)
      if (found.kind === 'VAR') yield { name: found.name, type: found.type }
    }
  }
}
