/*
 * What is known of a register or stack slot while the paths of a program are explored. A number has two bounds: what it
 * may be, which is wider than what the verifier knows, and what the verifier surely takes for possible, which is narrower.
 * A branch is impossible only by the first, and certain to be explored only by the second.
 */

import {
  ALL,
  added,
  covers,
  fits,
  type Interval,
  isAll,
  lastOf,
  lowBits,
  only,
  sameInterval,
  shifted,
} from './interval.ts'
import type { BpfProgram } from './program.ts'
import type { BpfExtern } from './reference.ts'

export interface Scalar {
  readonly is: 'scalar'
  readonly may: Interval
  /** numbers that the verifier surely takes for possible; undefined if none is known */
  readonly sure: Interval | undefined
  /** of `sure` only the numbers within this mask count, and its two ends are such numbers */
  readonly mask?: bigint
  /** copies of one value have the same id, so that a branch on one tells about all; 0 for values that are not followed */
  readonly id: number
  /** values that newer verifiers refine together, such as `x` and `x + 8`, have the same kin */
  readonly kin: number
  /** this value is `of` shifted to the left by so many bits */
  readonly left?: { readonly of: Scalar; readonly by: bigint }
}

export type AbstractValue =
  | Scalar
  /** `offset` bytes from the top of the stack of the frame with that number; undefined if it is not known */
  | { readonly is: 'stack'; readonly frame: number; readonly offset: number | undefined }
  /** `offset` bytes into a data section of the object */
  | { readonly is: 'data'; readonly section: string; readonly offset: number | undefined }
  | { readonly is: 'function'; readonly target: BpfProgram }
  /** a value of the kernel's configuration is read through it */
  | { readonly is: 'kconfig'; readonly extern: BpfExtern }
  | Pointer

/**
 * Any other pointer. `zero`: whether the verifier explores that it is 0: `yes`, `no`, or `cannot tell`, which depends on
 * the kernel's version or on facts that BTF does not have. `loose`: what is loaded through it may be a pointer that the
 * verifier knows not to be 0.
 */
export interface Pointer {
  readonly is: 'pointer'
  readonly zero: 'yes' | 'no' | 'cannot tell'
  readonly loose: boolean
  readonly id: number
}

/** Nothing is known, and the verifier may know anything. */
export const UNKNOWN: Scalar = { is: 'scalar', may: ALL, sure: undefined, id: 0, kin: 0 }

/** A number that is known at load time. */
export function constant(value: bigint): Scalar {
  const interval = only(value)
  return { is: 'scalar', may: interval, sure: interval, id: 0, kin: 0 }
}

/** A number of which the verifier knows only the interval. */
export function free(interval: Interval, id: number): Scalar {
  return { is: 'scalar', may: interval, sure: interval, id, kin: id }
}

/** The number, if it is known at load time. */
export function constantOf(value: AbstractValue): bigint | undefined {
  return value.is === 'scalar' && value.may.more === 0n ? value.may.first : undefined
}

/** True if every state that has `inner` is also one that has `outer`; only of `may` unless `certain`. */
export function includes(outer: AbstractValue, inner: AbstractValue, certain: boolean): boolean {
  if (outer === inner) return true
  if (outer === LOST) return !certain
  if (outer.is === 'scalar') {
    if (isAll(outer.may) && !certain) return inner.is !== 'stack'
    if (inner.is !== 'scalar' || !covers(outer.may, inner.may)) return false
    if (!certain || !inner.sure) return true
    if (outer.mask !== inner.mask || !outer.sure) return false
    return covers(outer.sure, inner.sure)
  }
  return sameValue(outer, inner)
}

function sameValue(a: AbstractValue, b: AbstractValue): boolean {
  switch (a.is) {
    case 'scalar':
      return b.is === 'scalar' && sameInterval(a.may, b.may)
    case 'stack':
      return b.is === 'stack' && a.frame === b.frame && a.offset === b.offset
    case 'data':
      return b.is === 'data' && a.section === b.section && a.offset === b.offset
    case 'function':
      return b.is === 'function' && a.target === b.target
    case 'kconfig':
      return b.is === 'kconfig' && a.extern === b.extern
    case 'pointer':
      return b.is === 'pointer' && a.zero === b.zero && a.loose === b.loose
  }
}

/** An address in some frame's stack, or anything else. */
export const LOST: AbstractValue = { is: 'stack', frame: -1, offset: undefined }

/** A value that includes both: the first, if it does, else one of which nothing is known. */
export function widened(a: AbstractValue, b: AbstractValue): AbstractValue {
  if (includes(a, b, false)) return a
  return a.is === 'stack' || b.is === 'stack' ? LOST : UNKNOWN
}

const WORD = lowBits(32)

