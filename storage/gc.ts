/*
 * Garbage collection: removes blobs that no record names. A blob is written before its record, so a recent blob may
 * still get one and stays. A writer that stores existing BTF makes the blob recent again (`putBlob`). After it has
 * written the record it checks that the blob still exists.
 */
import { Catalog } from './catalog.ts'
import { ignoreNotFound } from './error.ts'
import { blobKey, shaOfBlobKey } from './name.ts'
import type { ObjectInfo, Store } from './store.ts'
import { digestsOf } from './verify.ts'

/** The age in milliseconds from which a blob is removed. */
export const MIN_AGE = 24 * 3600 * 1000

export interface GcOptions {
  /** milliseconds; a blob that is younger stays (default: 24 hours) */
  minAge?: number
  now?: Date
  signal?: AbortSignal
}

/**
 * Removes unnamed blobs and yields each of them. An invalid record might name any blob, so with one nothing is removed.
 * Errors: `invalid_record`; those of `Store`.
 */
export async function* collectGarbage(
  store: Store,
  { minAge = MIN_AGE, now = new Date(), signal }: GcOptions = {},
): AsyncGenerator<ObjectInfo> {
  const before = now.getTime() - minAge
  // blobs are listed before records, so that a record written between the two is seen
  const blobs = await Array.fromAsync(store.list('blobs/'))
  const old = blobs.filter(({ modified }) => modified.getTime() < before)
  if (old.length === 0) return
  const named = await namedBlobs(store)
  for (const blob of old) {
    signal?.throwIfAborted()
    if (named.has(blob.key) || shaOfBlobKey(blob.key) === undefined) continue
    const current = await store.head(blob.key).catch(ignoreNotFound)
    if (current?.etag !== blob.etag) continue // deleted or written again meanwhile
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
