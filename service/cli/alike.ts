/* The index of a store, as a command that works on many kernels uses it: as it is, and only if it is there. */
import type { Store } from '../../storage/index.ts'
import { findIndex } from '../declarations/location.ts'

import type { FindAlike } from '../threads/shared-answers.ts'

/** Finds kernels that share answers in the index of a store; undefined if it has none of use. */
export async function alikeIn({ url }: Store): Promise<FindAlike | undefined> {
  const path = await findIndex(url)
  if (path === undefined) return undefined
  const { IndexReader } = await import('../declarations/reader.ts')
  try {
    const reader = new IndexReader(path)
    return async (sha256, keys) => reader.alike(sha256, keys)
  } catch {
    return undefined // it is of another version, or damaged
  }
}
