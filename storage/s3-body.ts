/*
 * The bytes of an object on S3 as a stream that outlives its connection: where that breaks midway, the rest is asked
 * for again. The reader sees every byte once or an error, never a shorter object.
 */
import { Readable } from 'node:stream'
import { StoreError } from './error.ts'

/** How often in a row it may break without a byte having come. */
const ATTEMPTS = 3

/**
 * Reads `size` bytes: from `first` as long as it lasts, then from what `reopen` gives for the number of bytes that have
 * come. Errors: `unreachable` where it keeps breaking, or the object was replaced; `digest_mismatch` where all came and
 * are wrong.
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
  const told = cause instanceof Error ? `: ${cause.message}` : ''
  return new StoreError(code, `${passed} of ${size} bytes came${told}`, { cause })
}
