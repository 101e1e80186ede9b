/*
 * A lock on a directory's disk: a symbolic link whose target names its holder, since a link is made with its content
 * at once. One whose holder was killed is taken over.
 */
import { readlink, symlink, unlink } from 'node:fs/promises'
import { StoreError } from './error.ts'
import { isAbandoned, WRITER } from './writer.ts'

/** A lock is held for one rename; a holder that cannot be asked is dead after this, in milliseconds. */
const ABANDONED = 60 * 1000

/** Runs `run` while it holds the lock. Errors: `precondition_failed` where a living writer holds it. */
export async function withLock(path: string, run: () => Promise<void>): Promise<void> {
  await take(path)
  try {
    await run()
  } finally {
    await unlink(path)
  }
}

/** Whether the holder of a lock is dead, or so long at it that it must be. */
export async function isAbandonedLock(path: string): Promise<boolean> {
  return await isAbandoned(await readlink(path).catch(() => ''), path, ABANDONED)
}

async function take(path: string): Promise<void> {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      return await symlink(WRITER, path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      if (await isAbandonedLock(path)) await unlink(path).catch(() => {})
    }
  }
  throw new StoreError('precondition_failed', 'another writer replaces it just now')
}
