/*
 * Which types are equal: those that say the same of themselves and refer, in order, to equal types; types that lead in
 * circles are equal unless there is a difference somewhere (see refinement.ts).
 *
 * Declarations (FWD, and enums without values): as in libbpf's `btf_dedup_resolve_fwds` and `btf_dedup_prim_type`, one
 * is resolved to the definition of its name if there is just one, and one that the base has too stays the base's. The
 * base is not changed, so types that lead to its declaration differ from those that lead to a module's definition.
 *
 * How many definitions there are depends on which are equal, and that on what is resolved. So a declaration whose
 * definitions all have one label begins as if it were one of them, with its references; when nothing more can be told
 * apart, those whose definitions fell apart are taken out, and telling apart goes on. Taking one out only ever makes
 * more types differ, so none is taken out that could stay, and those that stay have one definition.
 */

import { isComposite, isEnum } from './compatible.ts'
import type { TypeGraph } from './graph.ts'
import { infoFlag, infoKind, infoVlen, KIND } from './kind.ts'
import { Refinement } from './refinement.ts'

/**
 * For every node of the graph the one that stands for it: the first that is equal, or for a declaration the definition
 * that it is resolved to. Those of the base, the nodes below `baseSize`, stand for themselves.
 */
export function findEqual(graph: TypeGraph, baseSize: number): Int32Array {
  return new Equality(graph, baseSize).find()
}

class Equality {
  readonly #graph: TypeGraph
  readonly #baseSize: number
  /** for a declaration the first with its label, for all else the node itself */
  readonly #declared: Int32Array
  /** by resolved declaration, all definitions of its name */
  readonly #targets = new Map<number, readonly number[]>()
  /** by one of those, the declaration: for an enum, whose definitions do not fall apart, any */
  readonly #declarations = new Map<number, number>()
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
      for (const declaration of apart) {
        this.#targets.delete(declaration)
        blocks.mark(declaration)
      }
      blocks.split()
    } while (blocks.count > seen)
    return this.#firsts()
  }

  #firstDeclarations(): Int32Array {
    const { labels, infos } = this.#graph
    const firsts = new Map<number, number>()
    return labels.map((label, node) => {
      if (!isDeclaration(infos[node]!)) return node
      const first = firsts.get(label) ?? node
      firsts.set(label, first)
      return first
    })
  }

  /** Resolves every declaration that may be: one of modules alone, with definitions of its name that say the same. */
  #resolve(): void {
    const { labels, infos, names, size } = this.#graph
    const definitions = this.#definitions()
    for (let node = this.#baseSize; node < size; node++) {
      const info = infos[node]!
      if (!isDeclaration(info) || this.#declared[node] !== node) continue
      const targets = definitions.get(nameKey(info, names[node]!)) ?? []
      const [first] = targets
      if (first === undefined || targets.some((other) => labels[other] !== labels[first])) continue
      if (!declares(info, infos[first]!)) continue
      this.#targets.set(node, targets)
      for (const target of targets) this.#declarations.set(target, node)
    }
  }

  #definitions(): Map<string, number[]> {
    const { infos, names } = this.#graph
    const byName = new Map<string, number[]>()
    names.forEach((name, node) => {
      const info = infos[node]!
      const kind = infoKind(info)
      if (name === 0 || isDeclaration(info) || !(isComposite(kind) || isEnum(kind))) return
      const key = nameKey(info, name)
      const known = byName.get(key)
      if (known) known.push(node)
      else byName.set(key, [node])
    })
    return byName
  }

  /** Resolved declarations whose definitions are not in one block any more; those are in blocks since `seen`. */
  #fallenApart(seen: number): number[] {
    const { blocks } = this.#refinement
    const suspects = new Set<number>()
    for (let block = seen; block < blocks.count; block++) {
      for (const node of blocks.members(block)) {
        const declaration = this.#declarations.get(node)
        if (declaration !== undefined) suspects.add(declaration)
      }
    }
    return [...suspects].filter((declaration) => {
      const [first = declaration, ...others] = this.#targets.get(declaration) ?? []
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

/** A FWD, or an enum without values, which is how an enum is declared. */
function isDeclaration(info: number): boolean {
  const kind = infoKind(info)
  return kind === KIND.FWD || (isEnum(kind) && infoVlen(info) === 0)
}

/** Whether the one may declare the other, the names apart. */
function declares(declaration: number, definition: number): boolean {
  if (infoKind(declaration) !== KIND.FWD) return true
  return infoKind(definition) === (infoFlag(declaration) ? KIND.UNION : KIND.STRUCT)
}

/** Structs and unions share their names, enums have theirs. */
function nameKey(info: number, name: number): string {
  return `${isEnum(infoKind(info)) ? 'enum' : 'struct'} ${name}`
}
