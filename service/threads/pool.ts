/*
 * A pool of threads for work on untrusted input. Each thread runs `worker.ts`. A task has a time limit and a memory
 * limit: a thread that exceeds one is terminated and replaced, and so is a thread whose client has disconnected. Tasks
 * wait in a bounded queue for a free thread.
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
  /** threads that start with the pool and stay; the others start with the tasks */
  minThreads: number
  /** milliseconds for one task, without its time in the queue */
  time: number
  /** megabytes of JavaScript values in one thread */
  memory: number
  /** maximum number of tasks that wait for a thread; one client may have half of it */
  maxQueue: number
  /** milliseconds without a task after which a thread ends */
  idle: number
}

/** Minimizing for one of libbpf's tools takes 10 ms and 30 MB. A task of a thousand times that is hostile. */
const DEFAULTS: PoolLimits = {
  threads: availableParallelism(),
  minThreads: 0,
  time: 10_000,
  memory: 256,
  maxQueue: 256,
  idle: 60_000,
}

/** The published package is compiled, and has no `.ts` files. */
const WORKER = join(import.meta.dirname, `worker${extname(import.meta.filename)}`)

/** Tasks by name, each a function of one value. */
type TaskTable = { [name: string]: (task: never) => unknown }

/** A pool for tasks of `worker.ts`, or of another file that exports them. */
export class Pool<Table extends { [K in keyof Table]: TaskTable[string] } = Tasks> {
  readonly #limits: PoolLimits
  readonly #threads: Piscina
  readonly #gate: Semaphore

  /** `worker` is the path of the file that threads run. */
  constructor(limits: Partial<PoolLimits> = {}, worker = WORKER) {
    this.#limits = { ...DEFAULTS, ...limits }
    const { threads, minThreads, memory, maxQueue, idle } = this.#limits
    this.#gate = new Semaphore(threads, maxQueue, Math.ceil(maxQueue / 2))
    this.#threads = new Piscina({
      filename: worker,
      minThreads,
      maxThreads: threads,
      idleTimeout: idle,
      resourceLimits: { maxOldGenerationSizeMb: memory },
    })
    this.#threads.on('error', () => {}) // a thread ended without a task; the next task starts another
  }

  /** The maximum number of concurrent tasks. */
  get threads(): number {
    return this.#limits.threads
  }

  /**
   * Runs a task of `worker.ts` in a thread. The buffers in `transfer` move to the thread without a copy, and are
   * detached here. Errors: those of the task, as `BtfError`; `digest_mismatch` as `StoreError`; `too_complex` if the
   * task exceeds a limit; `busy` if the queue is full; the signal's reason.
   */
  async run<K extends keyof Table & string>(
    name: K,
    task: Parameters<Table[K]>[0],
    signal?: AbortSignal,
    transfer: readonly ArrayBuffer[] = [],
  ): Promise<ReturnType<Table[K]>> {
    const perform = () => this.#perform(name, task, transfer, signal)
    const answer = await this.#gate.run(perform, signal)
    if ('error' in answer) throw new BtfError(answer.error.code, answer.error.message)
    if ('damaged' in answer) throw new StoreError('digest_mismatch', answer.damaged)
    return answer.value as ReturnType<Table[K]>
  }

  /** Terminates the threads and their running tasks. */
  async close(): Promise<void> {
    await this.#threads.destroy()
  }

  async #perform(
    name: string,
    task: unknown,
    transfer: readonly ArrayBuffer[],
    signal: AbortSignal | undefined,
  ): Promise<WorkerAnswer<unknown>> {
    const { time, memory } = this.#limits
    // AbortSignal.timeout and .any would keep the task in memory until the time is over
    const controller = new AbortController()
    const timer = setTimeout(() => controller.abort(TIMEOUT), time)
    const abort = () => controller.abort()
    signal?.addEventListener('abort', abort, { once: true })
    try {
      return await this.#threads.run(task, {
        name,
        signal: controller.signal,
        transferList: [...transfer],
      })
    } catch (cause) {
      signal?.throwIfAborted()
      if (controller.signal.reason === TIMEOUT)
        throw tooComplex(`more than ${time / 1000} s`, cause)
      if ((cause as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY')
        throw tooComplex(`more than ${memory} MB of memory`, cause)
      throw cause
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
    }
  }
}

const TIMEOUT = new Error('the task exceeds its time limit')

const tooComplex = (usage: string, cause: unknown): ServiceError =>
  new ServiceError('too_complex', `the task exceeds a limit of this service: ${usage}`, { cause })
