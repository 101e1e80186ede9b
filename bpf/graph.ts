/*
 * The types of several BTFs as one graph. A node is a type. Its label is the content of the type without references:
 * kind, name, size, names and offsets of members, and so on. Its edges are the types that it refers to, in order. Nodes
 * with the same label have the same number of edges.
 */

import type { Btf } from './btf.ts'
import { infoKind, KIND } from './kind.ts'
import { readRecord } from './raw-type.ts'
import type { MergedStrings } from './strings.ts'

/** The graph of a base and split BTFs over it. The base's nodes are its type ids, with void; the others follow. */
export class TypeGraph {
  /** number of nodes */
  readonly size: number
  /** second word of each node's record: kind, vlen, kind_flag */
  readonly infos: Uint32Array
  /** name of each node as an offset in the merged strings; 0 for none */
  readonly names: Int32Array
  /** label of each node; labels are numbered in order of first use */
  readonly labels: Int32Array
  readonly labelCount: number
  readonly #firsts = new Map<Btf, number>()
  readonly #edges: Int32Array
  /** node → index of its first edge in `#edges`, plus one entry for the end */
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
      // libbpf never deduplicates variables or sections; the calls of a LOCSEC are those of one module
      const key = isStorage(words[1]!) ? `storage ${node}` : words.join()
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

  /** The node of a type, by its id in one of the BTFs. */
  nodeOf(btf: Btf, id: number): number {
    const first = this.#firsts.get(btf)
    return first === undefined || id < btf.startId ? id : first + id - btf.startId
  }

  /** The targets of a node's edges. */
  edgesOf(node: number): Int32Array {
    return this.#edges.subarray(this.#starts[node], this.#starts[node + 1])
  }
}

function isStorage(info: number): boolean {
  const kind = infoKind(info)
  return kind === KIND.VAR || kind === KIND.DATASEC || kind === KIND.LOCSEC
}
