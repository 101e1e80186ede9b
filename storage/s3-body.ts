/*
 * The bytes of an S3 object as a stream that outlives its connection. If the connection breaks, the stream requests the
 * rest. The reader gets every byte once, or an error; never a shortened object.
 */
import { Readable } from 'node:stream'
import { StoreError } from './error.ts'

/** The number of successive connections that may break without a byte. */
const ATTEMPTS = 3

/**
 * Reads `size` bytes: from `first` until it breaks, then from `reopen`, which gets the number of bytes received so far.
 * Errors: `unreachable` if the connection keeps breaking or the object was replaced; `digest_mismatch` if all bytes
 * came and the SDK's checksum does not match.
 */
export function resumedBody(
  first: Readable,
  size: number,
  reopen: (passed: number) => Promise<Readable>,
): Readable {
  let current = first
  const body = Readable.from(read(), { objectMode: false })
  return body.once('close', () => current.destroy())

  async function* read(): AsyncGenerator<Buffer> {
    let passed = 0
    for (let attempt = 1; ; attempt++) {
      let cause: unknown
      try {
        for await (const chunk of current) {
          passed += chunk.length
          attempt = 1
          if (passed <= size) yield chunk
        }
        if (passed === size) return
      } catch (error) {
        cause = error
      }
      if (passed >= size || attempt === ATTEMPTS) throw broken(passed, size, cause)
      current = await reopen(passed).catch((error) => {
        throw broken(passed, size, error)
      })
    }
  }
}

function broken(passed: number, size: number, cause: unknown): StoreError {
  const code = passed < size ? 'unreachable' : 'digest_mismatch'
  const reason = cause instanceof Error ? `: ${cause.message}` : ''
  return new StoreError(code, `received ${passed} of ${size} bytes${reason}`, { cause })
}
