/* Derives from the records, after jobs have ended, the catalog's snapshot and the btfhub-archive tree. */
import { Catalog, publishArchive, type Store } from '../../storage/index.ts'

export interface PublishOptions {
  store: Store
  /** maintain the btfhub-archive tree, too */
  archive?: boolean
  /** minisign secret key: signs the snapshot of the catalog and the archive tree's manifest */
  secretKey?: string
  signal?: AbortSignal
}

/** Publishes the catalog's snapshot and, with `archive`, the archive tree. Errors: those of the store and of xz. */
export async function publishCatalog(options: PublishOptions): Promise<void> {
  const catalog = await Catalog.publish(options.store, options.secretKey)
  if (options.archive) await publishTree(catalog, options)
}

/** Updates the archive tree to the catalog. Errors: those of the store and of xz. */
export async function publishTree(catalog: Catalog, options: PublishOptions): Promise<void> {
  const { store, secretKey, signal } = options
  await publishArchive(store, catalog, {
    ...(secretKey && { secretKey }),
    ...(signal && { signal }),
  })
}
