/* Keys of forms in memory: a table with open addressing, from the 64 bits of a key to the number of a form. */

const START = 1 << 17

export class FormKeys {
  #count = 0
  #low = new Int32Array(START)
  #high = new Int32Array(START)
  #forms = new Int32Array(START)
  /** by slot: one more than the index of an entry; 0 for none */
  #slots = new Int32Array(START * 2)

  get size(): number {
    return this.#count
  }

  /** The number of the form with a key; -1 if there is none. */
  find(low: number, high: number): number {
    const mask = this.#slots.length - 1
    for (let slot = slotOf(low, high) & mask; ; slot = (slot + 1) & mask) {
      const entry = this.#slots[slot]!
      if (entry === 0) return -1
      if (this.#low[entry - 1] === low && this.#high[entry - 1] === high)
        return this.#forms[entry - 1]!
    }
  }

  /** Adds a key that is not there. */
  add(low: number, high: number, form: number): void {
    const at = this.#count++
    if (at === this.#forms.length) this.#grow()
    this.#low[at] = low
    this.#high[at] = high
    this.#forms[at] = form
    this.#place(at)
  }

  #place(entry: number): void {
    const mask = this.#slots.length - 1
    let slot = slotOf(this.#low[entry]!, this.#high[entry]!) & mask
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask
    this.#slots[slot] = entry + 1
  }

  #grow(): void {
    const length = this.#forms.length * 2
    this.#low = grown(this.#low, length)
    this.#high = grown(this.#high, length)
    this.#forms = grown(this.#forms, length)
    this.#slots = new Int32Array(length * 2)
    for (let entry = 0; entry < length / 2; entry++) this.#place(entry)
  }
}

const slotOf = (low: number, high: number): number => low ^ (high >>> 7)

/** A copy with more elements. */
export function grown(old: Int32Array<ArrayBuffer>, length: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(length)
  larger.set(old)
  return larger
}
