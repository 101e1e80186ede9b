/*
 * A partition of the numbers 0 … n-1 that is only ever made finer: numbers are marked, then every set that has both is
 * split into its marked and its other ones. Marking one takes constant time and splitting as long as marking did, since
 * the smaller part is the one that moves (A. Valmari, “Fast brief practical DFA minimization”, 2012).
 */

export class Partition {
  /** number of sets; they are numbered from 0, a new one comes last */
  count: number
  /** the numbers, those of one set side by side, its marked ones first */
  readonly #elements: Int32Array
  /** where in `#elements` each number is */
  readonly #places: Int32Array
  readonly #sets: Int32Array
  readonly #starts: Int32Array
  readonly #ends: Int32Array
  readonly #marked: Int32Array
  readonly #touched: number[] = []

  /** Begins with the set that `groups` tells for each number, from 0 to below `count`. */
  constructor(groups: Int32Array, count: number) {
    const size = groups.length
    this.count = count
    this.#sets = groups.slice()
    // sets that begin empty stay, so there can be more sets than numbers
    this.#starts = new Int32Array(size + count)
    this.#ends = new Int32Array(size + count)
    this.#marked = new Int32Array(size + count)
    this.#elements = new Int32Array(size)
    this.#places = new Int32Array(size)
    for (const set of groups) this.#ends[set]!++
    for (let set = 1; set < count; set++) {
      this.#starts[set] = this.#ends[set - 1]!
      this.#ends[set]! += this.#ends[set - 1]!
    }
    const next = this.#starts.slice()
    for (let element = 0; element < size; element++) this.#put(element, next[groups[element]!]!++)
  }

  /** The set that a number is in. */
  setOf(element: number): number {
    return this.#sets[element]!
  }

  /** The numbers of a set, as they lie: marking and splitting move them. */
  members(set: number): Int32Array {
    return this.#elements.subarray(this.#starts[set], this.#ends[set])
  }

  /** Marks a number, until the next split. */
  mark(element: number): void {
    const set = this.#sets[element]!
    const place = this.#places[element]!
    const free = this.#starts[set]! + this.#marked[set]!
    if (place < free) return
    this.#put(this.#elements[free]!, place)
    this.#put(element, free)
    if (this.#marked[set]!++ === 0) this.#touched.push(set)
  }

  /** Splits every set of which some numbers are marked and some are not, and takes all marks away. */
  split(): void {
    for (let set = this.#touched.pop(); set !== undefined; set = this.#touched.pop()) {
      const [start, end] = [this.#starts[set]!, this.#ends[set]!]
      const middle = start + this.#marked[set]!
      this.#marked[set] = 0
      if (middle === end) continue
      const added = this.count++
      if (middle - start <= end - middle) {
        this.#starts[added] = start
        this.#ends[added] = this.#starts[set] = middle
      } else {
        this.#starts[added] = this.#ends[set] = middle
        this.#ends[added] = end
      }
      for (const element of this.members(added)) this.#sets[element] = added
    }
  }

  #put(element: number, place: number): void {
    this.#elements[place] = element
    this.#places[element] = place
  }
}
