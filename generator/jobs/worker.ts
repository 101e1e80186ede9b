/*
 * A worker takes jobs from a queue in Redis. There may be any number, on any number of machines. A worker holds a lease
 * on each job that it has taken, and renews it while it works. If the worker is killed, the lease expires and another
 * worker takes the job. So a job may run twice, but it is idempotent: one record under one key. A worker that drains
 * finishes its running jobs and returns the others to the queue; an aborted one returns all of them.
 */

import { type Job as Queued, UnrecoverableError, WaitingError, Worker } from 'bullmq'
import { buildOf, partialOf, recordKey, type Tool } from '../../storage/index.ts'
import type { JobEvent } from '../event.ts'
import { findMirror, type Mirror } from '../sources/mirror.ts'
import { ALL_SOURCES } from '../sources/sources.ts'
import { believed } from './belonging.ts'
import { headersTool } from './headers.ts'
import { type Job, jobIdOf } from './job.ts'
import { openLocalQueue } from './local-queue.ts'
import { findPahole } from './pahole.ts'
import { type Candidate, judge, knownRecord } from './plan.ts'
import { publishCatalog } from './publish.ts'
import type { Queue, QueueOptions } from './queue.ts'
import {
  checkJob,
  closeQuietly,
  connect,
  isReport,
  type JobReceipt,
  PREFIX,
  queueNameOf,
} from './redis.ts'

/** The default lease on a job, in seconds. */
const DEFAULT_LEASE = 30
/** How often the lease on a job may expire before the job fails. */
const MAX_STALLED = 10
/** How long a worker waits for more jobs before it publishes the catalog, in milliseconds. */
const IDLE_DELAY = 2000
/** Milliseconds between two reports of progress. */
const PROGRESS_INTERVAL = 1000

export interface WorkerOptions extends Omit<QueueOptions, 'tool' | 'queue' | 'detach'> {
  /** URL of the Redis */
  queue: string
  /** seconds without a heartbeat before the worker's jobs are reassigned; default: 30 */
  lease?: number
  /** URL of Debian's main archive; jobs from it are believed; default: where apt on this machine has it */
  mirror?: string
  /** minisign secret key: signs the snapshot of the catalog and the archive tree's manifest */
  secretKey?: string
  /** maintain the btfhub-archive tree, too */
  archive?: boolean
}

/** The number of jobs that a worker took, by result. */
export interface Work {
  published: number
  failed: number
  /** returned to the queue, since the worker was asked to end */
  left: number
}

/**
 * Takes jobs until `drain` or `signal` aborts. Errors: `pahole_missing`; `queue_failed` if the queue cannot be reached
 * at the start.
 */
export async function work(options: WorkerOptions): Promise<Work> {
  const { queue, drain, signal, onEvent } = options
  const tool = await findPahole(signal, options)
  const { redis, close } = await connect(queue, onEvent)
  try {
    const local = await openLocalQueue({ ...options, tool })
    const handler = new JobHandler(options, tool, local, await findMirror(options.mirror))
    const lease = (options.lease ?? DEFAULT_LEASE) * 1000
    const worker = new Worker(
      queueNameOf(tool.fingerprint),
      (job, token) => handler.take(job, token),
      {
        connection: redis,
        prefix: PREFIX,
        concurrency: options.jobs ?? 1,
        lockDuration: lease,
        stalledInterval: lease,
        maxStalledCount: MAX_STALLED,
      },
    )
    // the connection reports its own errors, and the next worker an expired lease
    worker.on('error', () => {})
    try {
      await Promise.race([aborted(drain), aborted(signal)])
    } finally {
      await closeWorker(worker, signal)
    }
    if (!signal?.aborted) await handler.publish()
    return handler.done
  } finally {
    close()
  }
}

/** Waits for running jobs; if `signal` aborts, only until they are back in the queue. */
async function closeWorker(worker: Worker, signal: AbortSignal | undefined): Promise<void> {
  const closed = worker.close()
  await Promise.race([closed, aborted(signal)])
  await closeQuietly(closed)
  if (signal?.aborted) await closeQuietly(worker.disconnect())
}

/** Runs the jobs that the worker takes. */
class JobHandler {
  readonly done: Work = { published: 0, failed: 0, left: 0 }
  readonly #options: WorkerOptions
  readonly #tool: Tool
  readonly #local: Queue
  readonly #mirror: Mirror
  #busy = 0
  /** whether records are missing in the published catalog */
  #catalogIsStale = false
  /** whether records of partial BTF are among them */
  #hasPartial = false
  #publishing: Promise<void> = Promise.resolve()
  #idle: NodeJS.Timeout | undefined

