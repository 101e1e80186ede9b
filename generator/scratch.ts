/*
 * Scratch directories: named after the process that works in them, removed by it whatever happens, and by the next
 * run where it was killed.
 */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PREFIX = 'btfmill-'

/** Runs `work` in an empty directory below `parent` (else the system's temporary directory), then removes it. */
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

/** Removes what killed processes of this machine left below `parent`. */
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
