/*
 * The order of a list in terms of another: which elements of the parent's list follow each other in the child's, and
 * where new ones stand between them. A cursor goes through the parent's list and skips what was taken before. A segment
 * is a movement of the cursor, a number of elements to take, and a number of new elements. delta.md describes the codes.
 */

import { type DeltaReader, type DeltaWriter, invalid } from './delta-stream.ts'
import { FreeList } from './free-list.ts'

/** Places where the cursor was before it moved far, newest first. */
const RETURNS = 4
/** A movement over no more elements than this passes over elements that are gone; nobody returns to them. */
const SHORT_MOVE = 16

/** The cursor over the parent's list, for both directions. Elements have numbers from 1. */
class OrderCursor {
  at = 1
  readonly #free: FreeList
  readonly #returns = new Int32Array(RETURNS).fill(1)

  constructor(parents: number) {
    this.#free = new FreeList(parents + 1)
  }

  /** Goes to the next free element, or one past the last, if the one at the cursor was taken. */
  settle(): void {
    this.at = this.#free.from(this.at)
  }

  /** Takes the next free element. Returns its number, or one past the last, which is not there. */
  take(): number {
    const taken = this.#free.from(this.at)
    if (taken === this.#free.end) return taken
    this.#free.take(taken)
    this.at = taken + 1
    return taken
  }

  /** The code of a movement to an element. */
  codeOf(to: number): number {
    for (let i = 0; i < RETURNS; i++) if (this.#free.from(this.#returns[i]!) === to) return i
    const distance = to - this.at
    return RETURNS + (distance > 0 ? distance * 2 - 1 : distance * -2)
  }

  move(code: number): void {
    const from = this.at
    if (code < RETURNS) {
      this.at = this.#free.from(this.#returns[code]!)
      this.#remember(from, code)
      return
    }
    const distance =
      (code - RETURNS) % 2 === 1 ? (code - RETURNS + 1) / 2 : -(code - RETURNS) / 2
    this.at += distance
    if (!(this.at >= 1 && this.at <= this.#free.end)) invalid(`a cursor at ${this.at}`)
    if (Math.abs(distance) > SHORT_MOVE) this.#remember(from, RETURNS - 1)
  }

  #remember(place: number, from: number): void {
    this.#returns.copyWithin(1, 0, from)
    this.#returns[0] = place
  }
}

/** Writes an order: for each element of the child the parent's number of it, or 0 for a new one. */
export function writeOrder(
  writer: DeltaWriter,
  stream: number,
  parents: number,
  sources: Int32Array,
): void {
  const cursor = new OrderCursor(parents)
  for (let i = 1; i < sources.length; ) {
    cursor.settle()
    const first = sources[i]!
    // a new element at the beginning of a segment: the cursor stays
    const moves = first !== 0 && first !== cursor.at
    const code = moves ? cursor.codeOf(first) : RETURNS
    const start = i
    if (moves) cursor.move(code)
    for (; i < sources.length && sources[i] !== 0; i++) {
      cursor.settle()
      if (sources[i] !== cursor.at) break
      cursor.take()
    }
    const copied = i - start
    for (; i < sources.length && sources[i] === 0; i++);
    writer.unsigned(stream, code)
    writer.unsigned(stream, copied)
    writer.unsigned(stream, i - start - copied)
  }
}

/**
 * Reads an order of `children` elements. `from` has the parent's values by number, from 1. Returns the child's values by
 * number; new elements have -1, and `fresh` their numbers. Errors: `invalid_delta`.
 */
export function readOrder(
  reader: DeltaReader,
  stream: number,
  from: Int32Array,
  children: number,
): { values: Int32Array; fresh: Int32Array } {
  const parents = from.length - 1
  const cursor = new OrderCursor(parents)
  const values = new Int32Array(children + 1)
  let fresh = new Int32Array(64)
  let freshCount = 0
  for (let i = 1; i <= children; ) {
    cursor.settle()
    const code = reader.unsigned(stream, 0)
    if (code !== RETURNS) cursor.move(code)
    const copied = reader.unsigned(stream, 0)
    const added = reader.unsigned(stream, 0)
    if (copied + added === 0 || copied + added > children + 1 - i) {
      invalid(`a segment of ${copied} and ${added} elements at ${i} of ${children}`)
    }
    for (let left = copied; left > 0; left--) {
      const taken = cursor.take()
      if (taken > parents) invalid('a segment beyond the end of the parent')
      values[i++] = from[taken]!
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
