/*
 * Scratch directories for unpacked files. Their names contain the id of the process that uses them. The process removes
 * them in any case; if it was killed, the next run does.
 */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PREFIX = 'btfmill-'

/** Calls `work` with a new directory below `parent` (default: the system's directory), and removes it afterwards. */
export async function withScratch<T>(
  parent = tmpdir(),
  work: (directory: string) => Promise<T>,
): Promise<T> {
  await mkdir(parent, { recursive: true })
  const directory = await mkdtemp(join(parent, `${PREFIX}${process.pid}-`))
  try {
    return await work(directory)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** Removes the scratch directories below `parent` whose processes no longer run. */
export async function removeAbandonedScratch(parent = tmpdir()): Promise<void> {
  for (const name of await readdir(parent).catch(() => [])) {
    const [, pid] = /^btfmill-(\d+)-\w{6}$/.exec(name) ?? []
    if (pid && !isRunning(Number(pid)))
      await rm(join(parent, name), { recursive: true, force: true })
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
