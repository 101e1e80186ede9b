/* Reads and writes fields of a given width and byte order, and joins pieces of bytes. */
import type { Field } from './field.ts'

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Reads a field. A 64-bit value is rounded to the nearest number. */
export function readField(bytes: Uint8Array, field: Omit<Field, 'sort'>, little: boolean): number {
  const { at, width } = field
  const view = viewOf(bytes)
  if (width === 1) return view.getUint8(at)
  if (width === 2) return view.getUint16(at, little)
  return width === 4 ? view.getUint32(at, little) : Number(view.getBigUint64(at, little))
}

/** Writes a field. A value that is too wide or negative is truncated to the width. */
export function writeField(
  bytes: Uint8Array,
  field: Omit<Field, 'sort'>,
  little: boolean,
  value: number,
): void {
  const { at, width } = field
  const view = viewOf(bytes)
  if (width === 1) view.setUint8(at, value)
  else if (width === 2) view.setUint16(at, value, little)
  else if (width === 4) view.setUint32(at, value, little)
  else view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), little)
}

export function joined(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(Buffer.concat(pieces))
}
