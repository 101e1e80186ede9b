/*
 * Bytes on their way into a store: counted, hashed and compared with what was promised, in one pass. Every backend
 * puts through this, so none can forget.
 */
import { createHash } from 'node:crypto'
import { Readable, Transform } from 'node:stream'
import { StoreError } from './error.ts'

export class Measured extends Transform {
  readonly #hash = createHash('sha256')
  readonly #expected: string | undefined
  /** bytes that passed; not `size`, by which lib-storage would know a body's size before it passed */
  bytes = 0
  /** hex, once all have passed */
  sha256 = ''

  /** With `expected` the stream fails with `digest_mismatch` at its end where the digest is another. */
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
    const right = this.#expected === undefined || this.#expected === this.sha256
    const told = `SHA-256 is ${this.sha256}, expected ${this.#expected}`
    done(right ? undefined : new StoreError('digest_mismatch', told))
  }
}

export const toReadable = (body: Readable | Uint8Array): Readable =>
  body instanceof Readable
    ? body
    : Readable.from([Buffer.from(body.buffer, body.byteOffset, body.length)], { objectMode: false })

/** The first and last byte of a range within `size` bytes. Errors: `invalid_range`. */
export function clampRange(
  range: { start: number; end?: number },
  size: number,
): { start: number; end: number } {
  const { start, end = size - 1 } = range
  const whole = Number.isSafeInteger(start) && Number.isSafeInteger(end)
  if (!whole || start < 0 || start >= size || end < start) {
    throw new StoreError('invalid_range', `bytes ${start}-${end} of ${size}`)
  }
  return { start, end: Math.min(end, size - 1) }
}
