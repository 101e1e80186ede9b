/*
 * Queues: who has a job done. One who wants a job that another is having done joins him, so that no package is read
 * twice at once. A queue says what became of a job as a value; only the store's and the queue's own failures, and the
 * end of a run, are thrown.
 */

import type { OnEvent, OnJobEvent } from '../event.ts'
import type { BudgetOptions } from './budget.ts'
import type { Job } from './job.ts'
import type { JobOutcome, PipelineOptions } from './pipeline.ts'

/**
 * What became of a job that was given to a queue: done, or `left` since nothing new is begun any more, or `queued` for
 * others to do where nobody wants to wait for it.
 */
export type JobResult = JobOutcome | { state: 'left' } | { state: 'queued' }

export interface Queue {
  /**
   * Has a job done and tells `onEvent` how it goes. Rejects with the reason of the signal that ended it, and where the
   * store fails.
   */
  run(job: Job, onEvent?: OnJobEvent): Promise<JobResult>
  /** Lets go of what the queue holds. Jobs that still run are not waited for. */
  close(): Promise<void>
}

export interface QueueOptions extends Omit<PipelineOptions, 'onEvent'> {
  /** URL of a Redis from which workers take jobs; else they are done in this process */
  queue?: string
  /** only put jobs into that Redis */
  detach?: boolean
  /** how many jobs at once, in this process */
  jobs?: number
  /** what they may take of the machine together */
  budget?: BudgetOptions
  /** begin nothing more: what runs is finished. `signal` in contrast ends it at once */
  drain?: AbortSignal
  /** hears of the queue itself */
  onEvent?: OnEvent
}
