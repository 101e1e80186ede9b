/*
 * Minimizes a kernel's BTF to the types that the relocations of some objects need. The objects relocate against the result
 * exactly as against the whole BTF. It keeps the same as `bpftool gen min_core_btf` (src/gen.c `btfgen_*`):
 *
 * - for a field: the root, the members on the path, and their types up to a pointer;
 * - for a type: all types it consists of, through pointers, but structs without their members;
 * - for `type_matches`: members too, but not those of structs behind a pointer;
 * - for an enumerator: its whole enum.
 *
 * bpftool keeps the kernel's first matching type. That is enough unless relocations with the same root match different
 * types first: then a type kept for one relocation would hide the other's. In this case all matching types are kept.
 */

import type { Btf } from './btf.ts'
import { isComposite } from './compatible.ts'
import { encodeBtf } from './encode.ts'
import { BtfError } from './error.ts'
import type { CoreRelocation } from './ext.ts'
import { KIND, KINDS } from './kind.ts'
import type { BpfObject } from './object.ts'
import { RelocationError } from './relocation-error.ts'
import { renumbered } from './renumber.ts'
import { Resolver } from './resolve.ts'
import { type Spec, subjectOf } from './spec.ts'
import type { BtfType, StructType } from './type.ts'

/**
 * Returns minimal BTF for the objects, in the kernel's byte order. Objects without relocations give BTF without types.
 * Errors: `invalid_relocation` if libbpf refuses an object on this kernel, `cycle`.
 */
export function minimizeBtf(kernel: Btf, objects: readonly BpfObject[]): Uint8Array {
  const kept = new Kept(kernel)
  for (const object of objects) {
    for (const { relocation, targets } of matches(kernel, object)) {
      for (const target of targets) kept.keep(relocation.kind, target)
    }
  }
  return encodeBtf(kept.types(), { byteOrder: kernel.byteOrder })
}

interface Match {
  readonly relocation: CoreRelocation
  readonly targets: readonly Spec[]
}

/** The kernel's types that each relocation of an object needs. */
function matches(kernel: Btf, object: BpfObject): Match[] {
  const resolver = new Resolver(object, kernel)
  const all: Match[] = []
  const firsts = new Map<number, number>()
  const divided = new Set<number>()
  for (const relocation of object.ext.relocations) {
    const { targets } = resolveOrThrow(resolver, relocation)
    if (targets.length === 0) continue
    const first = firsts.get(relocation.type) ?? targets[0]!.root
    firsts.set(relocation.type, first)
    if (targets[0]!.root !== first) divided.add(relocation.type)
    all.push({ relocation, targets })
  }
  return all.map(({ relocation, targets }) => ({
    relocation,
    targets: divided.has(relocation.type) ? targets : targets.slice(0, 1),
  }))
}

function resolveOrThrow(resolver: Resolver, relocation: CoreRelocation) {
  try {
    return resolver.resolve(relocation)
  } catch (error) {
    if (!(error instanceof RelocationError)) throw error
    const { section, index, kind } = relocation
    const message = `relocation ${index} (${kind}) of section ${section}: ${error.message}`
    throw new BtfError('invalid_relocation', message, relocation.offset)
  }
}

/** How much of a type is kept; see the head of the file. */
type KeptExtent = 'field' | 'type' | 'match' | 'match behind pointer'

/** The types and members of a kernel that are kept. */
class Kept {
  readonly #btf: Btf
  readonly #types = new Set<number>()
  readonly #members = new Map<number, Set<number>>()
  readonly #done = new Set<string>()

  constructor(btf: Btf) {
    this.#btf = btf
  }

  keep(kind: CoreRelocation['kind'], spec: Spec): void {
    const subject = subjectOf(kind)
    if (subject === 'field') this.#keepField(spec)
    else if (subject === 'enumerator') this.#keepType(spec.root, 'field')
    else this.#keepType(spec.root, kind === 'type_matches' ? 'match' : 'type')
  }

