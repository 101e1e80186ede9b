/*
 * Computes the coarsest partition of a graph's nodes in which the nodes of a block have the same label and lead, edge for
 * edge, to the same blocks. The graph may have cycles. It starts with one block per label and splits blocks until the
 * condition holds. The edges are partitioned too, by their position among their node's edges and by the block of their
 * target. Every new set of edges splits blocks by the edges' sources; every new block splits sets of edges by their
 * targets. This takes O(m log m) steps for m edges (Hopcroft's algorithm in the form of A. Valmari, “Fast brief practical
 * DFA minimization”, 2012).
 */

import { Partition } from './partition.ts'

export class Refinement {
  readonly blocks: Partition
  readonly #edges: Partition
  /** edge → its source */
  readonly #tails: Int32Array
  /** edges sorted by target; `#starts` has the index of the first edge to each node */
  readonly #incoming: Int32Array
  readonly #starts: Int32Array
  // splitting by all blocks but one is enough, so the first block is skipped
  #nextBlock = 1
  #nextEdges = 0

  /**
   * `labels` has the initial block of each node, from 0 to `labelCount` - 1; `edgesOf` returns the targets of a node's
   * edges. Nodes with the same label have the same number of edges.
   */
  constructor(labels: Int32Array, labelCount: number, edgesOf: (node: number) => Int32Array) {
    this.blocks = new Partition(labels, labelCount)
    const tails: number[] = []
    const heads: number[] = []
    const places: number[] = []
    let width = 0
    for (let node = 0; node < labels.length; node++) {
      const edges = edgesOf(node)
      width = Math.max(width, edges.length)
      for (let place = 0; place < edges.length; place++) {
        tails.push(node)
        heads.push(edges[place]!)
        places.push(place)
      }
    }
    this.#tails = Int32Array.from(tails)
    this.#edges = new Partition(Int32Array.from(places), width)
    this.#starts = new Int32Array(labels.length + 1)
    for (const head of heads) this.#starts[head + 1]!++
    for (let node = 0; node < labels.length; node++) this.#starts[node + 1]! += this.#starts[node]!
    this.#incoming = new Int32Array(heads.length)
    const next = this.#starts.slice()
    heads.forEach((head, edge) => {
      this.#incoming[next[head]!++] = edge
    })
  }

  /** Splits blocks until the condition holds. Callers may split blocks themselves and then run it again. */
  run(): void {
    this.#splitEdges()
    while (this.#nextEdges < this.#edges.count) {
      for (const edge of this.#edges.members(this.#nextEdges)) this.blocks.mark(this.#tails[edge]!)
      this.blocks.split()
      this.#nextEdges++
      this.#splitEdges()
    }
  }

  #splitEdges(): void {
    for (; this.#nextBlock < this.blocks.count; this.#nextBlock++) {
      for (const node of this.blocks.members(this.#nextBlock)) {
        for (let i = this.#starts[node]!; i < this.#starts[node + 1]!; i++) {
          this.#edges.mark(this.#incoming[i]!)
        }
      }
      this.#edges.split()
    }
  }
}
