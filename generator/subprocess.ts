/*
 * Runs other programs, with argument arrays instead of a shell, with limits of time, memory and output. An aborted run
 * kills its programs. The way in which a program ended is a value: only the caller knows what it means.
 */
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { boundToParent } from '../storage/index.ts'

/** The end of stderr that is kept, in characters. */
const STDERR_MAX = 4096
/** The beginning of stdout that is kept, in bytes. */
const STDOUT_MAX = 16 * 1024 * 1024
/** Milliseconds between two measurements of memory. */
const MEMORY_INTERVAL = 20

export interface Limits {
  /** wall-clock time */
  seconds: number
  /**
   * bytes of anonymous memory (`RssAnon`), or a function that tells whether the program may use that many; mapped
   * files, such as a vmlinux, do not count
   */
  memory?: number | ((bytes: number) => boolean)
  /** bytes of each file that the program writes */
  fileSize?: number
  signal?: AbortSignal
}

export interface ChildResult {
  /** `memory` and `time`: killed at that limit; `signal`: ended by another signal; `missing`: not installed */
  ended: 'status' | 'signal' | 'memory' | 'time' | 'missing'
  /** exit status; null unless the program exited by itself */
  status: number | null
  signal: NodeJS.Signals | null
  stdout: Buffer
  /** the end of it */
  stderr: string
}

/** The programs that this process has started and that still run. */
const running = new Set<ChildProcess>()

/**
 * Starts a program in a process group of its own, so that Ctrl-C in a terminal reaches only this process, which may let
 * the program finish. If this process is killed, the program is killed, too.
 */
export function start(program: string, args: readonly string[]): ChildProcessWithoutNullStreams {
  const { MALLOC_MMAP_THRESHOLD_: _ours, ...env } = process.env // it slows pahole down
  const child = spawn(...boundToParent(program, args), { detached: true, env })
  running.add(child)
  for (const event of ['exit', 'error']) child.once(event, () => running.delete(child))
  return child
}

/** The number of cores that no started program uses; at least 1. */
export const spareCores = (): number => Math.max(1, availableParallelism() - running.size)

/** Runs a program to its end. Rejects only with the reason of `limits.signal`. */
export async function runChild(
  program: string,
  args: readonly string[],
  limits: Limits,
): Promise<ChildResult> {
  const result = await runOnce(program, args, limits)
  // Ctrl-C may hit a program that is just starting, before it has a process group of its own
  return result.signal === 'SIGINT' ? await runOnce(program, args, limits) : result
}

async function runOnce(
  program: string,
  args: readonly string[],
  limits: Limits,
): Promise<ChildResult> {
  limits.signal?.throwIfAborted()
  const command = limits.fileSize
    ? ['prlimit', `--fsize=${limits.fileSize}`, '--', program]
    : [program]
  const child = start(command[0]!, [...command.slice(1), ...args])
  child.stdin.on('error', () => {}).end()
  const stderr = keepEnd(child)
  const stdout = keepStart(child)
  let ended: ChildResult['ended'] | undefined
  const end = (why: ChildResult['ended']) => {
    ended ??= why
    killGroup(child)
  }
  const timer = setTimeout(end, limits.seconds * 1000, 'time')
  const watch =
    limits.memory &&
    setInterval(() => mayUse(anonymousMemory(child.pid), limits) || end('memory'), MEMORY_INTERVAL)
  const abort = () => killGroup(child)
  limits.signal?.addEventListener('abort', abort, { once: true })
  try {
    const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
    limits.signal?.throwIfAborted()
    // prlimit exits with 127 for a missing program, as shells do
    if (limits.fileSize && status === 127) ended ??= 'missing'
    ended ??= signal ? 'signal' : 'status'
    return { ended, status, signal, stdout: stdout(), stderr: stderr() }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return { ended: 'missing', status: null, signal: null, stdout: stdout(), stderr: stderr() }
  } finally {
    clearTimeout(timer)
    if (watch) clearInterval(watch)
    limits.signal?.removeEventListener('abort', abort)
  }
}

/** Ends a program and those that it started, such as the parts of a compiler. */
function killGroup(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, 'SIGKILL')
  } catch {
    child.kill('SIGKILL') // it has ended, or was not started
  }
}

const mayUse = (bytes: number, { memory = Number.POSITIVE_INFINITY }: Limits): boolean =>
  typeof memory === 'number' ? bytes <= memory : memory(bytes)

/** Collects the end of a child's stderr. The returned function gives what has been collected so far. */
export function keepEnd(child: ChildProcessWithoutNullStreams): () => string {
  let text = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text = (text + chunk).slice(-STDERR_MAX)
  })
  return () => text.trim()
}

function keepStart(child: ChildProcessWithoutNullStreams): () => Buffer {
  const chunks: Buffer[] = []
  let size = 0
  child.stdout.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size <= STDOUT_MAX) chunks.push(chunk)
  })
  return () => Buffer.concat(chunks)
}

/** Bytes of anonymous memory of a process; 0 if it has ended or /proc does not tell. */
function anonymousMemory(pid: number | undefined): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}
