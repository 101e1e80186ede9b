import { BtfError } from './error.ts'

export type ByteOrder = 'little' | 'big'

/**
 * Bytes that are read where they are needed: a caller backs it with `readSync` on a vmlinux of 600 MB, so that only
 * headers and the sections asked for come into memory.
 */
export interface ByteSource {
  /** bytes in all */
  readonly size: number
  /** The `length` bytes from `offset`; both were checked against `size`. */
  read(offset: number, length: number): Uint8Array
}

/** A source of bytes that are in memory already; what it reads are views, not copies. */
export function memorySource(bytes: Uint8Array): ByteSource {
  return {
    size: bytes.length,
    read: (offset, length) => bytes.subarray(offset, offset + length),
  }
}

/** Reads exactly `length` bytes, or says `truncated`: the only way this folder reads a source. */
export function readExactly(source: ByteSource, offset: number, length: number): Uint8Array {
  if (offset < 0 || length < 0 || offset + length > source.size) {
    throw new BtfError('truncated', `${length} bytes wanted, the file has ${source.size}`, offset)
  }
  const bytes = source.read(offset, length)
  if (bytes.length !== length) {
    throw new BtfError('truncated', `${length} bytes wanted, ${bytes.length} read`, offset)
  }
  return bytes
}

/** A DataView over the bytes, wherever in their buffer they lie. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** A Buffer over the same memory: byte search and decoding of strings without copies. */
export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

const HOST_LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/**
 * The whole 32-bit words of some bytes, as signed numbers, with which V8 is quickest: a view of the same memory where it is aligned and
 * of its byte order, which is read in half the time that a DataView takes; else a copy.
 */
export function wordsOf(bytes: Uint8Array, order: ByteOrder): Int32Array {
  const { buffer, byteOffset } = bytes
  const length = bytes.length >> 2
  const native = (order === 'little') === HOST_LITTLE
  if (native && byteOffset % 4 === 0) return new Int32Array(buffer, byteOffset, length)
  const copy = new Uint8Array(bytes.subarray(0, length * 4))
  if (!native) bufferOf(copy).swap32()
  return new Int32Array(copy.buffer)
}
