/*
 * The client side of the queue in Redis. A job is queued under its id, so that several clients share it. A worker's
 * report is accepted only if the store confirms it. Events may be missed, and Redis may lose its data: so all jobs are
 * polled from time to time, and a missing one is queued again.
 */
import { type Job as Queued, QueueEvents, Queue as RedisJobs } from 'bullmq'
import { type BuildRecord, partialOf } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { JobEvent, OnJobEvent } from '../event.ts'
import { type Job, jobIdOf, nameOf } from './job.ts'
import { recordFailure } from './pipeline.ts'
import { knownRecord } from './plan.ts'
import type { JobResult, Queue, QueueOptions } from './queue.ts'
import {
  type Connection,
  checkRemote,
  closeQuietly,
  connect,
  isReceipt,
  isReport,
  PREFIX,
  queueNameOf,
} from './redis.ts'

/** Milliseconds between two polls of all jobs. */
const POLL_INTERVAL = 5000
/** How long Redis keeps the result of a job, in seconds. */
const RESULT_TTL = 3600

/** A queued job with all who wait for it. */
interface RedisTask {
  id: string
  job: Job
  listeners: Set<OnJobEvent>
  settle: PromiseWithResolvers<JobResult>
}

/** Connects to the queue. Errors: `queue_failed`. */
export async function openRedisQueue(url: string, options: QueueOptions): Promise<Queue> {
  const connection = await connect(url, options.onEvent)
  const events = `${PREFIX}:${queueNameOf(options.tool.fingerprint)}:events`
  const [last] = await connection.redis.xrevrange(events, '+', '-', 'COUNT', 1)
  return new RedisQueue(connection, options, last?.[0] ?? '0')
}

class RedisQueue implements Queue {
  readonly #options: QueueOptions
  readonly #connection: Connection
  readonly #jobs: RedisJobs
  readonly #events: QueueEvents
  readonly #tasks = new Map<string, RedisTask>()
  readonly #polling: NodeJS.Timeout
  #isPolling = false
  #hasNoWorkers = false

  /** `since`: the id of the last event before this queue was opened */
  constructor(connection: Connection, options: QueueOptions, since: string) {
    this.#options = options
    this.#connection = connection
    const name = queueNameOf(options.tool.fingerprint)
    const settings = { connection: connection.redis, prefix: PREFIX }
    this.#jobs = new RedisJobs(name, settings)
    this.#events = new QueueEvents(name, { ...settings, lastEventId: since })
    // the connection reports its own errors
    this.#jobs.on('error', () => {})
    this.#events.on('error', () => {})
    this.#events.on('progress', ({ jobId, data }) => this.#onProgress(jobId, data))
    const check = ({ jobId }: { jobId: string }) => void this.#check(jobId).catch(() => {})
    this.#events.on('completed', check)
    this.#events.on('failed', check)
    this.#polling = setInterval(() => void this.#poll(), POLL_INTERVAL)
    options.drain?.addEventListener('abort', () => this.#withdraw().catch(() => {}), { once: true })
    options.signal?.addEventListener('abort', () => this.#abort(), { once: true })
  }

  async run(job: Job, onEvent: OnJobEvent = () => {}): Promise<JobResult> {
    const { tool, drain, signal, detach } = this.#options
    signal?.throwIfAborted()
    if (drain?.aborted) return { state: 'left' }
    checkRemote(job)
    const id = jobIdOf(job, tool.fingerprint)
    const known = this.#tasks.get(id)
    known?.listeners.add(onEvent)
    if (known) return await known.settle.promise
    const task: RedisTask = {
      id,
      job,
      listeners: new Set([onEvent]),
      settle: Promise.withResolvers(),
    }
    this.#tasks.set(id, task)
    this.#enqueue(task).then(
      () => detach && this.#settle(task, { state: 'queued' }),
      (error) => this.#reject(task, error),
    )
    return await task.settle.promise
  }

  async close(): Promise<void> {
    clearInterval(this.#polling)
    await closeQuietly(this.#events.close(), this.#jobs.close())
    this.#connection.close()
  }

  /** Queues a job, unless it is queued; replaces one that has ended. */
  async #enqueue({ id, job }: RedisTask): Promise<void> {
    const queued: Queued | undefined = await this.#jobs.getJob(id)
    if (queued?.finishedOn) await queued.remove()
    await this.#jobs.add('package', job, {
      jobId: id,
      removeOnComplete: { age: RESULT_TTL },
      removeOnFail: { age: RESULT_TTL },
      stackTraceLimit: 0,
    })
  }

