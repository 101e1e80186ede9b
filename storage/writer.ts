/*
 * Who writes into a directory: a process, as its temporary files and locks name it, and whether one that is named
 * still lives. A process id is one process only on one machine since it booted, in one PID namespace (a container
 * has its own), and since that process started; so the name holds all of these.
 */
import { createHash } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { lstat } from 'node:fs/promises'
import { hostname } from 'node:os'

const orNone = (read: () => string): string => {
  try {
    return read()
  } catch {
    return '' // not Linux, or a /proc that hides it
  }
}

/** Where a process id means something. */
const SPACE = createHash('sha256')
  .update(hostname())
  .update(orNone(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')))
  .update(orNone(() => readlinkSync('/proc/self/ns/pid')))
  .digest('hex')
  .slice(0, 16)

/** This process: `<space>.<pid>.<start>`. */
export const WRITER = `${SPACE}.${process.pid}.${startOf(process.pid)}`

/**
 * Whether the writer that a name starts with is gone and left this file behind: of a process that can be asked, as it
 * is; of another machine's, once the file is older than `age` milliseconds.
 */
export async function isAbandoned(name: string, path: string, age: number): Promise<boolean> {
  const [space, pid, start] = name.split('.')
  if (space === SPACE) return !isRunning(Number(pid)) || startOf(Number(pid)) !== start
  const { mtimeMs } = await lstat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }))
  return Date.now() - mtimeMs > age
}

/** When a process started, in clock ticks since boot: proc_pid_stat(5), field 22, behind a name in parentheses. */
function startOf(pid: number): string {
  const stat = orNone(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