/** The low `bits` bits of a number, zero-extended. */
function truncated(value: AbstractValue, bits: number, id: () => number): Scalar {
  if (value.is !== 'scalar') return { ...UNKNOWN, may: lowBits(bits) }
  if (fits(value.may, bits)) return value
  const known = constantOf(value)
  if (known !== undefined) return constant(BigInt.asUintN(bits, known))
  const may = lowBits(bits)
  if (!value.sure || value.mask !== undefined || !isAll(value.sure)) {
    return { ...UNKNOWN, may, kin: value.kin }
  }
  return { is: 'scalar', may, sure: may, id: id(), kin: value.kin }
}

/** The low `bits` bits of a number, sign-extended to 64. */
function signExtended(value: AbstractValue, bits: number, id: () => number): Scalar {
  const known = constantOf(value)
  if (known !== undefined) return constant(BigInt.asIntN(bits, known))
  const half = 1n << BigInt(bits - 1)
  const may: Interval = { first: BigInt.asUintN(64, -half), more: 2n * half - 1n }
  if (value.is !== 'scalar') return { ...UNKNOWN, may }
  if (covers(may, value.may)) return value
  const all =
    value.sure &&
    value.mask === undefined &&
    (isAll(value.sure) || covers(value.sure, lowBits(bits)))
  return all ? free(may, id()) : { ...UNKNOWN, may }
}

/**
 * The result of an ALU or ALU64 instruction. `right` is the register or the immediate; `fresh` makes ids. Pointers keep
 * their offsets where these are known. Operations that verifiers treat differently give a number of which nothing is
 * known.
 */
export function compute(
  code: number,
  left: AbstractValue,
  right: AbstractValue,
  offset: number,
  fresh: () => number,
): AbstractValue {
  const wide = (code & 7) === 7
  const operation = code & 0xf0
  if (operation === MOV) return move(wide, right, offset, fresh)
  if (operation === END) return UNKNOWN
  if (left.is !== 'scalar' || right.is !== 'scalar') {
    return wide ? moved(operation, left, right) : { ...UNKNOWN, may: WORD }
  }
  if (wide) return arithmetic(operation, left, right, 64, fresh)
  const narrow = arithmetic(
    operation,
    truncated(left, 32, fresh),
    truncated(right, 32, fresh),
    32,
    fresh,
  )
  return truncated(narrow, 32, fresh)
}

const ADD = 0x00
const SUB = 0x10
const MUL = 0x20
const OR = 0x40
const AND = 0x50
const LSH = 0x60
const RSH = 0x70
const NEG = 0x80
const XOR = 0xa0
const MOV = 0xb0
const ARSH = 0xc0
const END = 0xd0

function move(
  wide: boolean,
  right: AbstractValue,
  offset: number,
  fresh: () => number,
): AbstractValue {
  // an offset of 8, 16 or 32 sign-extends; 1 changes the address space of a pointer into an arena
  if (offset === 8 || offset === 16 || offset === 32) {
    const extended = signExtended(right, offset, fresh)
    return wide ? extended : truncated(extended, 32, fresh)
  }
  if (offset !== 0) return UNKNOWN
  if (wide) return right
  const narrow = truncated(right, 32, fresh)
  // older verifiers do not know that the two are equal
  return narrow.id === 0 ? narrow : { ...narrow, id: fresh() }
}

/** Adds a number to a pointer, or takes one away. */
function moved(operation: number, left: AbstractValue, right: AbstractValue): AbstractValue {
  if (left === LOST || right === LOST) return LOST
  const pointer = left.is === 'scalar' ? right : left
  const by = constantOf(pointer === left ? right : left)
  if (left.is !== 'scalar' && right.is !== 'scalar') return UNKNOWN
  if (operation !== ADD && (operation !== SUB || left.is === 'scalar')) return UNKNOWN
  const distance = by === undefined ? undefined : Number(BigInt.asIntN(32, by))
  switch (pointer.is) {
    case 'stack':
    case 'data': {
      if (pointer.offset === undefined || distance === undefined) {
        return { ...pointer, offset: undefined }
      }
      const offset = pointer.offset + (operation === ADD ? distance : -distance)
      return { ...pointer, offset }
    }
    case 'pointer':
      return distance === 0 ? pointer : { ...pointer, zero: 'cannot tell', id: 0 }
    default:
      return UNKNOWN
  }
}

