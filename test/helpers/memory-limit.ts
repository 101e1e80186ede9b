/* A memory limit as containers have it: a control group of its own, where this machine allows one. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** The mounts of both versions of control groups, their lines of /proc/self/cgroup, and the file for the limit. */
const VERSIONS = [
  { own: /^0::(.*)$/m, mount: '/sys/fs/cgroup', limit: 'memory.max' },
  {
    own: /^\d+:(?:[\w,=]+,)?memory(?:,[\w,=]+)*:(.*)$/m,
    mount: '/sys/fs/cgroup/memory',
    limit: 'memory.limit_in_bytes',
  },
] as const

/**
 * Makes a control group with a limit in bytes, removed by `teardown`, after its processes have ended. Returns the words to
 * put before a command that runs in it; undefined if this machine allows none.
 */
export function limitMemory(
  bytes: number,
  teardown: (end: () => void) => void,
): string[] | undefined {
  for (const { own, mount, limit } of VERSIONS) {
    const path = own.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1]
    if (path === undefined) continue
    const group = join(mount, path, `btfmill-${process.pid}`)
    try {
      mkdirSync(group)
    } catch {
      continue
    }
    if (!existsSync(join(group, limit))) {
      rmdirSync(group) // no group, or one without this controller
      continue
    }
    writeFileSync(join(group, limit), `${bytes}`)
    teardown(() => rmdirSync(group))
    return ['sh', '-c', 'echo $$ > "$0"/cgroup.procs && exec "$@"', group]
  }
  return undefined
}
