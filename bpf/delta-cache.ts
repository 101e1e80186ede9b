/*
 * Chains that were read last. A kernel of a series continues the one before it, so whoever reads a series in its order
 * applies one delta for each kernel, not a whole chain.
 */
import { DeltaChain } from './delta-decode.ts'

/** A chain, and the number of deltas of a line that it has already. */
export interface StartedChain {
  chain: DeltaChain
  applied: number
}

export class DeltaChainCache {
  readonly #max: number
  /** by the name of the last delta that was applied; the chain that was used last is last */
  readonly #chains = new Map<string, DeltaChain>()

  /** Keeps so many chains. A chain of a distribution's kernel takes some 20 MB. */
  constructor(max: number) {
    this.#max = max
  }

  /**
   * Takes the chain that has most deltas of a line out of the cache; a new one if none has any. `line` has the names of
   * the deltas, first the root's. A name stands for the whole line up to it, as the digest of its result does.
   */
  take(line: readonly string[]): StartedChain {
    for (let at = line.length - 1; at >= 0; at--) {
      const name = line[at]!
      const chain = this.#chains.get(name)
      if (!chain) continue
      this.#chains.delete(name)
      return { chain, applied: at + 1 }
    }
    return { chain: new DeltaChain(), applied: 0 }
  }

  /** Keeps a chain under the name of its last delta. The caller must not use it any more. */
  keep(name: string, chain: DeltaChain): void {
    if (this.#max <= 0) return
    this.#chains.delete(name)
    this.#chains.set(name, chain)
    for (const oldest of this.#chains.keys()) {
      if (this.#chains.size <= this.#max) return
      this.#chains.delete(oldest)
    }
  }

  /** Forgets all chains. */
  clear(): void {
    this.#chains.clear()
  }
}
