/* Signatures of catalogs: whether they hold, and whether a server goes back to an older catalog. */
import { StoreError, signedTime, verifyContent } from '../../storage/index.ts'
import { newestTime, rememberTime } from './newest.ts'
import { FetchError } from './request.ts'

/** Returns when a snapshot was signed, in seconds since 1970. Errors: `invalid_signature`. */
export function verifySnapshot(content: Buffer, signature: string, publicKey: string): number {
  try {
    return signedTime(verifyContent(content, signature, publicKey))
  } catch (cause) {
    if (!(cause instanceof StoreError) || cause.code !== 'invalid_signature') throw cause
    throw new FetchError('invalid_signature', cause.message, { cause })
  }
}

/**
 * Refuses a catalog that is older than the newest one by its key, or than `maxAge` seconds, and remembers a newer one in a
 * directory of the key. Errors: `outdated_catalog`, `not_writable`.
 */
export async function requireRecent(
  time: number,
  directory: string,
  maxAge = Number.POSITIVE_INFINITY,
): Promise<void> {
  try {
    const newest = await newestTime(directory)
    if (time < newest) throw outdated(time, `not before ${dateOf(newest)}, as one before`)
    if (time < Date.now() / 1000 - maxAge) throw outdated(time, `within the last ${maxAge} seconds`)
    if (time > newest) await rememberTime(directory, time)
  } catch (cause) {
    if (cause instanceof FetchError) throw cause
    const message = `cannot remember the newest catalog in ${directory}: ${(cause as Error).message}`
    throw new FetchError('not_writable', message, { cause })
  }
}

const outdated = (time: number, expected: string) =>
  new FetchError(
    'outdated_catalog',
    `the catalog was signed ${time > 0 ? `at ${dateOf(time)}` : 'without a time'}: expected ${expected}`,
  )

const dateOf = (time: number): string => new Date(time * 1000).toISOString()
