/*
 * Numbers of which each can be taken once. Finding the next one that is free takes almost constant time, however many
 * were taken before, so a hostile order of taking cannot make it slow (union-find with path halving).
 */

export class FreeList {
  /** a free number itself; for one that was taken, a number on the way to the next free one */
  readonly #next: Int32Array
  readonly end: number

  /** The numbers from 0 up to, but without, `end`; that one is always free. */
  constructor(end: number) {
    this.end = end
    this.#next = new Int32Array(end + 1)
    for (let i = 0; i <= end; i++) this.#next[i] = i
  }

  /** The first free number from `from` on; `end` for none. */
  from(from: number): number {
    const next = this.#next
    let at = from
    while (next[at] !== at) {
      const skipped = next[next[at]!]!
      next[at] = skipped
      at = skipped
    }
    return at
  }

  /** Takes a number below `end`. */
  take(number: number): void {
    this.#next[number] = number + 1
  }

  isFree(number: number): boolean {
    return this.#next[number] === number
  }
}
