/*
 * Resolves an object's relocations in a kernel, for loading, checking and minimizing. All candidates of the root type
 * are tried; those that match must agree, and the others are not tried again for that root type (libbpf
 * src/relo_core.c `bpf_core_calc_relo_insn`).
 */

import type { Btf } from './btf.ts'
import { findCandidates } from './candidate.ts'
import { Comparison } from './compatible.ts'
import type { CoreRelocation } from './ext.ts'
import type { BpfObject } from './object.ts'
import { RelocationError } from './relocation-error.ts'
import { calculate, type RelocationValue } from './relocation-value.ts'
import { matchSpec, parseSpec, type Spec } from './spec.ts'
import type { TypeSource } from './type-source.ts'

export interface Resolution {
  readonly local: Spec
  /** the kernel's matching specs, ordered by the ids of their root types; none for `local_type_id` */
  readonly targets: readonly Spec[]
  readonly result: RelocationValue
}

/** The kernel that relocations are resolved in, besides the BTF of its vmlinux. */
export interface KernelOptions {
  /** the split BTF of its modules, opened over vmlinux; their types count where vmlinux has no candidate */
  readonly modules?: readonly Btf[]
  /** one more than the highest id of vmlinux, in BTF that modules were merged into */
  readonly vmlinuxEnd?: number
  /** ids of vmlinux that have all types that `addRootTypes` asks for */
  readonly ids?: readonly number[]
}

/** A candidate, by its id in the BTF of the comparison. */
interface CandidateType {
  readonly comparison: Comparison
  readonly id: number
}

/** Resolves the relocations of one object against one kernel. Callers resolve them in the object's order. */
export class Resolver {
  readonly #object: BpfObject
  readonly #candidates: Map<number, readonly CandidateType[]>

  constructor(
    object: BpfObject,
    target: TypeSource,
    { modules = [], ...options }: KernelOptions = {},
  ) {
    this.#object = object
    const { btf, ext } = object
    const found = findCandidates(btf, target, ext.relocations, options)
    this.#candidates = new Map(inBtf(new Comparison(btf, target), found))
    const without = ext.relocations.filter(({ type }) => found.get(type)?.length === 0)
    if (without.length > 0) for (const module of modules) this.#addModule(module, without)
  }

  #addModule(module: Btf, relocations: readonly CoreRelocation[]): void {
    const { btf } = this.#object
    const found = findCandidates(btf, module, relocations, { own: true })
    for (const [type, candidates] of inBtf(new Comparison(btf, module), found))
      this.#candidates.set(type, [...(this.#candidates.get(type) ?? []), ...candidates])
  }

  /** Resolves one relocation. Errors: a RelocationError where libbpf refuses the object. */
  resolve(relocation: CoreRelocation): Resolution {
    const { btf, byteOrder } = this.#object
    const { kind, type } = relocation
    const local = parseSpec(btf, relocation)
    if (kind === 'local_type_id') {
      return { local, targets: [], result: calculate(kind, local, local, byteOrder) }
    }
    if (btf.name(type) === '') throw new RelocationError('anonymous_type')

    const targets: Spec[] = []
    const matching: CandidateType[] = []
    let first: RelocationValue | undefined
    for (const candidate of this.#candidates.get(type) ?? []) {
      const target = matchSpec(candidate.comparison, local, kind, candidate.id)
      if (!target) continue
      const result = calculate(kind, local, target, byteOrder)
      if (first) agree(first, targets[0]!, result, target)
      first ??= result
      targets.push(target)
      matching.push(candidate)
    }
    if (matching.length > 0) this.#candidates.set(type, matching)
    return { local, targets, result: first ?? calculate(kind, local, undefined, byteOrder) }
  }
}

function* inBtf(
  comparison: Comparison,
  found: ReadonlyMap<number, readonly number[]>,
): Generator<[type: number, candidates: CandidateType[]]> {
  for (const [type, ids] of found) yield [type, ids.map((id) => ({ comparison, id }))]
}

function agree(first: RelocationValue, firstSpec: Spec, result: RelocationValue, spec: Spec): void {
  if (firstSpec.bitOffset !== spec.bitOffset) {
    throw new RelocationError(
      'ambiguous_offset',
      `${spec.bitOffset} and ${firstSpec.bitOffset} bits`,
    )
  }
  if (first.new?.value !== result.new?.value) {
    throw new RelocationError('ambiguous_value', `${result.new?.value} and ${first.new?.value}`)
  }
}
