/*
 * The queue in Redis, as one who wants jobs done has it. They are known by their ids, so that a job that somebody else
 * has queued is joined. What came of one is believed as far as the store says the same. Events may be missed, and a
 * Redis may lose what it held: so all jobs are looked after now and then, and one that is gone is queued again.
 */
import { type Job as Queued, QueueEvents, Queue as RedisJobs } from 'bullmq'
import type { BuildRecord } from '../../storage/index.ts'
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

/** How often all jobs are looked after, in milliseconds. */
const ROUND = 5000
/** For how long what came of a job is kept, in seconds. */
const KEPT = 3600

/** A job that somebody waits for. */
interface RedisTask {
  id: string
  job: Job
  listeners: Set<OnJobEvent>
  settle: PromiseWithResolvers<JobResult>
}

/** Connects to it. Errors: `queue_failed`. */
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
  readonly #rounds: NodeJS.Timeout
  #inRound = false
  #unattended = false

  /** It hears of what happens after the event with the id `since`. */
  constructor(connection: Connection, options: QueueOptions, since: string) {
    this.#options = options
    this.#connection = connection
    const name = queueNameOf(options.tool.fingerprint)
    const settings = { connection: connection.redis, prefix: PREFIX }
    this.#jobs = new RedisJobs(name, settings)
    this.#events = new QueueEvents(name, { ...settings, lastEventId: since })
    // the connection tells of itself
    this.#jobs.on('error', () => {})
    this.#events.on('error', () => {})
    this.#events.on('progress', ({ jobId, data }) => this.#report(jobId, data))
    const look = ({ jobId }: { jobId: string }) => void this.#look(jobId).catch(() => {})
    this.#events.on('completed', look)
    this.#events.on('failed', look)
    this.#rounds = setInterval(() => void this.#round(), ROUND)
    options.drain?.addEventListener('abort', () => this.#takeBack().catch(() => {}), { once: true })
    options.signal?.addEventListener('abort', () => this.#giveUp(), { once: true })
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
    this.#put(task).then(
      () => detach && this.#settle(task, { state: 'queued' }),
      (error) => this.#reject(task, error),
    )
    return await task.settle.promise
  }

  async close(): Promise<void> {
    clearInterval(this.#rounds)
    await closeQuietly(this.#events.close(), this.#jobs.close())
    this.#connection.close()
  }

  /** Queues a job, unless it is there; one that has ended is queued anew. */
  async #put({ id, job }: RedisTask): Promise<void> {
    const there: Queued | undefined = await this.#jobs.getJob(id)
    if (there?.finishedOn) await there.remove()
    const keep = { age: KEPT }
    await this.#jobs.add('package', job, {
      ...{ jobId: id, removeOnComplete: keep, removeOnFail: keep, stackTraceLimit: 0 },
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

  #tell({ listeners }: RedisTask, event: JobEvent): void {
    for (const listener of listeners) listener(event)
  }

  #report(id: string, data: unknown): void {
    const task = this.#tasks.get(id)
    if (task && isReport(data)) this.#tell(task, data)
  }

  /** Looks after all jobs, and whether anybody takes them. */
  async #round(): Promise<void> {
    if (this.#inRound || this.#tasks.size === 0 || this.#connection.redis.status !== 'ready') return
    this.#inRound = true
    try {
      await this.#attend()
      for (const id of [...this.#tasks.keys()]) await this.#look(id)
    } catch {
      // the connection was lost, and tells so itself
    } finally {
      this.#inRound = false
    }
  }

  async #attend(): Promise<void> {
    const unattended = (await this.#jobs.getWorkersCount()) === 0
    if (unattended && !this.#unattended) {
      const { name, version } = this.#options.tool
      const message = `no worker with ${name} ${version} takes jobs from this queue`
      this.#options.onEvent?.({ event: 'queue', state: 'unattended', message })
    }
    this.#unattended = unattended
  }

  /** Looks whether a job has ended. */
  async #look(id: string): Promise<void> {
    const task = this.#tasks.get(id)
    const queued: Queued | undefined = task && (await this.#jobs.getJob(id))
    if (!task || !this.#tasks.has(id)) return
    if (!queued) {
      if (!this.#options.drain?.aborted) await this.#put(task)
    } else if (queued.finishedOn) {
      const { failedReason, returnvalue } = queued
      const ended = failedReason
        ? this.#fail(task, whyFailed(failedReason))
        : this.#believe(task, returnvalue)
      await ended.catch((error) => this.#reject(task, error))
    }
  }

  /** Takes a worker's word for what became of a job, as far as the store bears it out. */
  async #believe(task: RedisTask, value: unknown): Promise<void> {
    if (!isReceipt(value)) return await this.#fail(task, refuse('what a worker says is no receipt'))
    if (value.state === 'failed') {
      const { failure, stored, seconds } = value
      this.#tell(task, { event: 'failed', kernel: nameOf(task.job), failure, seconds })
      return this.#settle(task, { state: 'failed', failure, stored })
    }
    const { key, read, seconds } = value
    const record = await this.#recordOf(task.job, key)
    if (!record) {
      const says = `a worker says it published ${key}, which is not in this store: it may write into another`
      return await this.#fail(task, refuse(says))
    }
    this.#tell(task, { event: 'published', kernel: record.kernel, record, read, seconds })
    this.#settle(task, { state: 'published', record })
  }

  /** The record of a job at a key, where there is one. */
  async #recordOf(job: Job, key: string): Promise<BuildRecord | undefined> {
    if (!key.startsWith('kernels/')) return undefined
    const record = await knownRecord(this.#options.store, key)
    const { package: from, kernel } = record ?? {}
    const known = Object.entries(job.kernel) as [keyof typeof job.kernel, string][]
    const names = [job.package.name, job.fallback?.package.name]
    const same =
      names.includes(from?.name ?? '') && known.every(([part, value]) => kernel?.[part] === value)
    return same && record?.btf ? record : undefined
  }

  async #fail(task: RedisTask, error: GeneratorError): Promise<void> {
    const result = await recordFailure(task.job, error, this.#options)
    const { failure } = result
    this.#tell(task, { event: 'failed', kernel: nameOf(task.job), failure, seconds: 0 })
    this.#settle(task, result)
  }

  /** Takes jobs back that no worker has begun. Who else wants one of them queues it again. */
  async #takeBack(): Promise<void> {
    for (const task of [...this.#tasks.values()]) {
      const queued: Queued | undefined = await this.#jobs.getJob(task.id)
      const gone = await queued?.remove().then(
        () => true,
        () => false, // a worker has it
      )
      if (gone !== false && !queued?.finishedOn) this.#settle(task, { state: 'left' })
    }
  }

  #giveUp(): void {
    for (const task of [...this.#tasks.values()]) this.#reject(task, this.#options.signal?.reason)
  }
}

const refuse = (why: string): GeneratorError => new GeneratorError('queue_failed', why)

/** Why a queued job failed that never came to be done: BullMQ's own words, or a worker's. */
function whyFailed(reason: string): GeneratorError {
  return /stalled more than/.test(reason)
    ? new GeneratorError(
        'worker_lost',
        'workers that took it ended without a word, again and again',
      )
    : refuse(reason.slice(0, 500))
}
