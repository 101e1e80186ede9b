/*
 * Garbage collection: removes blobs that no record names, and damaged blobs that `verifyStore` set aside. Symbols are
 * treated as blobs are. A blob is written before its record, so a recent blob may still get one and stays. A writer that
 * stores existing BTF makes the blob recent again (`putBlob`). After it has written the record it checks that the blob
 * still exists.
 *
 * A pack is removed if no record names its BTF, or if another pack has all of its BTF that records name, and is whole:
 * gc-packs.ts.
 */
import { Catalog } from './catalog.ts'
import { ignoreNotFound, isUnreadable } from './error.ts'
import { uselessPacks } from './gc-packs.ts'
import { objectsOf } from './lost.ts'
import { CONTENT_KEYS, QUARANTINE, shaOfKey } from './name.ts'
import { packsOf, type StoredPack } from './packs.ts'
import type { ObjectInfo, Store } from './store.ts'

/** The age in milliseconds from which a blob or a pack is removed. */
export const MIN_AGE = 24 * 3600 * 1000

export interface GcOptions {
  /** milliseconds; a blob or pack that is younger stays (default: 24 hours) */
  minAge?: number
  now?: Date
  signal?: AbortSignal
}

/**
 * Removes unnamed and quarantined blobs, and packs that are of no use, and yields each of them. A record that cannot be read might name any blob, so
 * with one nothing is removed. Errors: `invalid_record`, `newer_schema`; those of `Store`.
 */
export async function* collectGarbage(
  store: Store,
  { minAge = MIN_AGE, now = new Date(), signal }: GcOptions = {},
): AsyncGenerator<ObjectInfo> {
  const before = now.getTime() - minAge
  // blobs are listed before records, so that a record written between the two is seen
  const blobs: ObjectInfo[] = []
  for (const prefix of [...Object.keys(CONTENT_KEYS), QUARANTINE])
    for await (const blob of store.list(prefix)) blobs.push(blob)
  const packs = packsOf(store)
  await packs.refresh()
  const old = blobs.filter(({ modified }) => modified.getTime() < before)
  const isOld = ({ info }: StoredPack) => info.modified.getTime() < before
  const allPacks = packs.list()
  const oldPacks = allPacks.filter(isOld)
  if (old.length + oldPacks.length === 0) return
  const named = await namedBlobs(store)
  for (const blob of old) {
    signal?.throwIfAborted()
    const isBlob = blob.key.startsWith(QUARANTINE) || shaOfKey(blob.key) !== undefined
    if (named.has(blob.key) || !isBlob) continue
    const current = await store.head(blob.key).catch(ignoreUnreadable)
    if (current?.etag !== blob.etag) continue // deleted or written again meanwhile
    await store.delete(blob.key)
    yield blob
  }
  for await (const { info } of uselessPacks(store, oldPacks, allPacks, named)) {
    signal?.throwIfAborted()
    if (!(await isUnchanged(store, info))) continue
    await store.delete(info.key)
    yield info
  }
  await packs.refresh()
}

/** Tells whether an object is still as it was listed. The bytes of a pack never change, so its time counts too. */
async function isUnchanged(store: Store, { key, etag, modified }: ObjectInfo): Promise<boolean> {
  const now = await store.head(key).catch(ignoreUnreadable)
  return now?.etag === etag && now.modified.getTime() === modified.getTime()
}

/** For `catch`: a blob that cannot be read stays for `verifyStore` to report. */
function ignoreUnreadable(error: unknown): undefined {
  if (!isUnreadable(error)) ignoreNotFound(error)
}

async function namedBlobs(store: Store): Promise<Set<string>> {
  const catalog = new Catalog(store, (error) => {
    throw error
  })
  await catalog.refresh()
  return new Set(catalog.list().flatMap(({ record }) => objectsOf(record)))
}
