/*
 * The signatures that a whole store has: of the catalog's snapshot and of the archive tree's manifest. Whoever holds
 * the public key can check every BTF file through one of these two.
 */
import { Catalog } from './catalog.ts'
import { ignoreNotFound, isUnreadable } from './error.ts'
import { MANIFEST_KEY, MAX_MANIFEST, readManifest } from './manifest.ts'
import { publicKeyOf } from './signature.ts'
import { signatureProblem, signObject } from './signed.ts'
import { MAX_SNAPSHOT, SNAPSHOT_KEY } from './snapshot.ts'
import type { Store } from './store.ts'

/** The objects that are signed, with the largest size in bytes that is read. */
const SIGNED_OBJECTS = [
  { key: SNAPSHOT_KEY, maxSize: MAX_SNAPSHOT },
  { key: MANIFEST_KEY, maxSize: MAX_MANIFEST },
]

/**
 * Signs the snapshot and, where there is one, the archive tree's manifest of an existing store. Signatures that are
 * missing, by another key or of older content are replaced; a current snapshot is not written again. Returns the keys
 * of the objects that got a new signature. Errors: `invalid_key`; `invalid_record` for a manifest that is not valid;
 * those of `Store`.
 */
export async function signCatalog(store: Store, secretKey: string): Promise<{ signed: string[] }> {
  publicKeyOf(secretKey) // an invalid key, or manifest, fails before anything is written
  await readManifest(store)
  await Catalog.publish(store)
  const signed: string[] = []
  for (const { key, maxSize } of SIGNED_OBJECTS)
    if ((await exists(store, key)) && (await signObject(store, key, maxSize, secretKey)))
      signed.push(key)
  return { signed }
}

/** A signed object whose signature is missing or does not hold. */
export interface UnsignedObject {
  key: string
  /** a sentence for people */
  message: string
  /** Signs it. Errors: those of `signObject`. */
  sign: () => Promise<unknown>
}

/** Finds the objects of a store that the key has not signed. Errors: `invalid_key`; those of `Store`. */
export async function* findUnsigned(
  store: Store,
  secretKey: string,
): AsyncGenerator<UnsignedObject> {
  const publicKey = publicKeyOf(secretKey)
  for (const { key, maxSize } of SIGNED_OBJECTS) {
    if (!(await exists(store, key))) continue
    const message = await signatureProblem(store, key, maxSize, publicKey)
    if (message) yield { key, message, sign: () => signObject(store, key, maxSize, secretKey) }
  }
}

const exists = async (store: Store, key: string): Promise<boolean> =>
  (await store.head(key).catch((error) => isUnreadable(error) || ignoreNotFound(error))) !==
  undefined
