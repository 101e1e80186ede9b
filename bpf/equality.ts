/*
 * Finds equal types. Two types are equal if they have the same label and refer, in order, to equal types; types in
 * cycles are equal unless a difference is found somewhere (see refinement.ts).
 *
 * Declarations are FWDs and enums without values. As in libbpf's `btf_dedup_resolve_fwds` and `btf_dedup_prim_type`, a
 * declaration is resolved to the definition of its name if there is exactly one. A declaration that the base has too
 * stays the base's. The base is not changed, so types that refer to its declaration differ from types that refer to a
 * module's definition.
 *
 * The number of definitions depends on which types are equal, and this depends on which declarations are resolved. So a
 * declaration whose definitions all have the same label starts as if it were the first of them. After each refinement,
 * declarations whose definitions turned out to differ become unresolved, and refinement continues. This only ever makes
 * more types differ, so no declaration is given up that could stay resolved, and the others have one definition.
 */

import { isComposite, isEnum } from './compatible.ts'
import type { TypeGraph } from './graph.ts'
import { infoFlag, infoKind, infoVlen, KIND } from './kind.ts'
import { Refinement } from './refinement.ts'

/**
 * Maps every node of the graph to its representative: the first equal node, or the definition of a resolved
 * declaration. Nodes of the base, those below `baseSize`, represent themselves.
 */
export function findEqual(graph: TypeGraph, baseSize: number): Int32Array {
  return new Equality(graph, baseSize).find()
}

class Equality {
  readonly #graph: TypeGraph
  readonly #baseSize: number
  /** node → the first declaration with its label; other nodes → themselves */
  readonly #declared: Int32Array
  /** resolved declaration → all definitions of its name */
  readonly #targets = new Map<number, readonly number[]>()
  /** definition → a declaration that is resolved to it; enum definitions never differ later, so any one is enough */
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
      const split = this.#splitDeclarations(seen)
      seen = blocks.count
      for (const declaration of split) {
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

  /** Resolves every declaration that only modules have and whose definitions have the same label. */
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

  /** Resolved declarations whose definitions are in different blocks now; only blocks from `seen` on are new. */
  #splitDeclarations(seen: number): number[] {
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

/** True if a type is a FWD, or an enum without values, which is how BTF declares an enum. */
function isDeclaration(info: number): boolean {
  const kind = infoKind(info)
  return kind === KIND.FWD || (isEnum(kind) && infoVlen(info) === 0)
}

/** True if a declaration fits a definition, apart from the names. */
function declares(declaration: number, definition: number): boolean {
  if (infoKind(declaration) !== KIND.FWD) return true
  return infoKind(definition) === (infoFlag(declaration) ? KIND.UNION : KIND.STRUCT)
}

/** Key of a name: structs and unions share a name space, enums have their own. */
function nameKey(info: number, name: number): string {
  return `${isEnum(infoKind(info)) ? 'enum' : 'struct'} ${name}`
}
