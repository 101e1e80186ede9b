/*
 * The identity of a writing process, which is part of the names of its temporary files and locks, and the test whether
 * such a process is still alive. A process id identifies a process only together with the machine and its boot, the PID
 * namespace (a container has its own) and the process's start time. So a writer's name has all of these.
 */
import { createHash } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { lstat } from 'node:fs/promises'
import { hostname } from 'node:os'

const orEmpty = (read: () => string): string => {
  try {
    return read()
  } catch {
    return '' // not Linux, or /proc hides it
  }
}

/** The machine, its boot and the PID namespace, within which a process id is unique. */
const SPACE = createHash('sha256')
  .update(hostname())
  .update(orEmpty(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')))
  .update(orEmpty(() => readlinkSync('/proc/self/ns/pid')))
  .digest('hex')
  .slice(0, 16)

/** The name of this process: `<space>.<pid>.<start>`. */
export const WRITER = `${SPACE}.${process.pid}.${startOf(process.pid)}`

/**
 * Tells whether the writer at the start of a file's name is dead. A process of this machine is looked up. A process of
 * another machine counts as dead once its file is older than `age` milliseconds.
 */
export async function isAbandoned(name: string, path: string, age: number): Promise<boolean> {
  const [space, pid, start] = name.split('.')
  if (space === SPACE) return !isRunning(Number(pid)) || startOf(Number(pid)) !== start
  const { mtimeMs } = await lstat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }))
  return Date.now() - mtimeMs > age
}

/** A process's start time in clock ticks since boot: field 22 of proc_pid_stat(5), after the name in parentheses. */
function startOf(pid: number): string {
  const stat = orEmpty(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))
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