  constructor(options: WorkerOptions, tool: Tool, local: Queue, mirror: Mirror) {
    this.#options = options
    this.#tool = tool
    this.#local = local
    this.#mirror = mirror
  }

  /** Runs a job, unless the store has its record. Errors: `UnrecoverableError`, `WaitingError` of BullMQ. */
  async take(queued: Queued, token = ''): Promise<JobReceipt> {
    const job = this.#check(queued)
    this.#busy++
    clearTimeout(this.#idle)
    try {
      return (await this.#known(job)) ?? (await this.#run(job, queued, token))
    } finally {
      if (--this.#busy === 0) this.#idle = setTimeout(() => void this.publish(), IDLE_DELAY)
    }
  }

  /** Publishes the catalog if records have changed. A failure is retried the next time. */
  publish(): Promise<void> {
    clearTimeout(this.#idle)
    this.#publishing = this.#publishing.then(async () => {
      if (!this.#catalogIsStale) return
      this.#catalogIsStale = false
      const { archive: _, ...partial } = this.#options
      try {
        await publishCatalog(this.#options)
        if (this.#hasPartial)
          await publishCatalog({ ...partial, store: partialOf(this.#options.store) })
        this.#hasPartial = false
      } catch {
        this.#catalogIsStale = true
      }
    })
    return this.#publishing
  }

  #check({ data, id }: Queued): Job {
    try {
      const job = checkJob(data, id, this.#tool.fingerprint)
      return believed(job, this.#options.sources ?? ALL_SOURCES, this.#mirror)
    } catch (error) {
      throw new UnrecoverableError((error as Error).message)
    }
  }

  /** The receipt of a job whose record exists: an earlier worker was lost before it could report the result. */
  async #known(job: Job): Promise<JobReceipt | undefined> {
    const { kernel, package: built, earlyStop = false, modules = [], inlinedCalls = false } = job
    const { from } = job
    const { arch, release } = kernel
    if (arch === undefined || release === undefined || built.version === '') return undefined
    const key = recordKey({ ...kernel, arch, release }, built.version)
    const isPartial = from === 'headers'
    const { store } = this.#options
    const record = await knownRecord(isPartial ? partialOf(store) : store, key)
    const { fingerprint } = isPartial ? headersTool(this.#tool) : this.#tool
    const wanted = { fingerprint, earlyStop, modules, inlinedCalls, ...(from && { from }) }
    const verdict = judge(record, candidateOf(job), wanted)
    if (verdict !== 'skipped') return undefined
    return { state: 'published', key, read: 0, seconds: 0 }
  }

  async #run(job: Job, queued: Queued, token: string): Promise<JobReceipt> {
    const { signal, onEvent } = this.#options
    const started = performance.now()
    const id = jobIdOf(job, this.#tool.fingerprint)
    const report = reporter(queued)
    const running = this.#local.run(job, (event) => {
      onEvent?.({ ...event, job: id })
      report(event)
    })
    const result = await running.catch((error) => {
      if (!signal?.aborted) throw error
      return { state: 'left' } as const
    })
    const seconds = (performance.now() - started) / 1000
    switch (result.state) {
      case 'published': {
        this.done.published++
        this.#catalogIsStale = true
        this.#hasPartial ||= job.from === 'headers'
        const { record, read } = result
        return { state: 'published', key: recordKey(record.kernel, buildOf(record)), read, seconds }
      }
      case 'failed': {
        this.done.failed++
        this.#catalogIsStale = true
        const { failure, stored, read } = result
        return { state: 'failed', failure, stored, read, seconds }
      }
      default:
        this.done.left++
        await queued.moveToWait(token)
        throw new WaitingError()
    }
  }
}

/** The package from which a job was planned. */
function candidateOf({ package: { name }, checksum, fallbacks }: Job): Candidate {
  return {
    name,
    ...(checksum && { checksum }),
    ...(fallbacks && { fallbacks: fallbacks.map(candidateOf) }),
  }
}

/** Reports a job's events to those who wait for it, progress at most once per interval. */
function reporter(queued: Queued): (event: JobEvent) => void {
  let last = 0
  return (event) => {
    if (!isReport(event)) return
    const now = Date.now()
    if (event.event === 'progress' && now - last < PROGRESS_INTERVAL) return
    last = now
    queued.updateProgress(event).catch(() => {}) // a lost report must not fail the job
  }
}

function aborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) resolve()
    signal?.addEventListener('abort', () => resolve(), { once: true })
  })
}
