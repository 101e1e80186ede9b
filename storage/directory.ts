/* Directories that are made and last: each new name is synced in the directory that holds it. */
import { mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Makes a directory with those above it that are missing, and gives the topmost it made, if any. The recursive `mkdir`
 * of Node tries for ever where mkdir(2) says ENOENT below a directory that is there, as /proc does; this tries again
 * once, and `last` is that time.
 */
export async function makeDirectories(path: string, last = false): Promise<string | undefined> {
  try {
    await mkdir(path)
    return path
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return undefined
    if (code !== 'ENOENT' || last) throw error
  }
  const top = await makeDirectories(dirname(path))
  const made = await makeDirectories(path, true)
  return top ?? made
}

/** Makes the names in a directory last, and those in the directories above it up to `top`. */
export async function syncDirectories(path: string, top: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
  if (path !== top) await syncDirectories(dirname(path), top)
}
