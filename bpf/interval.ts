/*
 * Intervals of 64-bit numbers on a circle: from `first` upwards, past 2^64 - 1 on to 0 where needed. So one interval
 * holds a range of signed numbers, such as -4095 to 8, as well as one of unsigned numbers.
 */

export interface Interval {
  /** unsigned, below 2^64 */
  readonly first: bigint
  /** how many numbers follow `first`: 0 for a single number, 2^64 - 1 for all */
  readonly more: bigint
}

const MASK = (1n << 64n) - 1n
const SIGN = 1n << 63n

/** All 64-bit numbers. */
export const ALL: Interval = { first: 0n, more: MASK }

/** One number, taken modulo 2^64. */
export function only(value: bigint): Interval {
  return { first: value & MASK, more: 0n }
}

/** The numbers from `first` to `last`, both taken modulo 2^64. */
export function between(first: bigint, last: bigint): Interval {
  return { first: first & MASK, more: (last - first) & MASK }
}

/** The numbers with that many low bits: 0 to 2^bits - 1. */
export function lowBits(bits: number): Interval {
  return { first: 0n, more: (1n << BigInt(bits)) - 1n }
}

export function isAll({ more }: Interval): boolean {
  return more === MASK
}

export function lastOf({ first, more }: Interval): bigint {
  return (first + more) & MASK
}

export function sameInterval(a: Interval, b: Interval): boolean {
  return a.first === b.first && a.more === b.more
}

export function contains({ first, more }: Interval, value: bigint): boolean {
  return ((value - first) & MASK) <= more
}

/** True if every number of `inner` is in `outer`. */
export function covers(outer: Interval, inner: Interval): boolean {
  const start = (inner.first - outer.first) & MASK
  return isAll(outer) || (start <= outer.more && inner.more <= outer.more - start)
}

/** True if the unsigned numbers of an interval do not go past 2^bits - 1. */
export function fits({ first, more }: Interval, bits: number): boolean {
  return first + more < 1n << BigInt(bits)
}

/** The numbers of both: none, one or two intervals. */
export function intersect(a: Interval, b: Interval): Interval[] {
  if (isAll(a)) return [b]
  if (isAll(b)) return [a]
  const parts: Interval[] = []
  for (const [x, y] of [
    [a, b],
    [b, a],
  ] as const) {
    const start = (y.first - x.first) & MASK
    if (start > x.more) continue
    const room = x.more - start
    const inside = y.more <= room
    parts.push(inside ? y : { first: y.first, more: room })
  }
  // equal starts give the same part twice
  if (parts.length === 2 && parts[0]!.first === parts[1]!.first) parts.pop()
  return parts
}

/** Adds a number to each. */
export function shifted({ first, more }: Interval, by: bigint): Interval {
  return { first: (first + by) & MASK, more }
}

/**
 * The sums of two numbers as the verifier bounds them: all numbers, unless the bounds add up without an overflow as
 * unsigned or as signed numbers.
 */
export function added(a: Interval, b: Interval): Interval {
  const bounds = [(x: bigint) => x, (x: bigint) => BigInt.asIntN(64, x)].map((as) => {
    const [first, last] = [as(a.first) + as(b.first), as(lastOf(a)) + as(lastOf(b))]
    const wraps = as(lastOf(a)) < as(a.first) || as(lastOf(b)) < as(b.first)
    const isExact = as(first & MASK) === first && as(last & MASK) === last
    return wraps || !isExact ? undefined : between(first, last)
  })
  return bounds[0] ?? bounds[1] ?? ALL
}

/** The numbers for which `number OPERATION right` holds; OPERATION is that of a 64-bit jump, without BPF_JSET. */
export function satisfying(operation: number, right: bigint): Interval | undefined {
  const r = right & MASK
  switch (operation) {
    case 0x10: // ==
      return only(r)
    case 0x50: // !=
      return between(r + 1n, r - 1n)
    case 0x20: // >
      return r === MASK ? undefined : between(r + 1n, MASK)
    case 0x30: // >=
      return between(r, MASK)
    case 0xa0: // <
      return r === 0n ? undefined : between(0n, r - 1n)
    case 0xb0: // <=
      return between(0n, r)
    case 0x60: // signed >
      return r === SIGN - 1n ? undefined : between(r + 1n, SIGN - 1n)
    case 0x70: // signed >=
      return between(r, SIGN - 1n)
    case 0xc0: // signed <
      return r === SIGN ? undefined : between(SIGN, r - 1n)
    case 0xd0: // signed <=
      return between(SIGN, r)
    default:
      return undefined
  }
}
