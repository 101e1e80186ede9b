/*
 * Removes kernels: their records, and with them their places in the snapshot and in the archive tree. Blobs stay until
 * `collectGarbage` finds that no record names them. A kernel's archive goes before its records: of a killed run,
 * `verifyStore` makes the archive again or brings the snapshot up to date, as the records say.
 */
import { archiveKey, hasArchivePath } from './archive.ts'
import { Catalog } from './catalog.ts'
import { mapConcurrent } from './concurrency.ts'
import { ignoreNotFound, isUnreadable } from './error.ts'
import type { KernelName } from './kernel.ts'
import { objectsOf } from './lost.ts'
import { publishArchive, readManifest } from './manifest.ts'
import { kernelPrefix } from './name.ts'
import type { Store } from './store.ts'

/** Concurrent requests to the store. */
const CONCURRENCY = 8

/** Objects that no record names any more, and their bytes in the store. */
export interface FreedObjects {
  blobs: number
  bytes: number
}

/**
 * Removes all builds of kernels, and brings the snapshot and the archive tree up to date; with a key it signs both. Calls
 * `onRemoved` after each kernel. Errors: `invalid_key`; `precondition_failed` if other writers always win; those of
 * `Store`.
 */
export async function removeKernels(
  store: Store,
  kernels: readonly KernelName[],
  { secretKey, onRemoved }: { secretKey?: string; onRemoved?: (kernel: KernelName) => void } = {},
): Promise<void> {
  for (const kernel of kernels) {
    if (hasArchivePath(kernel)) await store.delete(archiveKey(kernel))
    for await (const { key } of store.list(kernelPrefix(kernel))) await store.delete(key)
    onRemoved?.(kernel)
  }
  const catalog = await Catalog.publish(store, secretKey)
  const hasArchive = await readManifest(store).catch((error) => {
    if (!isUnreadable(error)) throw error
  })
  if (hasArchive) await publishArchive(store, catalog, secretKey ? { secretKey } : {})
}

/** What `collectGarbage` could remove if these kernels were gone: objects that no other kernel names. */
export async function freedBy(
  store: Store,
  catalog: Catalog,
  kernels: readonly KernelName[],
): Promise<FreedObjects> {
  const gone = new Set(kernels.map(kernelPrefix))
  const [freed, kept] = [new Set<string>(), new Set<string>()]
  for (const { record } of catalog.list()) {
    const into = gone.has(kernelPrefix(record.kernel)) ? freed : kept
    for (const object of objectsOf(record)) into.add(object)
  }
  const sizes = await mapConcurrent([...freed.difference(kept)], CONCURRENCY, async (key) => {
    const info = await store.head(key).catch(ignoreNotFound)
    return info ? [info.size] : []
  })
  const found = sizes.flat()
  return { blobs: found.length, bytes: found.reduce((sum, size) => sum + size, 0) }
}
