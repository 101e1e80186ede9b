/*
 * Objects with a signature beside them, under their key and `.minisig`, where minisign looks for it. The signature is
 * written after the object. A reader that gets both while they are replaced finds that they do not fit, and reads
 * again.
 *
 * The signed comment has the time, so that a reader can tell an old object from a new one. The time of an object only
 * grows, even if the signer's clock is set back.
 */
import { ignoreNotFound, isUnreadable, StoreError } from './error.ts'
import { readBytes } from './json.ts'
import { publicKeyOf, signContent, verifyComment, verifyContent } from './signature.ts'
import type { Store } from './store.ts'
import { compareAndSwap } from './swap.ts'

const MAX_SIGNATURE = 4096
/** Seconds after which a signature is renewed although its object has not changed: readers may demand a recent one. */
const RENEW_AFTER = 24 * 3600

/** The key of an object's signature. */
export const signatureKey = (key: string): string => `${key}.minisig`

/** The time in a signed comment, in seconds since 1970; 0 if it has none. */
export function signedTime(comment: string): number {
  const [, seconds = '0'] = /(?:^|\s)timestamp:(\d{1,12})(?:\s|$)/.exec(comment) ?? []
  return Number(seconds)
}

/**
 * Signs the object at `key`, of at most `maxSize` bytes, unless the key has signed it within a day: a writer may have
 * been killed after it wrote the object. If others replace and sign the object meanwhile, the last signature still fits the
 * last object. Returns whether a signature was written. Errors: `invalid_key`, `not_found`; those of `Store`.
 */
export async function signObject(
  store: Store,
  key: string,
  maxSize: number,
  secretKey: string,
): Promise<boolean> {
  const publicKey = publicKeyOf(secretKey)
  let written = false
  await compareAndSwap(async () => {
    const { etag } = await store.head(key)
    const content = await readBytes(store, key, maxSize)
    const now = Math.floor(Date.now() / 1000)
    const last = await lastTime(store, key, publicKey)
    if (last + RENEW_AFTER < now || (await problemOf(store, key, content, publicKey))) {
      const comment = `timestamp:${Math.max(now, last + 1)}\tfile:${key}`
      await store.put(signatureKey(key), Buffer.from(signContent(content, secretKey, comment)))
      written = true
    }
    if ((await store.head(key)).etag !== etag)
      throw new StoreError('precondition_failed', `${key} changed while it was being signed`)
  })
  return written
}

/** The time of the object's signature by the key, which may be one of older content; 0 if there is none. */
async function lastTime(store: Store, key: string, publicKey: string): Promise<number> {
  try {
    const signature = await readBytes(store, signatureKey(key), MAX_SIGNATURE).catch(ignoreNotFound)
    return signature ? signedTime(verifyComment(signature.toString('utf8'), publicKey)) : 0
  } catch (error) {
    if (isInvalid(error)) return 0
    throw error
  }
}

const isInvalid = (error: unknown): error is StoreError =>
  error instanceof StoreError &&
  ['invalid_signature', 'invalid_record', 'unreadable'].includes(error.code)

/**
 * A sentence that says why an object, of at most `maxSize` bytes, is not signed by a public key; undefined if it is.
 * Errors: `invalid_key`, `not_found`; those of `Store`.
 */
export async function signatureProblem(
  store: Store,
  key: string,
  maxSize: number,
  publicKey: string,
): Promise<string | undefined> {
  try {
    return await problemOf(store, key, await readBytes(store, key, maxSize), publicKey)
  } catch (error) {
    if (isUnreadable(error)) return `${key} cannot be read: ${error.message}`
    throw error
  }
}

async function problemOf(
  store: Store,
  key: string,
  content: Uint8Array,
  publicKey: string,
): Promise<string | undefined> {
  try {
    const signature = await readBytes(store, signatureKey(key), MAX_SIGNATURE).catch(ignoreNotFound)
    if (!signature) return `${key} has no signature`
    verifyContent(content, signature.toString('utf8'), publicKey)
    return undefined
  } catch (error) {
    if (isInvalid(error)) return `${key}: ${error.message}`
    throw error
  }
}
