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

export interface Resolution {
  readonly local: Spec
  /** the kernel's matching specs, ordered by the ids of their root types; none for `local_type_id` */
  readonly targets: readonly Spec[]
  readonly result: RelocationValue
}

/** Resolves the relocations of one object against one kernel. Callers resolve them in the object's order. */
export class Resolver {
  readonly #object: BpfObject
  readonly #comparison: Comparison
  readonly #candidates: Map<number, readonly number[]>

  constructor(object: BpfObject, target: Btf) {
    this.#object = object
    this.#comparison = new Comparison(object.btf, target)
    this.#candidates = findCandidates(object.btf, target, object.ext.relocations)
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
    let first: RelocationValue | undefined
    for (const candidate of this.#candidates.get(type) ?? []) {
      const target = matchSpec(this.#comparison, local, kind, candidate)
      if (!target) continue
      const result = calculate(kind, local, target, byteOrder)
      if (first) agree(first, targets[0]!, result, target)
      first ??= result
      targets.push(target)
    }
    if (targets.length > 0)
      this.#candidates.set(
        type,
        targets.map((target) => target.root),
      )
    return { local, targets, result: first ?? calculate(kind, local, undefined, byteOrder) }
  }
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
