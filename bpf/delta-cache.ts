/*
 * Chains that were read last. A kernel of a series continues the one before it, so whoever reads a series in its order
 * applies one delta for each kernel, not a whole chain. A chain that several kernels continue is copied for each of them.
 */
import { DeltaChain } from './delta-decode.ts'

/** A delta of a line. */
export interface LineStep {
  /** stands for the whole line up to this delta, as the digest of its result does */
  name: string
  /** whether several other deltas continue this one */
  isShared: boolean
}

/** A chain, and the number of deltas of a line that it has already. */
export interface StartedChain {
  chain: DeltaChain
  applied: number
}

export class DeltaChainCache {
  readonly #max: number
  /** by the name of the last delta that was applied; the chain that was used last is last */
  readonly #chains = new Map<string, DeltaChain>()

  /** Keeps so many chains. A distribution's kernel takes some 10 MB, and each copy 1 MB more. */
  constructor(max: number) {
    this.#max = max
  }

  /**
   * Gives the chain that has most deltas of a line, and a new one if none has any. `line` begins with the root. The chain
   * is the caller's; the cache keeps a copy of one that others continue, too.
   */
  take(line: readonly LineStep[]): StartedChain {
    for (let at = line.length - 1; at >= 0; at--) {
      const { name, isShared } = line[at]!
      const chain = this.#chains.get(name)
      if (!chain) continue
      this.#chains.delete(name)
      if (isShared) this.#chains.set(name, chain)
      return { chain: isShared ? chain.clone() : chain, applied: at + 1 }
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