  #settle(task: RedisTask, result: JobResult): void {
    this.#tasks.delete(task.id)
    task.settle.resolve(result)
  }

  #reject(task: RedisTask, error: unknown): void {
    this.#tasks.delete(task.id)
    task.settle.reject(error)
  }

  #emit({ listeners }: RedisTask, event: JobEvent): void {
    for (const listener of listeners) listener(event)
  }

  #onProgress(id: string, data: unknown): void {
    const task = this.#tasks.get(id)
    if (task && isReport(data)) this.#emit(task, data)
  }

  /** Checks all jobs, and whether the queue has workers. */
  async #poll(): Promise<void> {
    const isReady = this.#connection.redis.status === 'ready'
    if (this.#isPolling || this.#tasks.size === 0 || !isReady) return
    this.#isPolling = true
    try {
      await this.#checkWorkers()
      for (const id of [...this.#tasks.keys()]) await this.#check(id)
    } catch {
      // the connection was lost, and reports it itself
    } finally {
      this.#isPolling = false
    }
  }

  async #checkWorkers(): Promise<void> {
    const hasNoWorkers = (await this.#jobs.getWorkersCount()) === 0
    if (hasNoWorkers && !this.#hasNoWorkers) {
      const { name, version } = this.#options.tool
      const message = `no worker with ${name} ${version} takes jobs from this queue`
      this.#options.onEvent?.({ event: 'queue', state: 'unattended', message })
    }
    this.#hasNoWorkers = hasNoWorkers
  }

  /** Settles a job that has ended, and queues one again that Redis has lost. */
  async #check(id: string): Promise<void> {
    const task = this.#tasks.get(id)
    const queued: Queued | undefined = task && (await this.#jobs.getJob(id))
    if (!task || !this.#tasks.has(id)) return
    if (!queued) {
      if (!this.#options.drain?.aborted) await this.#enqueue(task)
    } else if (queued.finishedOn) {
      const { failedReason, returnvalue } = queued
      const settled = failedReason
        ? this.#fail(task, queueErrorOf(failedReason))
        : this.#accept(task, returnvalue)
      await settled.catch((error) => this.#reject(task, error))
    }
  }

  /** Settles a job with a worker's receipt. A published record must be in the store. */
  async #accept(task: RedisTask, value: unknown): Promise<void> {
    if (!isReceipt(value))
      return await this.#fail(task, queueError('a worker reported an invalid result'))
    if (value.state === 'failed') {
      const { failure, stored, read, seconds } = value
      this.#emit(task, { event: 'failed', kernel: nameOf(task.job), failure, seconds })
      return this.#settle(task, { state: 'failed', failure, stored, read })
    }
    const { key, read, seconds } = value
    const record = await this.#recordOf(task.job, key)
    if (!record) {
      const message = `a worker reported the record ${key}, which is not in this store: it may use another store`
      return await this.#fail(task, queueError(message))
    }
    this.#emit(task, { event: 'published', kernel: record.kernel, record, read, seconds })
    this.#settle(task, { state: 'published', record, read })
  }

  /** Reads the record at a key; undefined if there is none, or it is not the job's. */
  async #recordOf(job: Job, key: string): Promise<BuildRecord | undefined> {
    if (!key.startsWith('kernels/')) return undefined
    const { store } = this.#options
    const record = await knownRecord(job.from === 'headers' ? partialOf(store) : store, key)
    if (!record?.btf) return undefined
    const known = Object.entries(job.kernel) as [keyof typeof job.kernel, string][]
    const names = [job, ...(job.fallbacks ?? [])].map((one) => one.package.name)
    const isOfJob =
      names.includes(record.package.name) &&
      known.every(([part, value]) => record.kernel[part] === value)
    return isOfJob ? record : undefined
  }

  async #fail(task: RedisTask, error: GeneratorError): Promise<void> {
    const result = await recordFailure(task.job, error, this.#options)
    const { failure } = result
    this.#emit(task, { event: 'failed', kernel: nameOf(task.job), failure, seconds: 0 })
    this.#settle(task, result)
  }

  /** Removes the jobs that no worker has taken. Other clients that wait for one of them queue it again. */
  async #withdraw(): Promise<void> {
    for (const task of [...this.#tasks.values()]) {
      const queued: Queued | undefined = await this.#jobs.getJob(task.id)
      const isRemoved = await queued?.remove().then(
        () => true,
        () => false, // a worker has taken it
      )
      if (isRemoved !== false && !queued?.finishedOn) this.#settle(task, { state: 'left' })
    }
  }

  #abort(): void {
    for (const task of [...this.#tasks.values()]) this.#reject(task, this.#options.signal?.reason)
  }
}

const queueError = (message: string): GeneratorError => new GeneratorError('queue_failed', message)

/** The failure of a job that no worker could run, by the reason that BullMQ or a worker gave. */
function queueErrorOf(reason: string): GeneratorError {
  return /stalled more than/.test(reason)
    ? new GeneratorError('worker_lost', 'every worker that took the job stopped responding')
    : queueError(reason.slice(0, 500))
}
