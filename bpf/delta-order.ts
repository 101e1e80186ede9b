/*
 * The order of a list in terms of another: which elements of the parent's list follow each other in the child's, and
 * where new ones stand between them. A cursor goes through the parent's list and skips what was taken before. A segment
 * is a movement of the cursor, a number of elements to take, and a number of new elements. delta.md describes the codes.
 */

import { type Coder, invalid, STREAM } from './delta-stream.ts'
import { FreeList } from './free-list.ts'
import { ScratchLists } from './scratch-lists.ts'

/** Places where the cursor was before it moved far, newest first; codes of movements to them are their indexes. */
const RETURNS = 4
const FORWARD = 4
const BACKWARD = 5
const STAY = 6
/** Near movements have codes from this one on. They pass over elements that are gone, so nobody returns. */
const NEAR = 6
const MAX_NEAR = 16

/** The streams of an order: of the types, or of the strings. */
export interface OrderStreams {
  readonly moves: number
  readonly high: number
  readonly low: number
  readonly runs: number
  readonly news: number
}

export const TYPE_ORDER: OrderStreams = {
  moves: STREAM.typeMoves,
  high: STREAM.typeMovesHigh,
  low: STREAM.typeMovesLow,
  runs: STREAM.typeRuns,
  news: STREAM.typeNews,
}

export const STRING_ORDER: OrderStreams = {
  moves: STREAM.stringMoves,
  high: STREAM.stringMovesHigh,
  low: STREAM.stringMovesLow,
  runs: STREAM.stringRuns,
  news: STREAM.stringNews,
}

/** The cursor over the parent's list, for both directions. Elements have numbers from 1. */
class OrderCursor {
  at = 1
  readonly #coder: Coder
  readonly #streams: OrderStreams
  readonly #free: FreeList
  readonly #returns = new Int32Array(RETURNS).fill(1)

  constructor(coder: Coder, streams: OrderStreams, parents: number, scratch: ScratchLists) {
    this.#coder = coder
    this.#streams = streams
    this.#free = new FreeList(parents + 1, scratch.take('order', parents + 2))
  }

  /** Goes to the next free element, or one past the last, if the one at the cursor was taken. */
  settle(): void {
    this.at = this.#free.from(this.at)
  }

  /** Takes the element at the cursor, which is free, and those behind it, at most `most`. Returns how many it took. */
  take(most: number): number {
    const taken = this.#free.takeRun(this.at, most)
    this.at += taken
    return taken
  }

  /** Codes the movement to an element. */
  move(to: number): void {
    const { moves, high, low } = this.#streams
    const coder = this.#coder
    const from = this.at
    const code = coder.byte(moves, coder.writing ? this.#codeOf(to) : 0)
    if (code === STAY) return
    if (code < RETURNS) {
      this.at = this.#free.from(this.#returns[code]!)
      this.#remember(from, code)
    } else if (code <= BACKWARD) {
      const distance = Math.abs(to - from)
      const far = coder.unsigned(high, distance >>> 8) * 256 + coder.byte(low, distance & 0xff)
      this.at += code === FORWARD ? far : -far
      this.#remember(from, RETURNS - 1)
    } else {
      const near = code - NEAR
      this.at += near & 1 ? (near + 1) >> 1 : -(near >> 1)
    }
    if (!(this.at >= 1 && this.at <= this.#free.end)) invalid(`a cursor at ${this.at}`)
  }

  #codeOf(to: number): number {
    const distance = to - this.at
    if (distance === 0) return STAY
    for (let i = 0; i < RETURNS; i++) if (this.#free.from(this.#returns[i]!) === to) return i
    if (Math.abs(distance) > MAX_NEAR) return distance > 0 ? FORWARD : BACKWARD
    return NEAR + (distance > 0 ? distance * 2 - 1 : distance * -2)
  }

  #remember(place: number, from: number): void {
    this.#returns.copyWithin(1, 0, from)
    this.#returns[0] = place
  }
}

/** Writes an order: by number of the child's elements, from 1, the parent's numbers of them, or 0 for new ones. */
export function writeOrder(
  coder: Coder,
  streams: OrderStreams,
  parents: number,
  sources: Int32Array,
): void {
  const cursor = new OrderCursor(coder, streams, parents, new ScratchLists())
  for (let i = 1; i < sources.length; ) {
    cursor.settle()
    // where a segment begins with a new element, the cursor stays
    cursor.move(sources[i] || cursor.at)
    const start = i
    for (; i < sources.length && sources[i] !== 0; i++) {
      cursor.settle()
      if (sources[i] !== cursor.at) break
      cursor.take(1)
    }
    const taken = i - start
    for (; i < sources.length && sources[i] === 0; i++);
    const added = i - start - taken
    coder.unsigned(streams.runs, taken * 2 + (added > 0 ? 1 : 0))
    if (added > 0) coder.unsigned(streams.news, added - 1)
  }
}

/**
 * Reads an order of `children` elements. `from` has the parent's values by number, from 1. Returns the child's values by
 * number; new elements have -1, and `fresh` their numbers. Errors: `invalid_delta`.
 */
export function readOrder(
  coder: Coder,
  streams: OrderStreams,
  from: Int32Array,
  children: number,
  scratch: ScratchLists,
): { values: Int32Array; fresh: Int32Array } {
  const parents = from.length - 1
  const cursor = new OrderCursor(coder, streams, parents, scratch)
  const values = new Int32Array(children + 1)
  let fresh = new Int32Array(64)
  let freshCount = 0
  for (let i = 1; i <= children; ) {
    cursor.settle()
    cursor.move(0)
    const run = coder.unsigned(streams.runs, 0)
    const taken = run >>> 1
    const added = run & 1 ? coder.unsigned(streams.news, 0) + 1 : 0
    if (run === 0 || taken + added > children + 1 - i) {
      invalid(`a segment of ${taken} and ${added} elements at ${i} of ${children}`)
    }
    for (let left = taken; left > 0; ) {
      cursor.settle()
      const first = cursor.at
      const run = cursor.take(left)
      if (run === 0) invalid('a segment beyond the end of the parent')
      values.set(from.subarray(first, first + run), i)
      i += run
      left -= run
    }
    if (freshCount + added > fresh.length) {
      const grown = new Int32Array(Math.max(freshCount + added, fresh.length * 2))
      grown.set(fresh)
      fresh = grown
    }
    for (let left = added; left > 0; left--) {
      fresh[freshCount++] = i
      values[i++] = -1
    }
  }
  return { values, fresh: fresh.subarray(0, freshCount) }
}
