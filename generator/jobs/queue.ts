/*
 * The interface of the two queues. A job that is queued twice is a single flight: no package is read twice at once. The
 * result of a job is a value; a queue rejects only with its own failures, with the store's, and with an abort.
 */

import type { OnEvent, OnJobEvent } from '../event.ts'
import type { BudgetOptions } from './budget.ts'
import type { Job } from './job.ts'
import type { JobOutcome, PipelineOptions } from './pipeline.ts'

/**
 * The result of a queued job: its outcome, `left` if it was not started because the run was asked to end, or `queued`
 * if the run does not wait for the workers.
 */
export type JobResult = JobOutcome | { state: 'left' } | { state: 'queued' }

export interface Queue {
  /**
   * Queues a job, waits for its result, and passes its events to `onEvent`. Rejects with the reason of the signal that
   * aborted it, and if the store or the queue fails.
   */
  run(job: Job, onEvent?: OnJobEvent): Promise<JobResult>
  /** Releases the queue's resources, without waiting for jobs that still run. */
  close(): Promise<void>
}

export interface QueueOptions extends Omit<PipelineOptions, 'onEvent'> {
  /** URL of a Redis from which workers take jobs; default: jobs run in this process */
  queue?: string
  /** put jobs into Redis, and do not wait for them */
  detach?: boolean
  /** how many jobs run at once in this process; default: 1 */
  jobs?: number
  /** threads of one pahole, if it can make the same BTF with several (default: 1) */
  paholeThreads?: number
  /** the memory and disk space that all jobs may use together */
  budget?: BudgetOptions
  /** when it aborts, no further job is started, and running ones are finished; `signal` ends them at once */
  drain?: AbortSignal
  /** receives events of the queue itself */
  onEvent?: OnEvent
}
