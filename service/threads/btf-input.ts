/* Reads BTF of a store with the help of threads, which decompress and check it. */
import {
  getBlob,
  orPacked,
  packsOf,
  readBlob,
  readStoredBytes,
  type Store,
  StoreError,
} from '../../storage/index.ts'
import type { Pool } from './pool.ts'
import type { BtfInput } from './worker.ts'

/** Reads BTF of a store for a task. */
export type ReadBtf = (btf: { sha256: string; size: number }) => Promise<BtfInput>

/**
 * Runs a task with BTF as the store has it, which a thread checks. If it is damaged there, the task runs once more with BTF
 * that was checked before: of a pack in place of a blob, or of another pack. Errors: those of `task`; `digest_mismatch` if
 * all that the store has is damaged.
 */
export async function withStored<T>(store: Store, task: (read: ReadBtf) => Promise<T>): Promise<T> {
  try {
    return await task((btf) => readInput(store, btf))
  } catch (error) {
    if (!(error instanceof StoreError) || error.code !== 'digest_mismatch') throw error
    return await task(({ sha256 }) => getBlob(store, sha256))
  }
}

/**
 * The BTF as the store has it: the frame of its blob, or the steps of a pack. Its size is checked in the thread. Errors:
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
    () => packsOf(store).rebuild(sha256, (btf) => pool.run('unpack', { btf }, signal)),
  )
}
