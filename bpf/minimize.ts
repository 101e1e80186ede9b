/*
 * Minimizes a kernel's BTF to the types that the relocations of some objects need. The objects relocate against the result
 * exactly as against the whole BTF. It keeps the same as `bpftool gen min_core_btf` (src/gen.c `btfgen_*`):
 *
 * - for a field: the root, the members on the path, and their types up to a pointer;
 * - for a type: all types it consists of, through pointers, but structs without their members;
 * - for `type_matches`: members too, but not those of structs behind a pointer;
 * - for an enumerator: its whole enum.
 *
 * If several of the kernel's types match, bpftool keeps the first, even if a later relocation with the same root does not
 * match it. Here it is one that all these relocations match: libbpf, too, goes on with the types that matched before.
 *
 * Nothing depends on the kernel's ids, which change with each build: types are written in the order in which the objects
 * need them, and of several types that would do the smallest is kept. So kernels that agree give equal bytes.
 *
 * What is left out can change an answer: a pointer whose target is gone points to void, and void matches where the
 * target did not; a member that is now the last counts as a flexible array. Therefore every relocation is resolved
 * against the result too. Where the answers differ, all candidates of the root type are kept with everything that a
 * comparison reads, so that it reads the same as in the whole BTF. bpftool leaves such answers wrong.
 *
 * libbpf looks for types in modules only beside the running kernel's own BTF: with `btf_custom_path`, that file is all it
 * reads (src/libbpf.c `bpf_core_find_cands`, `btf_vmlinux_override`). So the types that objects need of modules are
 * merged into the result.
 */

import { type Btf, LONGS, longAmong, parseBtf } from './btf.ts'
import { compareBytes, encodeText } from './bytes.ts'
import { findCandidates } from './candidate.ts'
import { isComposite } from './compatible.ts'
import { encodeBtf } from './encode.ts'
import { BtfError } from './error.ts'
import type { CoreRelocation } from './ext.ts'
import { KIND } from './kind.ts'
import { mergeBtf } from './merge.ts'
import { NameQuery } from './name-query.ts'
import type { BpfObject } from './object.ts'
import { RelocationError } from './relocation-error.ts'
import { renumbered } from './renumber.ts'
import { type KernelOptions, type Resolution, Resolver } from './resolve.ts'
import { type Spec, subjectOf } from './spec.ts'
import type { BtfType, StructType } from './type.ts'
import type { TypeSource } from './type-source.ts'

/**
 * Returns minimal BTF for the objects, in the kernel's byte order. Objects without relocations give BTF without types.
 * `modules` is the BTF of the kernel's modules, opened over it; the types that objects need of them are in the result.
 * Errors: `invalid_relocation` if libbpf refuses an object on this kernel, `cycle`; `unsupported` if one file cannot
 * give the answers that the kernel and its modules give.
 */
export function minimizeBtf(
  kernel: TypeSource,
  objects: readonly BpfObject[],
  modules: readonly Btf[] = [],
): Uint8Array {
  const { pointerSize } = kernel
  const { whole, demands, vmlinuxEnd } = wholeFor(kernel, objects, modules)
  const kept = new Kept(whole)
  for (const { matches } of demands) {
    for (const { relocation, target } of matches) kept.keep(relocation.kind, target)
  }
  const extended = new Set<CoreRelocation>()
  for (;;) {
    const bytes = kept.encode()
    const small = parseBtf(bytes, { pointerSize })
    const changed = demands.flatMap((demand) => changedAnswers(demand, small))
    if (changed.length === 0) return bytes
    for (const { object, type } of changed)
      keepCandidates(kept, { whole, vmlinuxEnd }, object, type, extended)
  }
}

interface Whole {
  /** the BTF to take types from: the kernel's, or one with modules merged into it */
  readonly whole: TypeSource
  /** one more than the highest id of vmlinux, if modules were merged into it */
  readonly vmlinuxEnd: number | undefined
}

