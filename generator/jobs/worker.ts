/*
 * A worker: takes jobs from a queue in Redis, one of any number on any number of machines. What it takes is leased: it
 * renews the lease while it works, and where it is killed the lease runs out and another takes the job. A job may so be
 * done twice, but it is idempotent: one record under one key. A worker that is asked to end gives back what it has not
 * begun, or at once all it has.
 */

import { type Job as Queued, UnrecoverableError, WaitingError, Worker } from 'bullmq'
import { buildOf, recordKey, type Tool } from '../../storage/index.ts'
import type { JobEvent } from '../event.ts'
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

/** How long a worker may be silent before its jobs are given to others, in seconds. */
const LEASE = 30
/** How many workers may be lost over a job. */
const LOSSES = 10
/** How long a worker waits for more to do before it publishes the catalog, in milliseconds. */
const IDLE = 2000
/** How often progress is reported, in milliseconds. */
const PACE = 1000

export interface WorkerOptions extends Omit<QueueOptions, 'tool' | 'queue' | 'detach'> {
  /** URL of the Redis */
  queue: string
  /** how long the worker may be silent before its jobs are given to others, in seconds */
  lease?: number
  /** signs the snapshot of the catalog, and the archive tree's manifest */
  secretKey?: string
  /** keep the btfhub-archive tree, too */
  archive?: boolean
}

/** What a worker did. */
export interface Work {
  published: number
  failed: number
  /** given back, since it was asked to end */
  left: number
}

/**
 * Takes jobs until `drain` or `signal` abort, and says what it did. Errors: `pahole_missing`; `queue_failed` where the
 * queue cannot be reached at first.
 */
export async function work(options: WorkerOptions): Promise<Work> {
  const { queue, drain, signal, onEvent } = options
  const tool = await findPahole(signal)
  const { redis, close } = await connect(queue, onEvent)
  try {
    const hands = new JobHandler(options, tool, await openLocalQueue({ ...options, tool }))
    const lease = (options.lease ?? LEASE) * 1000
    const worker = new Worker(
      queueNameOf(tool.fingerprint),
      (job, token) => hands.take(job, token),
      {
        ...{ connection: redis, prefix: PREFIX, concurrency: options.jobs ?? 1 },
        ...{ lockDuration: lease, stalledInterval: lease, maxStalledCount: LOSSES },
      },
    )
    worker.on('error', () => {}) // of its connection that tells itself; of a lease that ran out another worker tells
    try {
      await Promise.race([aborted(drain), aborted(signal)])
    } finally {
      await end(worker, signal)
    }
    if (!signal?.aborted) await hands.publish()
    return hands.done
  } finally {
    close()
  }
}

/** Waits for what runs; where it is to end at once, only until that was given back. */
async function end(worker: Worker, signal: AbortSignal | undefined): Promise<void> {
  const closed = worker.close()
  await Promise.race([closed, aborted(signal)])
  await closeQuietly(closed)
  if (signal?.aborted) await closeQuietly(worker.disconnect())
}

/** What does the jobs that the worker takes. */
class JobHandler {
  readonly done: Work = { published: 0, failed: 0, left: 0 }
  readonly #options: WorkerOptions
  readonly #tool: Tool
  readonly #local: Queue
  #busy = 0
  /** whether the catalog does not have all yet */
  #behind = false
  #publishing: Promise<void> = Promise.resolve()
  #idle: NodeJS.Timeout | undefined

  constructor(options: WorkerOptions, tool: Tool, local: Queue) {
    this.#options = options
    this.#tool = tool
    this.#local = local
  }

  /** Does a job, and says what came of it. */
  async take(queued: Queued, token = ''): Promise<JobReceipt> {
    const job = this.#check(queued)
    this.#busy++
    clearTimeout(this.#idle)
    try {
      return (await this.#there(job)) ?? (await this.#do(job, queued, token))
    } finally {
      if (--this.#busy === 0) this.#idle = setTimeout(() => void this.publish(), IDLE)
    }
  }

  /** Makes the catalog say what the records say. One that fails now is made the next time. */
  publish(): Promise<void> {
    clearTimeout(this.#idle)
    this.#publishing = this.#publishing.then(async () => {
      if (!this.#behind) return
      this.#behind = false
      await publishCatalog(this.#options).catch(() => {
        this.#behind = true
      })
    })
    return this.#publishing
  }

  #check({ data, id }: Queued): Job {
    try {
      return checkJob(data, id, this.#tool.fingerprint)
    } catch (error) {
      throw new UnrecoverableError((error as Error).message)
    }
  }

  /** What came of a job that was done already, by a worker that was lost before it could say so. */
  async #there(job: Job): Promise<JobReceipt | undefined> {
    const { kernel, package: from, earlyStop = false, modules = [] } = job
    const { arch, release } = kernel
    if (arch === undefined || release === undefined || from.version === '') return undefined
    const key = recordKey({ ...kernel, arch, release }, from.version)
    const record = await knownRecord(this.#options.store, key)
    const wanted = { fingerprint: this.#tool.fingerprint, earlyStop, modules }
    const verdict = judge(record, candidateOf(job), wanted)
    if (verdict !== 'skipped') return undefined
    return { state: 'published', key, read: 0, seconds: 0 }
  }

  async #do(job: Job, queued: Queued, token: string): Promise<JobReceipt> {
    const { signal, onEvent } = this.#options
    const started = performance.now()
    const id = jobIdOf(job, this.#tool.fingerprint)
    const report = reporter(queued)
    let read = 0
    const running = this.#local.run(job, (event) => {
      if (event.event === 'published') read = event.read
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
        this.#behind = true
        const { record } = result
        return { state: 'published', key: recordKey(record.kernel, buildOf(record)), read, seconds }
      }
      case 'failed': {
        this.done.failed++
        this.#behind = true
        const { failure, stored } = result
        return { state: 'failed', failure, stored, seconds }
      }
      default:
        this.done.left++
        await queued.moveToWait(token)
        throw new WaitingError()
    }
  }
}

/** A job as the package that it was planned from. */
function candidateOf({ package: { name }, checksum, fallback }: Job): Candidate {
  const other = fallback && candidateOf(fallback)
  return { name, ...(checksum && { checksum }), ...(other && { fallback: other }) }
}

/** Tells those who wait for a job how it goes, as often as they want to know. */
function reporter(queued: Queued): (event: JobEvent) => void {
  let last = 0
  return (event) => {
    if (!isReport(event)) return
    const now = Date.now()
    if (event.event === 'progress' && now - last < PACE) return
    last = now
    queued.updateProgress(event).catch(() => {}) // it is not worth a job
  }
}

function aborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) resolve()
    signal?.addEventListener('abort', () => resolve(), { once: true })
  })
}
