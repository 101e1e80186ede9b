/*
 * The sandbox of a compiler that reads headers of a package. Where the machine allows it, the compiler runs in namespaces
 * of its own (user, mount, network, PID, IPC): its root directory has the system's programs and libraries, the headers,
 * all of them read-only, and one directory that it may write to. There is no network and nothing of the user's. Without
 * namespaces (in most containers) the limits remain: an empty environment, memory, CPU time, size of files, and no more
 * privileges; the caller then looks at which files were read.
 */
import { GeneratorError } from '../error.ts'
import { type ChildResult, runChild } from '../subprocess.ts'

export interface SandboxLimits {
  /** bytes of address space of each process */
  memory: number
  /** seconds, of CPU and wall-clock time of each run */
  seconds: number
  /** bytes of each file that is written */
  fileSize: number
}

export const SANDBOX_LIMITS: SandboxLimits = {
  memory: 6 * 1024 ** 3,
  seconds: 300,
  fileSize: 512 * 1024 ** 2,
}

/** The names by which the compiler sees its two directories. */
export interface SandboxPaths {
  /** the headers */
  headers: string
  /** the directory that it may write to */
  work: string
}

const INSIDE: SandboxPaths = { headers: '/headers', work: '/work' }

/** Builds the root directory, enters it and gives up all privileges. Positional parameters: root, headers, work, command. */
const ENTER = `
set -e
root=$1 headers=$2 work=$3
shift 3
mount -t tmpfs -o size=16m,mode=755 tmpfs "$root"
for directory in /usr /bin /lib /lib32 /lib64 /libx32 /etc/alternatives; do
  if [ -L "$directory" ]; then ln -s "$(readlink "$directory")" "$root$directory"
  elif [ -d "$directory" ]; then
    mkdir -p "$root$directory"
    mount --rbind "$directory" "$root$directory"
    mount -o remount,bind,ro "$root$directory"
  fi
done
mkdir "$root/headers" "$root/work" "$root/dev" "$root/tmp"
mount --bind "$headers" "$root/headers"
mount -o remount,bind,ro "$root/headers"
mount --bind "$work" "$root/work"
: > "$root/dev/null"
mount --bind /dev/null "$root/dev/null"
cd "$root"
exec chroot "$root" setpriv --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"
`

const NAMESPACES = [
  ...['--user', '--map-root-user', '--mount', '--net', '--ipc', '--pid', '--fork', '--kill-child'],
  ...['--', 'sh', '-c', ENTER, 'sh'],
]

export class Sandbox {
  readonly #outside: SandboxPaths
  readonly #root: string
  readonly #limits: SandboxLimits
  readonly #signal: AbortSignal | undefined
  /** whether programs run in namespaces */
  readonly isolated: boolean

  private constructor(
    outside: SandboxPaths,
    root: string,
    limits: SandboxLimits,
    isolated: boolean,
    signal: AbortSignal | undefined,
  ) {
    this.#outside = outside
    this.#root = root
    this.#limits = limits
    this.#signal = signal
    this.isolated = isolated
  }

  /** Opens the best sandbox that this machine has. `root`: path of an empty directory for its use. */
  static async open(
    outside: SandboxPaths,
    root: string,
    limits: SandboxLimits = SANDBOX_LIMITS,
    signal?: AbortSignal,
  ): Promise<Sandbox> {
    const isolated = new Sandbox(outside, root, limits, true, signal)
    const probe = await isolated.run('/bin/sh', ['-c', 'test -d /headers && test -w /work'])
    if (probe.ended === 'status' && probe.status === 0) return isolated
    return new Sandbox(outside, root, limits, false, signal)
  }

  /** The directories as the programs in the sandbox see them. */
  get paths(): SandboxPaths {
    return this.isolated ? INSIDE : this.#outside
  }

  /** Runs a program, given by its path. Rejects only with the reason of the signal. */
  async run(program: string, args: readonly string[]): Promise<ChildResult> {
    const { memory, seconds, fileSize } = this.#limits
    const { headers, work } = this.#outside
    const limits = [`--as=${memory}`, `--cpu=${seconds}`, `--fsize=${fileSize}`, '--core=0']
    const command = this.isolated
      ? ['unshare', ...NAMESPACES, this.#root, headers, work, program, ...args]
      : ['setpriv', '--no-new-privs', '--', program, ...args]
    const environment = ['-i', 'PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin', 'LC_ALL=C']
    return await runChild(
      'env',
      [...environment, `TMPDIR=${this.paths.work}`, 'prlimit', ...limits, '--', ...command],
      { seconds, ...(this.#signal && { signal: this.#signal }) },
    )
  }
}

/** Throws for a program that a limit ended. Errors: `headers_limit`, `internal` if the sandbox cannot run at all. */
export function checkLimits({ ended, signal, status, stderr }: ChildResult, what: string): void {
  const isKilled = ended === 'time' || ended === 'signal' || (status ?? 0) > 128
  const isFull =
    /(?:out of memory|cannot allocate|virtual memory exhausted|bad_alloc|file too large|file size limit)/i
  if (!isKilled && !(status !== 0 && isFull.test(stderr))) return
  const why = ended === 'time' || signal === 'SIGXCPU' ? 'time' : 'memory, time or output'
  throw new GeneratorError('headers_limit', `${what} needed more ${why} than it may use`)
}
