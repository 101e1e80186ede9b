/*
 * The types of several BTFs as one graph. A node is a type, its label all that the type says itself (kind, name, size,
 * names and offsets of its members …), its edges, in their order, the types that it refers to. Two nodes with one label
 * have as many edges.
 */

import type { Btf } from './btf.ts'
import { infoKind, KIND } from './kind.ts'
import { readRecord } from './raw-type.ts'
import type { MergedStrings } from './strings.ts'

/** A base and split BTFs over it. The base's nodes are its type ids, void too; those of the others follow. */
export class TypeGraph {
  /** number of nodes */
  readonly size: number
  /** second word of each node's record: kind, vlen, kind_flag */
  readonly infos: Uint32Array
  /** name of each node, as its offset in the merged strings; 0 for none */
  readonly names: Int32Array
  /** label of each node, numbered in the order in which they come up */
  readonly labels: Int32Array
  readonly labelCount: number
  readonly #firsts = new Map<Btf, number>()
  readonly #edges: Int32Array
  /** where in `#edges` those of a node begin, and in the end where the last's end */
  readonly #starts: Int32Array

  /** Errors: `unsupported` for a kind that only a layout section describes. */
  constructor(base: Btf, modules: readonly Btf[], strings: MergedStrings) {
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
    const labels = new Map<string, number>()
    const edges: number[] = []
    let node = 0
    const add = (words: readonly number[]) => {
      // libbpf never takes two variables or two sections for one
      const key = isPlace(words[1]!) ? `place ${node}` : words.join()
      const label = labels.get(key) ?? labels.size
      labels.set(key, label)
      this.labels[node] = label
      this.names[node] = words[0]!
      this.infos[node] = words[1]!
      this.#starts[++node] = edges.length
    }
    add([0, 0])
    for (const btf of [base, ...modules]) {
      const nameOf = (offset: number) => strings.offset(btf, offset)
      const idOf = (id: number) => {
        edges.push(this.nodeOf(btf, id))
        return 0
      }
      for (let id = btf.startId; id < btf.endId; id++) {
        const words: number[] = []
        readRecord(btf, id, words, nameOf, idOf)
        add(words)
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

function isPlace(info: number): boolean {
  const kind = infoKind(info)
  return kind === KIND.VAR || kind === KIND.DATASEC
}
