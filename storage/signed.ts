/*
 * Objects with a signature beside them, under their key and `.minisig`, where minisign looks for it. The signature is
 * written after the object: who reads both while they are replaced finds that they do not fit, and reads again.
 */
import { signContent } from './signature.ts'
import type { Store } from './store.ts'

export const signatureKey = (key: string): string => `${key}.minisig`

/** Signs what was just put at a key. Errors: `invalid_key`, and those of `Store.put`. */
export async function putSignature(
  store: Store,
  key: string,
  content: Uint8Array,
  secretKey: string,
): Promise<void> {
  const comment = `timestamp:${Math.floor(Date.now() / 1000)}\tfile:${key}`
  const signature = signContent(content, secretKey, comment)
  await store.put(signatureKey(key), Buffer.from(signature))
}
