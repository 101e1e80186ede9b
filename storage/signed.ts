/*
 * Objects with a signature beside them, under their key and `.minisig`, where minisign looks for it. The signature is
 * written after the object. A reader that gets both while they are replaced finds that they do not fit, and reads
 * again.
 */
import { ignoreNotFound, isUnreadable, StoreError } from './error.ts'
import { readBytes } from './json.ts'
import { publicKeyOf, signContent, verifyContent } from './signature.ts'
import type { Store } from './store.ts'
import { compareAndSwap } from './swap.ts'

const MAX_SIGNATURE = 4096

/** The key of an object's signature. */
export const signatureKey = (key: string): string => `${key}.minisig`

/**
 * Signs the object at `key`, of at most `maxSize` bytes, unless the key has signed it already: a writer may have been
 * killed after it wrote the object. If others replace and sign the object meanwhile, the last signature still fits the
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
    if (await problemOf(store, key, content, publicKey)) {
      const comment = `timestamp:${Math.floor(Date.now() / 1000)}\tfile:${key}`
      await store.put(signatureKey(key), Buffer.from(signContent(content, secretKey, comment)))
      written = true
    }
    if ((await store.head(key)).etag !== etag)
      throw new StoreError('precondition_failed', `${key} changed while it was being signed`)
  })
  return written
}

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
    const wrong = ['invalid_signature', 'invalid_record', 'unreadable']
    if (error instanceof StoreError && wrong.includes(error.code)) return `${key}: ${error.message}`
    throw error
  }
}
