/*
 * Numbers of which each can be taken once. Finding the next one that is free takes almost constant time, however many
 * were taken before, so a hostile order of taking cannot make it slow (union-find with path halving).
 */

export class FreeList {
  /** 0 for a free number; for one that was taken, a number on the way to the next free one */
  readonly #next: Int32Array
  readonly end: number

  /** The numbers from 0 up to, but without, `end`; that one is always free. `next` has `end` + 1 zeros. */
  constructor(end: number, next = new Int32Array(end + 1)) {
    this.end = end
    this.#next = next
  }

  /** The first free number from `from` on; `end` for none. */
  from(from: number): number {
    const next = this.#next
    let at = from
    for (let after = next[at]!; after !== 0; after = next[at]!) {
      const skipped = next[after]!
      if (skipped === 0) return after
      next[at] = skipped
      at = skipped
    }
    return at
  }

  /** Takes a number below `end`. */
  take(number: number): void {
    this.#next[number] = number + 1
  }

  /** Takes free numbers from `from` on that follow each other, at most `most`. Returns how many it took. */
  takeRun(from: number, most: number): number {
    const next = this.#next
    const last = Math.min(from + most, this.end)
    let at = from
    while (at < last && next[at] === 0) next[at] = ++at
    return at - from
  }

  isFree(number: number): boolean {
    return this.#next[number] === 0
  }
}