  /** The kept types in order, with new ids; references to other types become void. */
  *types(): Generator<BtfType> {
    const ids = [...this.#types].sort((a, b) => a - b)
    const numbers = new Map(ids.map((id, i) => [id, i + 1]))
    for (const id of ids) {
      const type = this.#btf.type(id)
      const whole = type.kind === 'STRUCT' || type.kind === 'UNION' ? this.#reduced(type) : type
      yield renumbered(whole, (old) => numbers.get(old) ?? 0)
    }
  }

  #reduced(type: StructType): StructType {
    const kept = this.#members.get(type.id)
    const members = type.members.filter((_, index) => kept?.has(index))
    // libbpf's btf__add_field sets kind_flag at the first bitfield
    const flag = type.flag && members.some((m) => m.bitfieldSize > 0 || m.bitOffset % 8 !== 0)
    return { ...type, members, flag }
  }

  #keepMember(id: number, index: number): void {
    const members = this.#members.get(id)
    if (members) members.add(index)
    else this.#members.set(id, new Set([index]))
  }

  /** Keeps the path to a field (`btfgen_record_field_relo`). */
  #keepField(spec: Spec): void {
    const btf = this.#btf
    this.#keepType(spec.root, 'field')
    let id = spec.root
    for (const index of spec.raw.slice(1)) {
      while (isReference(btf.kind(id))) id = btf.sizeOrType(id)
      if (isComposite(btf.kind(id))) {
        this.#keepMember(id, index)
        id = btf.word(id, 16 + index * 12)
        this.#keepType(id, 'field')
      } else {
        id = btf.word(id, 12) // the array's element type is kept with the array
      }
    }
  }

  /** Keeps a type and those it needs (`btfgen_mark_type`, `btfgen_mark_type_match`). Not recursive: chains may be long. */
  #keepType(root: number, extent: KeptExtent): void {
    const pending: [id: number, extent: KeptExtent][] = [[root, extent]]
    for (let next = pending.pop(); next; next = pending.pop()) {
      const [id, how] = next
      const key = `${id} ${how}`
      if (id === 0 || this.#done.has(key)) continue
      this.#done.add(key)
      this.#types.add(id)
      for (const need of this.#needs(id, how)) pending.push(need)
    }
  }

  #needs(id: number, extent: KeptExtent): [number, KeptExtent][] {
    const btf = this.#btf
    const kind = btf.kind(id)
    const inside = extent === 'match behind pointer' ? 'match' : extent
    switch (kind) {
      case KIND.PTR:
        if (extent === 'field') return []
        return [[btf.sizeOrType(id), extent === 'type' ? 'type' : 'match behind pointer']]
      case KIND.STRUCT:
      case KIND.UNION: {
        if (extent !== 'match') return []
        const needs: [number, KeptExtent][] = []
        for (let i = 0; i < btf.vlen(id); i++) {
          this.#keepMember(id, i)
          needs.push([btf.word(id, 16 + i * 12), 'match'])
        }
        return needs
      }
      case KIND.ARRAY:
        return [
          [btf.word(id, 12), inside],
          [btf.word(id, 16), inside],
        ]
      case KIND.FUNC_PROTO: {
        const needs: [number, KeptExtent][] = [[btf.sizeOrType(id), inside]]
        const { element, elementId } = KINDS[kind]!
        for (let i = 0; i < btf.vlen(id); i++) {
          needs.push([btf.word(id, 12 + i * element + elementId), inside])
        }
        return needs
      }
      default:
        return isReference(kind) ? [[btf.sizeOrType(id), extent]] : []
    }
  }
}

function isReference(kind: number): boolean {
  return (
    kind === KIND.TYPEDEF ||
    kind === KIND.CONST ||
    kind === KIND.VOLATILE ||
    kind === KIND.RESTRICT ||
    kind === KIND.TYPE_TAG
  )
}
