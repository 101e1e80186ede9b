/*
 * Lists of numbers that are needed during one call and then again. A chain applies dozens of deltas, each with megabytes
 * of them: to take new ones would cost more than the deltas.
 */

export class ScratchLists {
  readonly #lists = new Map<string, Int32Array<ArrayBuffer>>()

  /** A list of so many equal numbers. The list that was taken under the same name before is no longer valid. */
  take(name: string, length: number, value = 0): Int32Array<ArrayBuffer> {
    const kept = this.#lists.get(name)
    if (kept && kept.length >= length) return kept.subarray(0, length).fill(value)
    const list = new Int32Array(Math.ceil(length * 1.25))
    this.#lists.set(name, list)
    return value === 0 ? list.subarray(0, length) : list.subarray(0, length).fill(value)
  }
}
