/*
 * Removes blobs that no record names. A blob is written before its record, so a young one may only be waiting for it:
 * it stays. Who keeps BTF that is there already makes an old blob young again (`putBlob`), and looks after the record
 * is written whether the blob is still there.
 */
import { Catalog } from './catalog.ts'
import { absentIsNone } from './error.ts'
import { blobKey, shaOfBlobKey } from './name.ts'
import type { ObjectInfo, Store } from './store.ts'
import { digestsOf } from './verify.ts'

/** Milliseconds that a blob is young. */
export const YOUNG = 24 * 3600 * 1000

export interface GcOptions {
  /** milliseconds; a blob that was written later than that ago stays */
  young?: number
  now?: Date
  signal?: AbortSignal
}

/**
 * Gives each blob that was removed. Records that do not read might name any blob: then nothing is removed. Errors:
 * `invalid_record`, and those of the store.
 */
export async function* collectGarbage(
  store: Store,
  { young = YOUNG, now = new Date(), signal }: GcOptions = {},
): AsyncGenerator<ObjectInfo> {
  const before = now.getTime() - young
  // first the blobs, then the records: what is named between the two is seen
  const blobs = await Array.fromAsync(store.list('blobs/'))
  const old = blobs.filter(({ modified }) => modified.getTime() < before)
  if (old.length === 0) return
  const named = await namedBlobs(store)
  for (const blob of old) {
    signal?.throwIfAborted()
    if (named.has(blob.key) || shaOfBlobKey(blob.key) === undefined) continue
    const current = await store.head(blob.key).catch(absentIsNone)
    if (current?.etag !== blob.etag) continue // written again meanwhile
    await store.delete(blob.key)
    yield blob
  }
}

async function namedBlobs(store: Store): Promise<Set<string>> {
  const catalog = new Catalog(store, (error) => {
    throw error
  })
  await catalog.refresh()
  return new Set(catalog.list().flatMap(({ record }) => digestsOf(record).map(blobKey)))
}
