/*
 * A partition of the numbers 0 … n-1 into sets, which can only be refined: callers mark numbers, then split every set
 * into its marked and its unmarked numbers. Marking takes constant time. Splitting takes as long as the marking before
 * it, because only the smaller part moves (A. Valmari, “Fast brief practical DFA minimization”, 2012).
 */

export class Partition {
  /** number of sets; they are numbered from 0, new sets come last */
  count: number
  /** the numbers, grouped by set; in each set marked numbers come first */
  readonly #elements: Int32Array
  /** number → its index in `#elements` */
  readonly #places: Int32Array
  readonly #sets: Int32Array
  readonly #starts: Int32Array
  readonly #ends: Int32Array
  readonly #marked: Int32Array
  readonly #touched: number[] = []

  /** Starts with the sets in `groups`: the set of each number, from 0 to `count` - 1. */
  constructor(groups: Int32Array, count: number) {
    const size = groups.length
    this.count = count
    this.#sets = groups.slice()
    // initial sets may be empty, so there can be more sets than numbers
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

  /** The set of a number. */
  setOf(element: number): number {
    return this.#sets[element]!
  }

  /** A view of the numbers of a set; marking and splitting change it. */
  members(set: number): Int32Array {
    return this.#elements.subarray(this.#starts[set], this.#ends[set])
  }

  /** Marks a number until the next split. */
  mark(element: number): void {
    const set = this.#sets[element]!
    const place = this.#places[element]!
    const free = this.#starts[set]! + this.#marked[set]!
    if (place < free) return
    this.#put(this.#elements[free]!, place)
    this.#put(element, free)
    if (this.#marked[set]!++ === 0) this.#touched.push(set)
  }

  /** Splits every set with both marked and unmarked numbers, then removes all marks. */
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
