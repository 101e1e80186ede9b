/*
 * The function names of kernels, for checks of objects that are attached to functions. Names that are lost or damaged
 * are not known, as those of older records: `verify` reports them, and the check goes on.
 */
import { getSymbols, isDamagedObject, type Store } from '../../storage/index.ts'

/** Reads the function names with a digest; undefined without one, or if they cannot be read. Errors: those of `Store`. */
export async function functionsIn(
  store: Store,
  symbols: { sha256: string } | undefined,
): Promise<Buffer | undefined> {
  if (!symbols) return undefined
  return await getSymbols(store, symbols.sha256).catch((error: unknown) => {
    if (!isDamagedObject(error)) throw error
    return undefined
  })
}
