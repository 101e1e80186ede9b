/*
 * Queues: who has a job done. One who wants a job that another is having done joins him, so that no package is read
 * twice at once. A queue says what became of a job as a value; only the store's and the queue's own failures, and the
 * end of a run, are thrown.
 */
import type { BudgetOptions } from './budget.ts'
import type { OnJobEvent } from './event.ts'
import type { Job } from './job.ts'
import type { Outcome, PipelineOptions } from './pipeline.ts'

export interface Queue {
  /**
   * Has a job done and tells `onEvent` how it goes. Resolves to what it came to, or to undefined where the queue began
   * nothing new any more before the job's turn came. Rejects with the reason of the signal that ended it.
   */
  run(job: Job, onEvent?: OnJobEvent): Promise<Outcome | undefined>
  /** Lets go of what the queue holds. Jobs that still run are not waited for. */
  close(): Promise<void>
}

export interface QueueOptions extends Omit<PipelineOptions, 'onEvent'> {
  /** how many jobs at once */
  jobs?: number
  /** what they may take of the machine together */
  budget?: BudgetOptions
  /** begin nothing more: what runs is finished. `signal` in contrast ends it at once */
  drain?: AbortSignal
}

/** Opens a queue in this process. */
export async function openQueue(options: QueueOptions): Promise<Queue> {
  return (await import('./local-queue.ts')).openLocalQueue(options)
}
