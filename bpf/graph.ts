/*
 * The types of several BTFs as one graph. A node is a type, its label all that the type says itself (kind, name, size,
 * names and offsets of its members …), its edges, in their order, the types that it refers to. Two nodes with one label
 * have as many edges.
 */

import type { Btf } from './btf.ts'
import { BtfError } from './error.ts'
import { HEADER_SIZE, KIND, KINDS, kindName } from './kind.ts'

/** A base and split BTFs over it. The base's nodes are its type ids, void too; those of the others follow. */
export class TypeGraph {
  /** number of nodes */
  readonly size: number
  /** second word of each node's record: kind, vlen, kind_flag */
  readonly infos: Uint32Array
  /** name of each node, numbered by content; 0 for none */
  readonly names: Int32Array
  /** label of each node, numbered in the order in which they come up */
  readonly labels: Int32Array
  readonly labelCount: number
  readonly #firsts = new Map<Btf, number>()
  readonly #edges: Int32Array
  /** where in `#edges` those of a node begin, and in the end where the last's end */
  readonly #starts: Int32Array

  /** Errors: `unsupported` for a kind that only a layout section describes. */
  constructor(base: Btf, modules: readonly Btf[]) {
    let size = base.endId
    for (const module of modules) {
      this.#firsts.set(module, size)
      size += module.typeCount
    }
    this.size = size
    this.infos = new Uint32Array(size)
    this.names = new Int32Array(size)
    this.labels = new Int32Array(size)
    this.#starts = new Int32Array(size + 1)
    const names = new NameTable()
    const labels = new Map<string, number>()
    const edges: number[] = []
    let node = 0
    for (const btf of [base, ...modules]) {
      for (let id = node === 0 ? 0 : btf.startId; id < btf.endId; id++) {
        const words = readRecord(btf, id, names, (to) => edges.push(this.nodeOf(btf, to)))
        // libbpf never takes two variables or two sections for one
        const key = isPlace(btf.kind(id)) ? `place ${node}` : words.join()
        const label = labels.get(key) ?? labels.size
        labels.set(key, label)
        this.labels[node] = label
        this.names[node] = words[0]!
        this.infos[node] = words[1]!
        this.#starts[++node] = edges.length
      }
    }
    this.labelCount = labels.size
    this.#edges = Int32Array.from(edges)
  }

  /** The node of a type, by the id that it has in one of the BTFs. */
  nodeOf(btf: Btf, id: number): number {
    const first = this.#firsts.get(btf)
    return first === undefined || id < btf.startId ? id : first + id - btf.startId
  }

  /** The nodes that a node leads to. */
  edgesOf(node: number): Int32Array {
    return this.#edges.subarray(this.#starts[node], this.#starts[node + 1])
  }
}

function isPlace(kind: number): boolean {
  return kind === KIND.VAR || kind === KIND.DATASEC
}

/** The words of a record, names by number, the first its own; `refer` gets, in order, the ids, which are left out. */
function readRecord(
  btf: Btf,
  id: number,
  names: NameTable,
  refer: (id: number) => void,
): readonly number[] {
  if (id === 0) return [0, 0]
  const kind = btf.kind(id)
  const layout = KINDS[kind]
  if (!layout) throw new BtfError('unsupported', `type ${id} is ${kindName(kind)}`)
  const words = [names.number(btf, btf.word(id, 0)), btf.word(id, 4)]
  if (layout.third === 'size') words.push(btf.word(id, 8))
  for (const at of layout.ids) refer(btf.word(id, at))
  const elements = HEADER_SIZE + layout.payload
  for (let at = HEADER_SIZE; at < elements; at += 4) {
    if (!layout.ids.includes(at)) words.push(btf.word(id, at))
  }
  if (layout.element === 0) return words
  for (let i = 0; i < btf.vlen(id); i++) {
    const element = elements + i * layout.element
    for (let at = 0; at < layout.element; at += 4) {
      const word = btf.word(id, element + at)
      if (at === layout.elementId) refer(word)
      else words.push(at === layout.elementName ? names.number(btf, word) : word)
    }
  }
  return words
}

/** Numbers for strings: the same text has the same, wherever it is stored. */
class NameTable {
  readonly #numbers = new Map<string, number>([['', 0]])
  /** by BTF and offset in its strings, one more than the number */
  readonly #known = new Map<Btf, Int32Array>()

  number(btf: Btf, offset: number): number {
    let home = btf
    while (offset < home.stringsStart && home.base) home = home.base
    let known = this.#known.get(home)
    if (!known) {
      known = new Int32Array(home.strings.length)
      this.#known.set(home, known)
    }
    const at = offset - home.stringsStart
    if (known[at] === 0) {
      const text = btf.stringBytes(offset).toString('latin1')
      const number = this.#numbers.get(text) ?? this.#numbers.size
      this.#numbers.set(text, number)
      known[at] = number + 1
    }
    return known[at]! - 1
  }
}
