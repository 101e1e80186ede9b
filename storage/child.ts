/*
 * Programs that end with this process, even if SIGKILL ends it: nobody else would enforce their limits then. Node cannot
 * ask the kernel for that, but setpriv of util-linux can (prctl(2), PR_SET_PDEATHSIG), and the request outlives exec(2).
 * A shell between them looks whether this process had ended before the request was made.
 */
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/**
 * Returns the program and the arguments to start instead of `program` with `args`, so that it ends with this process. It
 * keeps the process id, the limits and the exit status. Without setpriv, and for a program that is not installed, the
 * command is returned unchanged.
 */
export function boundToParent(program: string, args: readonly string[]): [string, string[]] {
  const [setpriv, found] = [findProgram('setpriv'), findProgram(program)]
  if (setpriv === undefined || found === undefined) return [program, [...args]]
  const check = ['sh', '-c', '[ "$PPID" = "$0" ] && exec "$@"', String(process.pid)]
  return [setpriv, ['--pdeathsig', 'KILL', '--', ...check, found, ...args]]
}

/** The path of an installed program. */
function findProgram(name: string): string | undefined {
  const places = name.includes('/')
    ? [name]
    : (process.env.PATH ?? '').split(delimiter).map((directory) => join(directory, name))
  return places.find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
