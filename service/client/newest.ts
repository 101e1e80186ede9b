/*
 * Remembers for each public key when the newest catalog was signed, so that a server cannot go back to an older one,
 * which names BTF that was replaced for a reason.
 *
 * The time is the name of an empty file. Agents that run at once need no lock, and there is no content to be damaged:
 * the newest is the greatest name, and names that are no time are skipped.
 */
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** The time of the newest catalog that is remembered in a directory, in seconds since 1970; 0 if there is none. */
export async function newestTime(directory: string): Promise<number> {
  return Math.max(0, ...(await timesIn(directory)))
}

/** Remembers the time of a catalog, and forgets older ones. Errors: the system's. */
export async function rememberTime(directory: string, time: number): Promise<void> {
  await mkdir(directory, { recursive: true })
  await writeFile(join(directory, String(time)), '')
  const times = await timesIn(directory)
  const newest = Math.max(...times)
  // a time that cannot be removed does no harm
  for (const older of times)
    if (older < newest) await rm(join(directory, String(older)), { force: true }).catch(() => {})
}

async function timesIn(directory: string): Promise<number[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names.filter((name) => /^[1-9]\d{0,11}$/.test(name)).map(Number)
}
