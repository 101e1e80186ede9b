/*
 * Bytes without Node's Buffer: sources that are read on demand, views, searches, and text to and from bytes. The
 * library runs in a browser, so it uses Uint8Array, DataView, TextEncoder and TextDecoder alone.
 */

import { BtfError } from './error.ts'

export type ByteOrder = 'little' | 'big'

/**
 * Bytes that are read on demand. A caller can back it with `readSync` on a vmlinux of 600 MB: then only the headers
 * and the requested sections come into memory.
 */
export interface ByteSource {
  /** total number of bytes */
  readonly size: number
  /** Returns `length` bytes from `offset`; the caller has checked both against `size`. */
  read(offset: number, length: number): Uint8Array
}

/** A source over bytes in memory; reads return views, not copies. */
export function memorySource(bytes: Uint8Array): ByteSource {
  return {
    size: bytes.length,
    read: (offset, length) => bytes.subarray(offset, offset + length),
  }
}

/** Reads exactly `length` bytes. All reads of a source go through this function. Errors: `truncated`. */
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

/** A DataView over exactly these bytes, wherever they lie in their buffer. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** True where this machine is little-endian. */
export const HOST_LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/**
 * The whole 32-bit words of some bytes, as signed numbers, which V8 handles fastest. Where the memory is aligned and in
 * host byte order the result is a view, which reads twice as fast as a DataView; otherwise it is a copy.
 */
export function wordsOf(bytes: Uint8Array, order: ByteOrder): Int32Array {
  const { buffer, byteOffset } = bytes
  const length = bytes.length >> 2
  const little = order === 'little'
  const native = little === HOST_LITTLE
  if (native && byteOffset % 4 === 0) return new Int32Array(buffer, byteOffset, length)
  const view = viewOf(bytes)
  const words = new Int32Array(length)
  for (let i = 0; i < length; i++) words[i] = view.getInt32(i * 4, little)
  return words
}

/** The pieces one after another, as a copy. */
export function concatBytes(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    bytes.set(piece, at)
    at += piece.length
  }
  return bytes
}

/**
 * Every index at which `needle` (at least one byte) begins, in rising order; matches may overlap. Compares from the end
 * and skips by the last byte (Boyer–Moore–Horspool), so most bytes are never looked at.
 */
export function* findAll(bytes: Uint8Array, needle: Uint8Array): Generator<number> {
  const last = needle.length - 1
  const skips = new Int32Array(256).fill(needle.length)
  for (let i = 0; i < last; i++) skips[needle[i]!] = last - i
  for (let end = last; end < bytes.length; ) {
    const byte = bytes[end]!
    let i = last
    while (i >= 0 && bytes[end - last + i] === needle[i]) i--
    if (i < 0) yield end - last
    end += skips[byte]!
  }
}

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
/** Up to this length, in bytes, building a string by hand is faster than a TextDecoder. */
const SHORT = 64

/** Text as UTF-8. */
export function encodeText(text: string): Uint8Array {
  return encoder.encode(text)
}

/** Bytes decoded as UTF-8; invalid sequences become U+FFFD. */
export function decodeText(bytes: Uint8Array): string {
  if (bytes.length > SHORT) return decoder.decode(bytes)
  for (let i = 0; i < bytes.length; i++) if (bytes[i]! >= 0x80) return decoder.decode(bytes)
  return String.fromCharCode(...bytes)
}

/** Arguments per call of `String.fromCharCode`. */
const MAX_ARGUMENTS = 4096

/** Bytes as text, one character per byte (ISO 8859-1). TextDecoder's `latin1` is windows-1252, which differs. */
export function decodeLatin1(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; at += MAX_ARGUMENTS) {
    text += String.fromCharCode(...bytes.subarray(at, at + MAX_ARGUMENTS))
  }
  return text
}

/** The reverse of `decodeLatin1`. */
export function encodeLatin1(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  return bytes
}

/** Lower-case hexadecimal digits, two per byte. */
export function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** Orders byte arrays by their first difference; of two that are equal so far the shorter comes first. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length && i < b.length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!
  return a.length - b.length
}
