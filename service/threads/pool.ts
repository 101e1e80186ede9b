/*
 * Threads for work on what strangers sent: `worker.ts`, with a limit on the time and the memory that a task takes. A
 * thread that is over either is ended and replaced, and so is one whose client went away; the process goes on. Tasks
 * that find no thread free wait in turn, and only so many may.
 */
import { availableParallelism } from 'node:os'
import { extname, join } from 'node:path'
import { Piscina } from 'piscina'
import { BtfError } from '../../bpf/index.ts'
import { StoreError } from '../../storage/index.ts'
import { Semaphore } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Tasks, WorkerAnswer } from './worker.ts'

export interface PoolLimits {
  threads: number
  /** so many start at once, and stay; the others with the tasks */
  ready: number
  /** milliseconds for one task, from when it has a thread */
  time: number
  /** megabytes of JavaScript values in one thread */
  memory: number
  /** tasks that wait for a thread */
  waiting: number
}

/** Minimising for one of libbpf's tools takes 10 ms and 30 MB; what takes a thousand times that is not meant well. */
const LIMITS: PoolLimits = {
  threads: availableParallelism(),
  ready: 0,
  time: 10_000,
  memory: 256,
  waiting: 256,
}

/** A folder that was compiled has no `.ts` files. */
const WORKER = join(import.meta.dirname, `worker${extname(import.meta.filename)}`)

export class Pool {
  readonly #limits: PoolLimits
  readonly #threads: Piscina
  readonly #gate: Semaphore

  /** `worker` is the file that threads run. */
  constructor(limits: Partial<PoolLimits> = {}, worker = WORKER) {
    this.#limits = { ...LIMITS, ...limits }
    const { threads, ready, memory, waiting } = this.#limits
    this.#gate = new Semaphore(threads, waiting)
    this.#threads = new Piscina({
      filename: worker,
      minThreads: ready,
      maxThreads: threads,
      idleTimeout: 10_000,
      resourceLimits: { maxOldGenerationSizeMb: memory },
    })
    this.#threads.on('error', () => {}) // a thread that ended without a task; the next task has another
  }

  /** How many tasks run at once. */
  get threads(): number {
    return this.#limits.threads
  }

  /**
   * Does a task of `worker.ts` in a thread. Bytes that are given away are not copied, and are gone here. Errors: those of
   * the task, as `BtfError` and as `StoreError`; `too_complex` for one that is over a limit; `busy` where too many wait; the
   * signal's reason.
   */
  async run<K extends keyof Tasks>(
    name: K,
    task: Parameters<Tasks[K]>[0],
    signal?: AbortSignal,
    given: readonly ArrayBuffer[] = [],
  ): Promise<ReturnType<Tasks[K]>> {
    const perform = () => this.#perform(name, task, given, signal)
    const answer = await this.#gate.run(perform, signal)
    if ('error' in answer) throw new BtfError(answer.error.code, answer.error.message)
    if ('damaged' in answer) throw new StoreError('digest_mismatch', answer.damaged)
    return answer.value as ReturnType<Tasks[K]>
  }

  /** Ends the threads, and with them what they do. */
  async close(): Promise<void> {
    await this.#threads.destroy()
  }

  async #perform(
    name: keyof Tasks,
    task: Parameters<Tasks[keyof Tasks]>[0],
    given: readonly ArrayBuffer[],
    signal: AbortSignal | undefined,
  ): Promise<WorkerAnswer<unknown>> {
    const { time, memory } = this.#limits
    // not AbortSignal.timeout or .any: these stay until their time is over, and with them the task
    const ending = new AbortController()
    const clock = setTimeout(() => ending.abort(OVERTIME), time)
    const leave = () => ending.abort()
    signal?.addEventListener('abort', leave, { once: true })
    try {
      return await this.#threads.run(task, {
        ...{ name, signal: ending.signal, transferList: [...given] },
      })
    } catch (cause) {
      signal?.throwIfAborted()
      if (ending.signal.reason === OVERTIME)
        throw tooComplex(`it takes more than ${time / 1000} s`, cause)
      if ((cause as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY')
        throw tooComplex(`it takes more than ${memory} MB`, cause)
      throw cause
    } finally {
      clearTimeout(clock)
      signal?.removeEventListener('abort', leave)
    }
  }
}

const OVERTIME = new Error('a task takes too long')

const tooComplex = (why: string, cause: unknown): ServiceError =>
  new ServiceError('too_complex', `the objects are too much for this service: ${why}`, { cause })
