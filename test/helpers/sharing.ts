/* Finds kernels that would share an answer about an object though theirs differ, and makes kernels that differ little. */
import { type BtfType, encodeBtf, parseBtf } from '../../bpf/index.ts'
import { renumbered } from '../../bpf/renumber.ts'
import { IndexReader } from '../../service/declarations/reader.ts'
import { IndexWriter } from '../../service/declarations/writer.ts'

import * as worker from '../../service/threads/worker.ts'
import { sha256Of } from '../../storage/index.ts'
import { kernelWith } from './kernel-series.ts'

export interface NamedBytes {
  name: string
  bytes: Uint8Array
}

type Plain = worker.WorkerAnswer<unknown>
type Traced = worker.WorkerAnswer<worker.TracedAnswer<unknown>>

const VERBS: Record<
  string,
  {
    plain: (task: worker.ObjectInput) => Plain
    traced: (task: worker.ObjectInput & { hasModules: boolean }) => Traced
  }
> = {
  minimize: { plain: worker.minimize, traced: worker.tracedMinimize },
  check: { plain: worker.check, traced: worker.tracedCheck },
  fit: { plain: worker.fit, traced: worker.tracedFit },
}

/** An answer as text; bytes as their digest. */
const textOf = (value: unknown): string =>
  JSON.stringify(value, (_, one) => (one instanceof Uint8Array ? sha256Of(one) : one))

/** An index of kernels, each of a series of its own, in this order. */
export function indexOfKernels(path: string, kernels: readonly NamedBytes[]): IndexReader {
  const writer = IndexWriter.open(path)
  for (const { name, bytes } of kernels) {
    const failure = writer.add(bytes, kernelWith(bytes, { release: name }))
    if (failure !== undefined) throw new Error(`${name}: ${failure}`)
  }
  writer.close()
  return new IndexReader(path)
}

/** What kernels share, in an index that has them all. */
export interface SharingReport {
  /** differences, one a line */
  wrong: string[]
  /** answers that another kernel has, too */
  shared: number
  /** all answers */
  all: number
}

/** Compares each answer with those of all kernels that would share it. */
export function reportSharing(
  index: IndexReader,
  kernels: readonly NamedBytes[],
  objects: readonly NamedBytes[],
): SharingReport {
  const report: SharingReport = { wrong: [], shared: 0, all: 0 }
  const names = new Map(kernels.map(({ name, bytes }) => [sha256Of(bytes), name]))
  for (const object of objects) {
    for (const [verb, { plain, traced }] of Object.entries(VERBS)) {
      const answers = new Map<string, string>()
      const sharing: { sha256: string; keys: readonly number[] }[] = []
      for (const { name, bytes } of kernels) {
        const task = { objects: [object.bytes], btf: bytes }
        const own = plain(task)
        const told = traced({ ...task, hasModules: false })
        const sha256 = sha256Of(bytes)
        answers.set(sha256, textOf(own))
        const value = 'value' in told ? { value: told.value.value } : told
        if (textOf(value) !== textOf(own))
          report.wrong.push(`${verb} ${object.name} on ${name}: the trace changes the answer`)
        if ('value' in told && told.value.keys) sharing.push({ sha256, keys: told.value.keys })
      }
      report.all += kernels.length
      for (const { sha256, keys } of sharing) {
        const alike = index.alike(sha256, keys).filter((other) => answers.has(other))
        if (alike.length > 1) report.shared++
        for (const other of alike)
          if (answers.get(other) !== answers.get(sha256))
            report.wrong.push(
              `${verb} ${object.name}: ${names.get(sha256)} and ${names.get(other)} differ`,
            )
      }
    }
  }
  return report
}

/** Random numbers below a limit. */
function random(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    return ((state >>> 8) % limit) | 0
  }
}

/** The same types under other numbers. */
export function shuffled(raw: Uint8Array, seed: number): Buffer {
  const btf = parseBtf(raw)
  const below = random(seed)
  const ids = Array.from({ length: btf.typeCount }, (_, i) => i + 1)
  for (let i = ids.length - 1; i > 0; i--) {
    const other = below(i + 1)
    ;[ids[i], ids[other]] = [ids[other]!, ids[i]!]
  }
  const numbers = new Map(ids.map((id, i) => [id, i + 1]))
  const types = ids.map((id) => renumbered(btf.type(id), (old) => numbers.get(old)!))
  return Buffer.from(encodeBtf(types, { byteOrder: btf.byteOrder }))
}

/** The same types, but for one that is changed somewhere. */
export function mutated(raw: Uint8Array, seed: number): Buffer {
  const btf = parseBtf(raw)
  const below = random(seed)
  const types = [...btf.types()]
  for (let tries = 0; tries < 50; tries++) {
    const at = below(types.length)
    const changed = mutate(types[at]!, below, types.length)
    if (!changed || !isEncodable(changed)) continue
    if (below(8) === 0) types.push({ ...changed, id: types.length + 1 } as BtfType)
    else types[at] = changed
    break
  }
  return Buffer.from(encodeBtf(types, { byteOrder: btf.byteOrder }))
}

function isEncodable(type: BtfType): boolean {
  try {
    encodeBtf([{ ...type, id: 1 } as BtfType])
    return true
  } catch {
    return false
  }
}

function mutate(
  type: BtfType,
  below: (limit: number) => number,
  types: number,
): BtfType | undefined {
  const [flip, step] = [below(2) === 0, below(3) + 1]
  const other = below(types) + 1
  switch (type.kind) {
    case 'INT':
      return flip ? { ...type, signed: !type.signed } : { ...type, size: type.size ^ 12 }
    case 'STRUCT':
    case 'UNION': {
      if (type.members.length === 0) return { ...type, size: type.size + step }
      const at = below(type.members.length)
      const changes = [
        { bitOffset: type.members[at]!.bitOffset + 8 * step },
        { name: `${type.members[at]!.name}x` },
        { type: other },
      ]
      const members = type.members.map((member, i) =>
        i === at ? { ...member, ...changes[below(3)] } : member,
      )
      const all = [
        { ...type, members },
        { ...type, flag: type.flag || members.every(({ bitOffset }) => bitOffset < 1 << 24) },
        { ...type, size: type.size + step },
        { ...type, members: type.members.filter((_, i) => i !== at) },
        { ...type, name: `${type.name}x` },
      ]
      return all[below(all.length)]
    }
    case 'ENUM':
      return {
        ...type,
        values: flip
          ? type.values.slice(1)
          : type.values.map((v) => ({ ...v, value: v.value + 1 })),
      }
    case 'ARRAY':
      return { ...type, length: type.length + step }
    case 'FUNC':
      return { ...type, linkage: type.linkage === 'static' ? 'global' : 'static' }
    case 'FWD':
    case 'TYPEDEF':
    case 'FLOAT':
      return { ...type, name: `${type.name}x` }
    case 'PTR':
      return { ...type, type: other }
    default:
      return undefined
  }
}
