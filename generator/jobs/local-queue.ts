/* The queue in this process: starts jobs in their order, as many at once as the options and the budget allow. */

import type { JobEvent, OnJobEvent } from '../event.ts'
import { removeAbandonedScratch } from '../scratch.ts'
import { Budget, estimateOf } from './budget.ts'
import { type Job, jobIdOf } from './job.ts'
import { PAHOLE_LIMITS } from './pahole.ts'
import { type JobOutcome, runJob } from './pipeline.ts'
import type { JobResult, Queue, QueueOptions } from './queue.ts'

/** Opens the queue, and removes what killed runs left in its scratch directory. */
export async function openLocalQueue(options: QueueOptions): Promise<Queue> {
  await removeAbandonedScratch(options.scratch)
  return new LocalQueue(options, await Budget.open(options.scratch, options.budget))
}

/** A job that waits or runs, with all who asked for it. */
interface LocalTask {
  job: Job
  listeners: Set<OnJobEvent>
  settle: PromiseWithResolvers<JobResult>
}

class LocalQueue implements Queue {
  readonly #options: QueueOptions
  readonly #budget: Budget
  readonly #tasks = new Map<string, LocalTask>()
  readonly #waiting: LocalTask[] = []
  #running = 0

  constructor(options: QueueOptions, budget: Budget) {
    this.#options = options
    this.#budget = budget
    for (const stop of [options.drain, options.signal])
      stop?.addEventListener('abort', () => this.#next(), { once: true })
  }

  run(job: Job, onEvent: OnJobEvent = () => {}): Promise<JobResult> {
    const id = jobIdOf(job, this.#options.tool.fingerprint)
    const task = this.#tasks.get(id) ?? this.#add(id, job)
    task.listeners.add(onEvent)
    return task.settle.promise
  }

  async close(): Promise<void> {}

  #add(id: string, job: Job): LocalTask {
    const task: LocalTask = { job, listeners: new Set(), settle: Promise.withResolvers() }
    this.#tasks.set(id, task)
    const forget = () => void this.#tasks.delete(id)
    task.settle.promise.then(forget, forget)
    this.#waiting.push(task)
    queueMicrotask(() => this.#next())
    return task
  }

  /** Starts the next jobs, or lets go of all that wait if the run is to end. */
  #next(): void {
    const { jobs = 1, drain, signal } = this.#options
    if (drain?.aborted || signal?.aborted)
      for (const { settle } of this.#waiting.splice(0))
        signal?.aborted ? settle.reject(signal.reason) : settle.resolve({ state: 'left' })
    while (this.#running < jobs) {
      const task = this.#waiting.shift()
      if (!task) return
      this.#running++
      void this.#run(task)
    }
  }

  async #run({ job, listeners, settle }: LocalTask): Promise<void> {
    const onEvent = (event: JobEvent) => {
      for (const listener of listeners) listener(event)
    }
    try {
      settle.resolve(await this.#runWithinBudget(job, onEvent))
    } catch (error) {
      settle.reject(error)
    } finally {
      this.#running--
      this.#next()
    }
  }

  /** Runs a job when the budget has room for it; again with a larger lease if it turns out to need more. */
  async #runWithinBudget(job: Job, onEvent: OnJobEvent): Promise<JobOutcome> {
    const { signal, pahole = PAHOLE_LIMITS } = this.#options
    let want = estimateOf(job, pahole.output)
    for (let first = false; ; first = true) {
      const lease = await this.#budget.lease(want, { first, signal })
      try {
        const outcome = await runJob(job, lease, { ...this.#options, onEvent })
        if (outcome.state !== 'deferred') return outcome
        want = outcome.want
      } finally {
        lease.release()
      }
    }
  }
}
