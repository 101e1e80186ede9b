/*
 * Programs that do work for us: started with argument arrays, limited in time, memory and output, ended with the run
 * that wanted them. What ended one is a value, since only the caller knows what it means.
 */
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

/** How much of stderr is kept, in characters: the end of it. */
const STDERR_KEPT = 4096
/** How much of stdout is kept, in bytes. */
const STDOUT_MAX = 16 * 1024 * 1024
/** How often memory is looked at, in milliseconds. */
const WATCH = 20

export interface Limits {
  /** wall time */
  seconds: number
  /**
   * bytes of anonymous memory (`RssAnon`), or whether it may have so many: mapped files, such as a vmlinux, do not count
   */
  memory?: number | ((bytes: number) => boolean)
  /** bytes of any file it writes */
  fileSize?: number
  signal?: AbortSignal
}

export interface ChildResult {
  /** `limit` and `time`: we ended it; `signal`: something else did */
  ended: 'status' | 'signal' | 'memory' | 'time' | 'missing'
  /** exit status, where it ended by itself */
  status: number | null
  signal: NodeJS.Signals | null
  stdout: Buffer
  /** its end */
  stderr: string
}

/** The programs that run for us now. */
const running = new Set<ChildProcess>()

/**
 * Starts a program. A terminal's SIGINT is for the run that wants it, which may want it to finish, and not for the
 * program: it has a group of its own.
 */
export function start(program: string, args: readonly string[]): ChildProcessWithoutNullStreams {
  const { MALLOC_MMAP_THRESHOLD_: _ours, ...env } = process.env // pahole is quicker without
  const child = spawn(program, args, { detached: true, env })
  running.add(child)
  for (const event of ['exit', 'error']) child.once(event, () => running.delete(child))
  return child
}

/** How many cores no program of ours keeps busy; at least one, for the program that asks. */
export const spareCores = (): number => Math.max(1, availableParallelism() - running.size)

/** Runs a program to its end. Throws only where `signal` aborts it: then the signal's reason. */
export async function runChild(
  program: string,
  args: readonly string[],
  limits: Limits,
): Promise<ChildResult> {
  const result = await runOnce(program, args, limits)
  // a terminal's SIGINT may find a program that has no group of its own yet, and has done nothing
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
    child.kill('SIGKILL')
  }
  const clock = setTimeout(end, limits.seconds * 1000, 'time')
  const watch =
    limits.memory &&
    setInterval(() => mayHave(anonymousMemory(child.pid), limits) || end('memory'), WATCH)
  const abort = () => child.kill('SIGKILL')
  limits.signal?.addEventListener('abort', abort, { once: true })
  try {
    const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
    limits.signal?.throwIfAborted()
    // prlimit exits as shells do where the program is not there
    if (limits.fileSize && status === 127) ended ??= 'missing'
    ended ??= signal ? 'signal' : 'status'
    return { ended, status, signal, stdout: stdout(), stderr: stderr() }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return { ended: 'missing', status: null, signal: null, stdout: stdout(), stderr: stderr() }
  } finally {
    clearTimeout(clock)
    if (watch) clearInterval(watch)
    limits.signal?.removeEventListener('abort', abort)
  }
}

const mayHave = (bytes: number, { memory = Number.POSITIVE_INFINITY }: Limits): boolean =>
  typeof memory === 'number' ? bytes <= memory : memory(bytes)

/** Collects the end of a child's stderr; the function returns what there is so far. */
export function keepEnd(child: ChildProcessWithoutNullStreams): () => string {
  let text = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text = (text + chunk).slice(-STDERR_KEPT)
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

/** Bytes of anonymous memory of a process; 0 where it cannot be told, or is no more. */
function anonymousMemory(pid: number | undefined): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}
