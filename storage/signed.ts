/*
 * Objects with a signature beside them, under their key and `.minisig`, where minisign looks for it. The signature is
 * written after the object: who reads both while they are replaced finds that they do not fit, and reads again.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { StoreError } from './error.ts'
import { readBytes } from './json.ts'
import { signContent, verifyContent } from './signature.ts'
import type { Store } from './store.ts'

const ATTEMPTS = 5
const PAUSE = 200
const MAX_SIGNATURE = 4096

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

/** The bytes at a key, if they are signed by this key. Errors: `bad_signature`, `not_found`. */
export async function readSigned(
  store: Store,
  key: string,
  maxSize: number,
  publicKey: string,
): Promise<Buffer> {
  for (let attempt = 1; ; attempt++) {
    const content = await readBytes(store, key, maxSize)
    const signature = await readBytes(store, signatureKey(key), MAX_SIGNATURE)
    try {
      verifyContent(content, signature.toString('utf8'), publicKey)
      return content
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== 'bad_signature') throw error
      if (attempt === ATTEMPTS) throw error
      await sleep(PAUSE)
    }
  }
}
