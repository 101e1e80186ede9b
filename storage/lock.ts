/*
 * A lock file: a symbolic link whose target names the holder. A link is created together with its content, in one step.
 * The lock of a killed holder is stale and taken over.
 */
import { readlink, symlink, unlink } from 'node:fs/promises'
import { StoreError } from './error.ts'
import { isAbandoned, WRITER } from './writer.ts'

/** A lock is held for one rename. A lock of another machine is stale after this time, in milliseconds. */
const STALE_AFTER = 60 * 1000

/** Runs a function while it holds the lock at `path`. Errors: `precondition_failed` if another writer holds it. */
export async function withLock(path: string, run: () => Promise<void>): Promise<void> {
  await acquire(path)
  try {
    await run()
  } finally {
    await unlink(path)
  }
}

/** Tells whether a lock's holder is dead, or has held it for so long that it must be. */
export async function isStaleLock(path: string): Promise<boolean> {
  return await isAbandoned(await readlink(path).catch(() => ''), path, STALE_AFTER)
}

async function acquire(path: string): Promise<void> {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      return await symlink(WRITER, path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      if (await isStaleLock(path)) await unlink(path).catch(() => {})
    }
  }
  throw new StoreError('precondition_failed', 'another writer is replacing the object')
}
