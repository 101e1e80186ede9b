/*
 * Objects with a signature beside them, under their key and `.minisig`, where minisign looks for it. The signature is
 * written after the object: who reads both while they are replaced finds that they do not fit, and reads again.
 */
import { absentIsNone, StoreError } from './error.ts'
import { readBytes } from './json.ts'
import { publicKeyOf, signContent, verifyContent } from './signature.ts'
import type { Store } from './store.ts'
import { swap } from './swap.ts'

const MAX_SIGNATURE = 4096

export const signatureKey = (key: string): string => `${key}.minisig`

/**
 * Signs what is at a key, of at most `max` bytes, unless it is signed already; a writer may have been killed between
 * the two. Where others replace and sign it meanwhile, the last signature is one of the last object all the same.
 * Errors: `invalid_key`, and those of the store.
 */
export async function sign(
  store: Store,
  key: string,
  max: number,
  secretKey: string,
): Promise<void> {
  await swap(async () => {
    const { etag } = await store.head(key)
    const content = await readBytes(store, key, max)
    if (!(await isSigned(store, key, content, secretKey))) {
      const comment = `timestamp:${Math.floor(Date.now() / 1000)}\tfile:${key}`
      await store.put(signatureKey(key), Buffer.from(signContent(content, secretKey, comment)))
    }
    if ((await store.head(key)).etag !== etag)
      throw new StoreError('precondition_failed', `${key} changes while it is signed`)
  })
}

async function isSigned(
  store: Store,
  key: string,
  content: Uint8Array,
  secretKey: string,
): Promise<boolean> {
  const publicKey = publicKeyOf(secretKey)
  try {
    const signature = await readBytes(store, signatureKey(key), MAX_SIGNATURE).catch(absentIsNone)
    if (!signature) return false
    verifyContent(content, signature.toString('utf8'), publicKey)
    return true
  } catch (error) {
    const wrong = ['invalid_signature', 'invalid_record']
    if (error instanceof StoreError && wrong.includes(error.code)) return false
    throw error
  }
}
