/*
 * Mutations of an input: fields get values of fields with the same meaning or values out of bounds, bits flip, and
 * bytes are removed, inserted and cut off. One input in three is restructured first (structure.ts).
 */
import { joined, readField, viewOf, writeField } from './bytes.ts'
import type { Input } from './corpus.ts'
import type { Field } from './field.ts'
import type { Random } from './random.ts'
import { restructure } from './structure.ts'

const EXTREMES = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0xffffff, 0x7fffffff, 0x80000000].concat([
  0xfffffffc, 0xfffffffe, 0xffffffff,
])

/** A mutated copy of an input. Pieces may come from `others`. */
export function mutate(random: Random, input: Input, others: readonly Input[]): Uint8Array {
  const donor = random.pick(others)
  let bytes = Uint8Array.from(input.bytes)
  if (random.once(3)) bytes = restructure(random, input, donor)
  for (let n = random.below(4); n > 0; n--) editField(random, bytes, input)
  for (let n = random.below(3); n > 0; n--) editBytes(random, bytes)
  return random.once(4) ? recut(random, bytes, donor.bytes) : bytes
}

/** Changes the value of a field. */
function editField(random: Random, bytes: Uint8Array, { anatomy }: Input): void {
  const field = random.pick(anatomy.fields)
  const little = anatomy.byteOrder === 'little'
  // earlier mutations may have removed bytes
  if (field.at + field.width > bytes.length) return
  const alike = anatomy.fields.filter(
    ({ at, width, sort }) =>
      sort === field.sort && width === field.width && at + width <= bytes.length,
  )
  const other = readField(bytes, random.pick(alike), little)
  writeField(bytes, field, little, newValue(random, field, readField(bytes, field, little), other))
}

function newValue(random: Random, field: Field, value: number, other: number): number {
  if (field.sort === 'info' && random.once(2)) {
    const kind = random.once(2) ? random.below(24) : (value >>> 24) & 0x7f
    const vlen = Math.max(0, (value & 0xffff) + random.below(5) - 2)
    return ((random.below(2) << 31) | (kind << 24) | vlen) >>> 0
  }
  switch (random.below(5)) {
    case 0:
      return other
    case 1:
      return value + random.below(17) - 8
    case 2:
      return random.pick(EXTREMES)
    case 3:
      return random.below(512)
    default:
      return 2 ** random.below(field.width * 8) - random.below(2)
  }
}

/** Changes a bit, a byte or a word, in half of the cases near the beginning, where the headers are. */
function editBytes(random: Random, bytes: Uint8Array): void {
  const range = random.once(2) ? bytes.length : Math.min(bytes.length, 128)
  if (range < 4) return
  const at = random.below(range - 3)
  switch (random.below(3)) {
    case 0:
      bytes[at]! ^= 1 << random.below(8)
      break
    case 1:
      bytes[at] = random.below(256)
      break
    default:
      viewOf(bytes).setUint32(at, random.pick(EXTREMES), random.once(2))
  }
}

/** Cuts off, removes or inserts bytes, and leaves the headers unchanged. */
function recut(random: Random, bytes: Uint8Array, donor: Uint8Array): Uint8Array<ArrayBuffer> {
  const at = random.below(bytes.length + 1)
  const length = random.below(random.once(2) ? 16 : 1024)
  const from = random.below(donor.length)
  switch (random.below(5)) {
    case 0:
      return bytes.slice(0, at)
    case 1:
      return joined([bytes.subarray(0, at), bytes.subarray(at + length)])
    case 2:
      return joined([
        bytes.subarray(0, at),
        donor.subarray(from, from + length),
        bytes.subarray(at),
      ])
    case 3:
      return joined([bytes.subarray(0, at), new Uint8Array(length), bytes.subarray(at)])
    default:
      return joined([bytes.subarray(0, at), donor.subarray(from)])
  }
}
