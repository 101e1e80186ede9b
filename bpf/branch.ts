/*
 * The sides of a conditional jump, by what is known of the values that it compares (kernel/bpf/verifier.c
 * `is_branch_taken`, `reg_set_min_max`, `mark_ptr_or_null_regs`).
 */

import { CLASS } from './instruction.ts'
import {
  between,
  contains,
  fits,
  type Interval,
  intersect,
  isAll,
  lowBits,
  only,
  satisfying,
} from './interval.ts'
import { type AbstractValue, constant, constantOf, LOST, type Scalar } from './value.ts'

/** One side of a branch: whether the verifier surely explores it, and what is known there. */
export interface Side {
  readonly certain: boolean
  /** what is known of the two values there; undefined if nothing new is */
  readonly left?: AbstractValue
  readonly right?: AbstractValue
}

export interface Sides {
  readonly jump?: Side
  readonly fall?: Side
}

const EQUAL = 0x10
const NOT_EQUAL = 0x50
const JSET = 0x40
/** Operations that compare signed numbers. */
const SIGNED: ReadonlySet<number> = new Set([0x60, 0x70, 0xc0, 0xd0])

const OPPOSITE: ReadonlyMap<number, number> = new Map([
  [0x10, 0x50],
  [0x50, 0x10],
  [0x20, 0xb0],
  [0xb0, 0x20],
  [0x30, 0xa0],
  [0xa0, 0x30],
  [0x60, 0xd0],
  [0xd0, 0x60],
  [0x70, 0xc0],
  [0xc0, 0x70],
])

/** The operation with its sides exchanged: `a < b` as `b > a`. */
const EXCHANGED: ReadonlyMap<number, number> = new Map([
  [0x10, 0x10],
  [0x50, 0x50],
  [0x20, 0xa0],
  [0xa0, 0x20],
  [0x30, 0xb0],
  [0xb0, 0x30],
  [0x60, 0xc0],
  [0xc0, 0x60],
  [0x70, 0xd0],
  [0xd0, 0x70],
])

const CERTAIN: Side = { certain: true }
const IN_DOUBT: Side = { certain: false }

/** The sides of a conditional jump with that code, which compares two values. */
export function sidesOf(code: number, left: AbstractValue, right: AbstractValue): Sides {
  const narrow = (code & 7) === CLASS.JMP32
  const operation = code & 0xf0
  const number = constantOf(right)
  if (left === LOST || right === LOST) return { jump: IN_DOUBT, fall: IN_DOUBT }
  if (left.is !== 'scalar' || right.is !== 'scalar') {
    if (left.is === 'scalar' && constantOf(left) === 0n && operation !== JSET && !narrow) {
      return exchanged(sidesOfPointer(operation, right, 0n))
    }
    if (left.is === 'scalar' || number === undefined || narrow) {
      // the ends of a packet are compared like this; the verifier explores both
      return { jump: CERTAIN, fall: CERTAIN }
    }
    return sidesOfPointer(operation, left, number)
  }
  if (number === undefined) {
    const known = constantOf(left)
    const other = EXCHANGED.get(operation)
    if (known !== undefined && other !== undefined) {
      return exchanged(sidesOf((code & 0x0f) | other, right, left))
    }
    return sidesOfNumbers(left, right)
  }
  if (operation === JSET) return sidesOfSet(left, number, narrow)
  const opposite = OPPOSITE.get(operation)
  if (opposite === undefined) return { jump: IN_DOUBT, fall: IN_DOUBT }
  const jump = sideWhere(left, operation, number, narrow)
  const fall = sideWhere(left, opposite, number, narrow)
  return { ...(jump && { jump }), ...(fall && { fall }) }
}

function exchanged({ jump, fall }: Sides): Sides {
  const exchange = ({ certain, left, right }: Side): Side => ({
    certain,
    ...(right && { left: right }),
    ...(left && { right: left }),
  })
  return { ...(jump && { jump: exchange(jump) }), ...(fall && { fall: exchange(fall) }) }
}

function sidesOfPointer(operation: number, pointer: AbstractValue, number: bigint): Sides {
  if (number !== 0n || (operation !== EQUAL && operation !== NOT_EQUAL))
    return { jump: CERTAIN, fall: CERTAIN }
  const zero = pointer.is === 'pointer' ? pointer.zero : 'cannot tell'
  const notZero: Side = {
    certain: true,
    ...(pointer.is === 'pointer' && { left: { ...pointer, zero: 'cannot tell' } }),
  }
  const isZero: Side | undefined =
    zero === 'no' ? undefined : { certain: zero === 'yes', left: constant(0n) }
  const [jump, fall] = operation === EQUAL ? [isZero, notZero] : [notZero, isZero]
  return { ...(jump && { jump }), ...(fall && { fall }) }
}

