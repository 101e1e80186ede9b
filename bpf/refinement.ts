/*
 * The coarsest partition of a graph's nodes in which any two nodes of a block have one label and lead, edge for edge,
 * to the same blocks: the graph's circles are no matter. It begins with a block for each label and splits blocks until
 * it holds. The edges are partitioned too, by their place among their node's edges and by the block that they lead to;
 * every new set of edges splits blocks by where they come from, every new block splits sets of edges by where they lead.
 * For m edges that takes m log m steps, whatever the graph (Hopcroft's algorithm in the form of A. Valmari,
 * “Fast brief practical DFA minimization”, 2012).
 */

import { Partition } from './partition.ts'

export class Refinement {
  readonly blocks: Partition
  readonly #edges: Partition
  /** by edge, the node that it comes from */
  readonly #tails: Int32Array
  /** edges in order of the nodes they lead to, and where those of each node begin */
  readonly #incoming: Int32Array
  readonly #starts: Int32Array
  // what the first block says of edges, the others say too
  #nextBlock = 1
  #nextEdges = 0

  /**
   * Labels number the nodes' first blocks, from 0 to below `labelCount`; `edgesOf` says where a node leads. Nodes with
   * one label have as many edges.
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

  /** Splits blocks until none can be; once more after some were split from outside. */
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
