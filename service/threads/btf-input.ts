/* Reads BTF of a store with the help of threads, which decompress and check it. */
import { orPacked, packsOf, readBlob, readStoredBytes, type Store } from '../../storage/index.ts'
import type { Pool } from './pool.ts'
import type { BtfInput } from './worker.ts'

/**
 * Reads BTF as the store has it: the frame of its blob, or the steps of a pack. Its size is checked in the thread. Errors:
 * those of `readStoredBytes`.
 */
export async function readInput(
  store: Store,
  { sha256, size }: { sha256: string; size: number },
): Promise<BtfInput> {
  const form = await readStoredBytes(store, sha256)
  return 'frame' in form ? { frame: form.frame, sha256, size } : form.packed
}

/**
 * Reads raw BTF and checks it. A thread rebuilds BTF that only a pack has: a long chain takes a tenth of a second. Errors:
 * those of `getBlob` and of `Pool.run`.
 */
export async function readRaw(
  store: Store,
  pool: Pool,
  sha256: string,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  return await orPacked<Uint8Array>(
    async () => (await readBlob(store, sha256)).raw,
    async () => {
      const btf = await packsOf(store).steps(sha256)
      return btf && (await pool.run('unpack', { btf }, signal))
    },
  )
}
