/* Reads BTF of a store for the tasks of threads, which decompress and check it. */
import { readStoredBytes, type Store } from '../../storage/index.ts'
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
