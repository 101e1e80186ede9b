/* The last step of `pack` and `gc`, which change the packs of a store: its catalog names them. */
import { Catalog, SNAPSHOT_KEY, type Store, signatureKey } from '../../storage/index.ts'

/**
 * Publishes the catalog with the packs that the store has now. A signed catalog is not replaced by one without a
 * signature: a line on stderr says so. Errors: those of `Catalog.publish`.
 */
export async function publishPacks(
  store: Store,
  command: string,
  secretKey: string | undefined,
): Promise<void> {
  const isSigned = store.head(signatureKey(SNAPSHOT_KEY)).then(
    () => true,
    () => false,
  )
  if (secretKey !== undefined || !(await isSigned)) await Catalog.publish(store, secretKey)
  else
    console.error(
      `btfmill: the signed catalog does not name the packs as they are now: publish it with \`btfmill sign\`, or run ${command} with --secret-key`,
    )
}