/** The BTF to take types from, and what each object needs of it. */
function wholeFor(
  kernel: TypeSource,
  objects: readonly BpfObject[],
  modules: readonly Btf[],
): Whole & { demands: RelocationDemand[] } {
  const resolved = objects.map((object) => resolveAll(object, kernel, { modules }))
  const read = new Set(
    resolved.flatMap(({ found }) => found.flatMap(({ targets }) => targets.map(({ btf }) => btf))),
  )
  const needed = modules.filter((module) => read.has(module))
  const vmlinux = needed[0]?.base
  if (!vmlinux) {
    const demands = objects.map((object, n) => demandOf(object, kernel, resolved[n]!))
    return { whole: kernel, demands, vmlinuxEnd: undefined }
  }
  const vmlinuxEnd = vmlinux.endId
  const whole = parseBtf(mergeBtf(vmlinux, needed), { pointerSize: kernel.pointerSize })
  const demands = objects.map((object, n) => {
    const again = resolveAll(object, whole, { vmlinuxEnd })
    if (again.answers.join() !== resolved[n]!.answers.join()) throw notInOneFile()
    return demandOf(object, whole, again)
  })
  return { whole, demands, vmlinuxEnd }
}

const notInOneFile = () =>
  new BtfError(
    'unsupported',
    'cannot minimize: types of vmlinux and its modules that have one name give other answers in one file',
  )

interface Match {
  readonly relocation: CoreRelocation
  readonly target: Spec
}

/** An object, the kernel's types that its relocations need, and each relocation's answer in the whole BTF. */
interface RelocationDemand {
  readonly object: BpfObject
  readonly matches: readonly Match[]
  readonly answers: readonly string[]
}

/** What the relocations of an object match, and the answer of each. */
interface Resolved {
  readonly found: readonly { relocation: CoreRelocation; targets: readonly Spec[] }[]
  readonly answers: readonly string[]
}

function resolveAll(object: BpfObject, kernel: TypeSource, options: KernelOptions): Resolved {
  const resolver = new Resolver(object, kernel, options)
  const answers: string[] = []
  const found: { relocation: CoreRelocation; targets: readonly Spec[] }[] = []
  for (const relocation of object.ext.relocations) {
    const resolution = resolveOrThrow(resolver, relocation)
    answers.push(answerOf(relocation, resolution))
    if (resolution.targets.length > 0) found.push({ relocation, targets: resolution.targets })
  }
  return { found, answers }
}

function demandOf(
  object: BpfObject,
  kernel: TypeSource,
  { found, answers }: Resolved,
): RelocationDemand {
  const chosen = new Map<number, number>()
  for (const [type, same] of Map.groupBy(found, ({ relocation }) => relocation.type)) {
    // each relocation matches some of the types that the one before it matched
    const roots = same.at(-1)!.targets.map(({ root }) => root)
    const [smallest] = bySize(kernel, roots, (kept, root) => {
      for (const { relocation, targets } of same) kept.keep(relocation.kind, specOf(targets, root))
    })
    chosen.set(type, smallest!)
  }
  const matches = found.map(({ relocation, targets }) => {
    return { relocation, target: specOf(targets, chosen.get(relocation.type)!) }
  })
  return { object, matches, answers }
}

const specOf = (targets: readonly Spec[], root: number): Spec =>
  targets.find((target) => target.root === root)!

/** Types of one name, those first of which least is kept: an order that does not depend on their ids. */
function bySize(
  btf: TypeSource,
  ids: readonly number[],
  keep: (kept: Kept, id: number) => void,
): readonly number[] {
  if (ids.length < 2) return ids
  const encoded = ids.map((id) => {
    const kept = new Kept(btf)
    keep(kept, id)
    return { id, bytes: kept.encode() }
  })
  encoded.sort((a, b) => a.bytes.length - b.bytes.length || compareBytes(a.bytes, b.bytes))
  return encoded.map(({ id }) => id)
}

/** All that patching an instruction depends on. The id of a type is another one in other BTF. */
function answerOf({ kind }: CoreRelocation, { targets, result }: Resolution): string {
  const value = kind === 'target_type_id' ? 'id' : result.new?.value
  return `${targets.length > 0} ${value} ${result.new?.size} ${result.wrongAccess}`
}

