/*
 * Which types are equal: those that say the same of themselves and refer, in order, to equal types; types that lead in
 * circles are equal unless there is a difference somewhere (see refinement.ts).
 *
 * Forward declarations: as in libbpf's `btf_dedup_resolve_fwds`, a FWD is resolved to the struct or union of its name
 * if there is just one, and as in `btf_dedup_prim_type` one that the base has too stays the base's. How many there are
 * depends on which are equal, and that on what is resolved. So a FWD whose structs all have one label begins as if it
 * were one of them, with its references; when nothing more can be told apart, the FWDs whose structs fell apart are
 * taken out, and telling apart goes on. Taking one out only ever makes more types differ, so no FWD is taken out that
 * could stay, and those that stay have one struct.
 */

import type { TypeGraph } from './graph.ts'
import { infoFlag, infoKind, KIND } from './kind.ts'
import { Refinement } from './refinement.ts'

/**
 * For every node of the graph the one that stands for it: the first that is equal, or for a FWD the struct or union
 * that it is resolved to. Those of the base, the nodes below `baseSize`, stand for themselves.
 */
export function findEqual(graph: TypeGraph, baseSize: number): Int32Array {
  return new Equality(graph, baseSize).find()
}

class Equality {
  readonly #graph: TypeGraph
  readonly #baseSize: number
  /** for a FWD the first with its label, for all else the node itself */
  readonly #declared: Int32Array
  /** by resolved FWD, all structs or unions of its name */
  readonly #targets = new Map<number, readonly number[]>()
  /** by one of those, the FWD */
  readonly #forwards = new Map<number, number>()
  readonly #refinement: Refinement

  constructor(graph: TypeGraph, baseSize: number) {
    this.#graph = graph
    this.#baseSize = baseSize
    this.#declared = this.#firstDeclarations()
    this.#resolve()
    const as = (node: number) => this.#targets.get(node)?.[0] ?? node
    this.#refinement = new Refinement(
      graph.labels.map((_, node) => graph.labels[as(node)]!),
      graph.labelCount,
      (node) => graph.edgesOf(as(node)).map((to) => this.#declared[to]!),
    )
  }

  find(): Int32Array {
    const { blocks } = this.#refinement
    let seen = blocks.count
    do {
      this.#refinement.run()
      const apart = this.#fallenApart(seen)
      seen = blocks.count
      for (const forward of apart) {
        this.#targets.delete(forward)
        blocks.mark(forward)
      }
      blocks.split()
    } while (blocks.count > seen)
    return this.#firsts()
  }

  #firstDeclarations(): Int32Array {
    const { labels, infos } = this.#graph
    const firsts = new Map<number, number>()
    return labels.map((label, node) => {
      if (infoKind(infos[node]!) !== KIND.FWD) return node
      const first = firsts.get(label) ?? node
      firsts.set(label, first)
      return first
    })
  }

  /** Resolves every FWD that may be: one of modules alone, with structs of its name that say the same. */
  #resolve(): void {
    const { labels, infos, names, size } = this.#graph
    const composites = this.#compositesByName()
    for (let node = this.#baseSize; node < size; node++) {
      const info = infos[node]!
      if (infoKind(info) !== KIND.FWD || this.#declared[node] !== node) continue
      const targets = composites.get(names[node]!) ?? []
      const [first] = targets
      if (first === undefined || targets.some((other) => labels[other] !== labels[first])) continue
      if (infoKind(infos[first]!) !== (infoFlag(info) ? KIND.UNION : KIND.STRUCT)) continue
      this.#targets.set(node, targets)
      for (const target of targets) this.#forwards.set(target, node)
    }
  }

  #compositesByName(): Map<number, number[]> {
    const { infos, names } = this.#graph
    const byName = new Map<number, number[]>()
    names.forEach((name, node) => {
      const kind = infoKind(infos[node]!)
      if (name === 0 || (kind !== KIND.STRUCT && kind !== KIND.UNION)) return
      const known = byName.get(name)
      if (known) known.push(node)
      else byName.set(name, [node])
    })
    return byName
  }

  /** Resolved FWDs whose structs are not in one block any more; they can only be among those in blocks since `seen`. */
  #fallenApart(seen: number): number[] {
    const { blocks } = this.#refinement
    const suspects = new Set<number>()
    for (let block = seen; block < blocks.count; block++) {
      for (const node of blocks.members(block)) {
        const forward = this.#forwards.get(node)
        if (forward !== undefined) suspects.add(forward)
      }
    }
    return [...suspects].filter((forward) => {
      const [first = forward, ...others] = this.#targets.get(forward) ?? []
      return others.some((other) => blocks.setOf(other) !== blocks.setOf(first))
    })
  }

  #firsts(): Int32Array {
    const { blocks } = this.#refinement
    const firsts = new Int32Array(blocks.count).fill(-1)
    for (let node = 0; node < this.#graph.size; node++) {
      const block = blocks.setOf(node)
      if (firsts[block]! < 0 && !this.#targets.has(node)) firsts[block] = node
    }
    return this.#declared.map((declared, node) =>
      node < this.#baseSize ? node : firsts[blocks.setOf(declared)]!,
    )
  }
}
