/* Durable directories: each new name is synced in the directory that holds it. */
import { mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Makes a directory and its missing parents. Returns the topmost that was made, if any. Node's recursive `mkdir` never
 * ends if mkdir(2) gives ENOENT below an existing directory, as in /proc. This one tries once more, with `last` set.
 * Errors: those of mkdir(2).
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

/**
 * Syncs a directory and its parents up to `top`, so that new names in them survive a crash. Errors: those of fsync(2).
 */
export async function syncDirectories(path: string, top: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
  if (path !== top) await syncDirectories(dirname(path), top)
}