/** Two numbers, neither known. */
function sidesOfNumbers(left: Scalar, right: Scalar): Sides {
  const wide = ({ sure, mask }: Scalar) =>
    sure !== undefined && mask === undefined && sure.more >= 0xffffn
  const certain = wide(left) && wide(right) && left.id !== right.id
  // afterwards the verifier knows bounds of both that are not followed here
  const side: Side = {
    certain,
    left: { ...left, sure: undefined },
    right: { ...right, sure: undefined },
  }
  return { jump: side, fall: side }
}

/** `left & mask`: the jump is taken if it is not 0. */
function sidesOfSet(left: Scalar, right: bigint, narrow: boolean): Sides {
  const known = constantOf(left)
  const mask = narrow ? BigInt.asUintN(32, right) : right
  if (known !== undefined) return (known & mask) !== 0n ? { jump: CERTAIN } : { fall: CERTAIN }
  if (mask === 0n) return { fall: CERTAIN }
  const possible = (value: bigint) =>
    left.sure !== undefined &&
    contains(left.sure, value) &&
    (left.mask === undefined || (value & ~left.mask) === 0n)
  const after: Scalar = { ...left, sure: undefined }
  return {
    jump: { certain: possible(mask), left: after },
    fall: { certain: possible(0n), left: after },
  }
}

/** The side on which `left OPERATION right` holds; undefined if it holds for no number. */
function sideWhere(
  left: Scalar,
  operation: number,
  right: bigint,
  narrow: boolean,
): Side | undefined {
  const known = constantOf(left)
  const wanted = narrow ? narrowed(operation, right) : some(satisfying(operation, right))
  if (wanted.length === 0) return undefined
  if (known !== undefined) {
    const value = narrow ? BigInt.asUintN(32, known) : known
    return wanted.some((interval) => contains(interval, value)) ? CERTAIN : undefined
  }
  if (narrow && !fits(left.may, 32)) {
    // the high half is not known: the verifier explores both sides if it knows nothing of the low half
    const all = left.sure !== undefined && isAll(left.sure) && left.mask === undefined
    return { certain: all, left: { ...left, sure: all ? largest(wanted) : undefined } }
  }
  const may = wanted.flatMap((interval) => intersect(left.may, interval))
  if (may.length === 0) return undefined
  // the verifier keeps bounds, so it forgets that a number within them is excluded
  const isBound = may.length === 1 && operation !== NOT_EQUAL
  const inMay = isBound ? may[0]! : left.may
  const { mask, sure, ...rest } = left
  const possible =
    sure &&
    (mask === undefined
      ? largest(wanted.flatMap((interval) => intersect(sure, interval)))
      : memberOf(sure, mask, wanted, operation === EQUAL ? right : undefined))
  const refined: Scalar = { ...rest, may: inMay, sure: possible }
  return { certain: possible !== undefined, left: refined }
}

/** A number of a masked value that lies in one of the intervals: one of its ends, or the number asked for. */
function memberOf(
  { first, more }: Interval,
  mask: bigint,
  wanted: readonly Interval[],
  right: bigint | undefined,
): Interval | undefined {
  const members = [first, first + more]
  if (right !== undefined && (right & ~mask) === 0n) members.push(right)
  const found = members.find((member) => wanted.some((interval) => contains(interval, member)))
  return found === undefined ? undefined : only(found)
}

function some(interval: Interval | undefined): Interval[] {
  return interval ? [interval] : []
}

/** The 32-bit numbers, as unsigned 64-bit ones, for which an operation of BPF_JMP32 holds. */
function narrowed(operation: number, right: bigint): Interval[] {
  const isSigned = SIGNED.has(operation)
  if (!isSigned) {
    const wanted = satisfying(operation, BigInt.asUintN(32, right))
    return wanted ? intersect(wanted, lowBits(32)) : []
  }
  const wanted = satisfying(operation, BigInt.asIntN(32, right))
  const range = between(-(1n << 31n), (1n << 31n) - 1n)
  return (wanted ? intersect(wanted, range) : []).flatMap(({ first, more }) => {
    const low = BigInt.asIntN(64, first)
    const high = low + more
    if (low >= 0n || high < 0n) return [{ first: BigInt.asUintN(32, low), more }]
    // as unsigned numbers, a range that crosses 0 has two parts
    return [between(0n, high), { first: BigInt.asUintN(32, low), more: -low - 1n }]
  })
}

/** The largest of some intervals; undefined if there is none. */
function largest(parts: readonly Interval[]): Interval | undefined {
  let best = parts[0]
  for (const part of parts) if (part.more > best!.more) best = part
  return best
}
