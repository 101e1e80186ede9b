/** Pseudo-random numbers by mulberry32: equal seeds give equal numbers, neighbouring seeds different ones. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  /** An integer from 0 up to, but without, `end`. */
  below(end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end)
  }

  /** True with a probability of 1 in `n`. */
  once(n: number): boolean {
    return this.below(n) === 0
  }

  /** One element of a list. Errors: RangeError for an empty list. */
  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new RangeError('the list to pick from is empty')
    return list[this.below(list.length)] as T
  }
}
