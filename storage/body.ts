/*
 * Bytes on their way into a store are counted, hashed and compared with the expected digest in one pass. Every backend
 * pipes its puts through `HashingStream`, so none can forget the comparison.
 */
import { createHash } from 'node:crypto'
import { Readable, Transform } from 'node:stream'
import { StoreError } from './error.ts'

/** The SHA-256 of bytes, or of a text as UTF-8, in hex. */
export const sha256Of = (bytes: Uint8Array | string): string =>
  createHash('sha256').update(bytes).digest('hex')

/** Passes bytes on, counts and hashes them. */
export class HashingStream extends Transform {
  readonly #hash = createHash('sha256')
  readonly #expected: string | undefined
  /** the number of bytes so far; not named `size`, which lib-storage takes for the size of the whole body */
  bytes = 0
  /** hex; empty until the end */
  sha256 = ''

  /** With `expected`, the stream fails at its end if the digest differs. Errors: `digest_mismatch`. */
  constructor(expected?: string) {
    super()
    this.#expected = expected
  }

  override _transform(chunk: Buffer, _: string, done: (error: null, chunk: Buffer) => void): void {
    this.#hash.update(chunk)
    this.bytes += chunk.length
    done(null, chunk)
  }

  override _flush(done: (error?: Error) => void): void {
    this.sha256 = this.#hash.digest('hex')
    const matches = this.#expected === undefined || this.#expected === this.sha256
    const message = `the SHA-256 is ${this.sha256}: expected ${this.#expected}`
    done(matches ? undefined : new StoreError('digest_mismatch', message))
  }
}

export const toReadable = (body: Readable | Uint8Array): Readable =>
  body instanceof Readable
    ? body
    : Readable.from([Buffer.from(body.buffer, body.byteOffset, body.length)], { objectMode: false })

/** The first and last byte of a range, both within `size` bytes. Errors: `invalid_range`. */
export function clampRange(
  range: { start: number; end?: number },
  size: number,
): { start: number; end: number } {
  const { start, end = size - 1 } = range
  const whole = Number.isSafeInteger(start) && Number.isSafeInteger(end)
  if (!whole || start < 0 || start >= size || end < start) {
    throw new StoreError('invalid_range', `invalid range ${start}-${end} of ${size} bytes`)
  }
  return { start, end: Math.min(end, size - 1) }
}