function arithmetic(
  operation: number,
  left: Scalar,
  right: Scalar,
  bits: 32 | 64,
  fresh: () => number,
): Scalar {
  const a = constantOf(left)
  const b = constantOf(right)
  if (a !== undefined && (b !== undefined || operation === NEG)) {
    const known = folded(operation, a, b ?? 0n, bits)
    return known === undefined ? UNKNOWN : constant(known)
  }
  switch (operation) {
    case ADD:
    case SUB:
      if (b !== undefined) return plus(left, operation === ADD ? b : -b, fresh)
      if (a !== undefined && operation === ADD) return plus(right, a, fresh)
      // the verifier knows nothing of the sum of two numbers if it knows nothing of one
      if (isFree(left, bits) || isFree(right, bits)) return free(lowBits(bits), fresh())
      return operation === ADD ? sum(left, right, fresh) : UNKNOWN
    case AND:
      if (b !== undefined) return masked(left, b, fresh)
      return a === undefined ? UNKNOWN : masked(right, a, fresh)
    case LSH: {
      if (b === undefined) return UNKNOWN
      return { ...UNKNOWN, left: { of: left, by: b & BigInt(bits - 1) } }
    }
    case RSH:
      return b === undefined ? UNKNOWN : rightShifted(left, b & BigInt(bits - 1), fresh)
    case ARSH: {
      if (b === undefined || bits === 32) return UNKNOWN
      const by = b & 63n
      const { left: before } = left
      if (before?.by === by) return signExtended(before.of, 64 - Number(by), fresh)
      return UNKNOWN
    }
    default:
      return UNKNOWN
  }
}

/** True if the verifier takes all numbers of that many bits for possible. */
function isFree({ sure, mask }: Scalar, bits: 32 | 64): boolean {
  return sure !== undefined && mask === undefined && covers(sure, lowBits(bits))
}

/** The sum of two numbers, of which the verifier knows bounds. */
function sum(left: Scalar, right: Scalar, fresh: () => number): Scalar {
  const isKnown = left.sure && right.sure && left.mask === undefined && right.mask === undefined
  const more = isKnown ? left.sure.more + right.sure.more : 0n
  const sure = isKnown
    ? more >= 1n << 64n
      ? ALL
      : { first: BigInt.asUintN(64, left.sure.first + right.sure.first), more }
    : undefined
  const id = fresh()
  return { is: 'scalar', may: added(left.may, right.may), sure, id, kin: id }
}

function plus(value: Scalar, by: bigint, fresh: () => number): Scalar {
  if (by === 0n) return value
  const { sure, mask, kin } = value
  const kept = sure && mask === undefined ? shifted(sure, by) : undefined
  return { is: 'scalar', may: added(value.may, only(by)), sure: kept, id: fresh(), kin }
}

function masked(value: Scalar, mask: bigint, fresh: () => number): Scalar {
  const bits = BigInt.asUintN(64, mask)
  const interval: Interval = { first: 0n, more: bits }
  const id = fresh()
  // every number within the mask is possible if every number within its width is
  const all =
    value.sure &&
    value.mask === undefined &&
    (isAll(value.sure) ||
      (value.sure.first === 0n && (value.sure.more & bits) === bits && isLowMask(value.sure.more)))
  const low = isLowMask(bits)
  if (!all) return { is: 'scalar', may: interval, sure: undefined, id, kin: id }
  return { is: 'scalar', may: interval, sure: interval, id, kin: id, ...(!low && { mask: bits }) }
}

function isLowMask(mask: bigint): boolean {
  return (mask & (mask + 1n)) === 0n
}

function rightShifted(value: Scalar, by: bigint, fresh: () => number): Scalar {
  const { left } = value
  if (left?.by === by) return truncated(left.of, 64 - Number(by), fresh)
  const shift = (interval: Interval): Interval | undefined => {
    const last = lastOf(interval)
    if (last < interval.first) return undefined
    return { first: interval.first >> by, more: (last >> by) - (interval.first >> by) }
  }
  const may = shift(value.may) ?? lowBits(64 - Number(by))
  const sure = value.sure && value.mask === undefined ? shift(value.sure) : undefined
  const id = fresh()
  return { is: 'scalar', may, sure, id, kin: id }
}

/** The result for two known numbers; undefined for operations that not every verifier follows. */
function folded(operation: number, a: bigint, b: bigint, bits: 32 | 64): bigint | undefined {
  const shift = b & BigInt(bits - 1)
  switch (operation) {
    case ADD:
      return BigInt.asUintN(bits, a + b)
    case SUB:
      return BigInt.asUintN(bits, a - b)
    case MUL:
      return BigInt.asUintN(bits, a * b)
    case OR:
      return a | b
    case AND:
      return a & b
    case LSH:
      return BigInt.asUintN(bits, a << shift)
    case RSH:
      return a >> shift
    case NEG:
      return BigInt.asUintN(bits, -a)
    case XOR:
      return a ^ b
    case ARSH:
      return BigInt.asUintN(bits, BigInt.asIntN(bits, a) >> shift)
    default:
      return undefined
  }
}