/** The root types of an object whose relocations have another answer in the smaller BTF. */
function changedAnswers(
  { object, answers }: RelocationDemand,
  small: Btf,
): { object: BpfObject; type: number }[] {
  const resolver = new Resolver(object, small)
  const changed = new Set<number>()
  for (const [i, relocation] of object.ext.relocations.entries()) {
    let answer: string | undefined
    try {
      answer = answerOf(relocation, resolver.resolve(relocation))
    } catch (error) {
      if (!(error instanceof RelocationError)) throw error
    }
    if (answer !== answers[i]) changed.add(relocation.type)
  }
  return [...changed].map((type) => ({ object, type }))
}

/** Keeps all that the relocations with one root type read in the kernel, whether it matches or not. */
function keepCandidates(
  kept: Kept,
  { whole: kernel, vmlinuxEnd }: Whole,
  object: BpfObject,
  type: number,
  extended: Set<CoreRelocation>,
): void {
  const relocations = object.ext.relocations.filter((relocation) => relocation.type === type)
  const candidates =
    findCandidates(object.btf, kernel, relocations, {
      ...(vmlinuxEnd !== undefined && { vmlinuxEnd }),
    }).get(type) ?? []
  const ordered = bySize(kernel, candidates, (one, candidate) => {
    for (const { kind } of relocations) one.keepRead(kind, candidate)
  })
  for (const relocation of relocations) {
    // everything that was read is kept by now: another round would find the same
    if (extended.has(relocation)) {
      if (vmlinuxEnd !== undefined) throw notInOneFile()
      throw new Error(`the answer for root type ${type} changes again`)
    }
    extended.add(relocation)
    for (const candidate of ordered) kept.keepRead(relocation.kind, candidate)
  }
}

function resolveOrThrow(resolver: Resolver, relocation: CoreRelocation): Resolution {
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
  readonly #btf: TypeSource
  readonly #types = new Set<number>()
  readonly #members = new Map<number, Set<number>>()
  readonly #done = new Set<string>()

  constructor(btf: TypeSource) {
    this.#btf = btf
  }

  keep(kind: CoreRelocation['kind'], spec: Spec): void {
    const subject = subjectOf(kind)
    if (subject === 'field') this.#keepField(spec)
    else if (subject === 'enumerator') this.#keepType(spec.root, 'field')
    else this.#keepType(spec.root, kind === 'type_matches' ? 'match' : 'type')
  }

  /** Keeps all of a candidate that a comparison can read. */
  keepRead(kind: CoreRelocation['kind'], candidate: number): void {
    const subject = subjectOf(kind)
    if (subject === 'enumerator') this.#keepType(candidate, 'field')
    else
      this.#keepType(candidate, subject === 'field' || kind === 'type_matches' ? 'match' : 'type')
  }

  /** The kept types as BTF, in the order in which they were kept; references to other types become void. */
  encode(): Uint8Array {
    return encodeBtf(this.#renumbered(), { byteOrder: this.#btf.byteOrder })
  }

  *#renumbered(): Generator<BtfType> {
    const ids = [...new Set([...this.#pointerSize(), ...this.#types])]
    const numbers = new Map(ids.map((id, i) => [id, i + 1]))
    for (const id of ids) {
      const type = this.#btf.type(id)
      const whole = type.kind === 'STRUCT' || type.kind === 'UNION' ? this.#reduced(type) : type
      yield renumbered(whole, (old) => numbers.get(old) ?? 0)
    }
  }

  /** A `long` where pointers are kept and a reader would not find their size without it. A reader takes the first. */
  #pointerSize(): number[] {
    const btf = this.#btf
    const { pointerSize } = btf
    if (![...this.#types].some((id) => btf.kind(id) === KIND.PTR)) return []
    const known = longAmong(btf, this.#types)
    if ((known === undefined ? 8 : btf.sizeOrType(known)) === pointerSize) return []
    const query = new NameQuery()
    query.addKind(KIND.INT)
    for (const name of LONGS) query.addName(encodeText(name))
    const longs = btf.idsOf(query).filter((id) => {
      return longAmong(btf, [id]) !== undefined && btf.sizeOrType(id) === pointerSize
    })
    // without one, the reader of the whole BTF was told the size as well
    return longs.sort((a, b) => (btf.name(a) < btf.name(b) ? -1 : 1)).slice(0, 1)
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
        for (let i = 0; i < btf.vlen(id); i++) needs.push([btf.word(id, 16 + i * 8), inside])
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
