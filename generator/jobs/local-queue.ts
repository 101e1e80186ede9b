/* The queue in this process: so many jobs at once as are allowed and the machine has room for, in the order in which they came. */

import type { JobEvent, OnJobEvent } from '../event.ts'
import { removeAbandonedScratch } from '../scratch.ts'
import { Budget, estimateOf } from './budget.ts'
import { type Job, jobIdOf } from './job.ts'
import { PAHOLE_LIMITS } from './pahole.ts'
import { type JobOutcome, NoRoom, runJob } from './pipeline.ts'
import type { JobResult, Queue, QueueOptions } from './queue.ts'

/** Opens it, and removes what killed runs left in its scratch directory. */
export async function openLocalQueue(options: QueueOptions): Promise<Queue> {
  await removeAbandonedScratch(options.scratch)
  return new LocalQueue(options, await Budget.open(options.scratch, options.budget))
}

/** A job that waits or runs, with those who want it. */
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

  /** Begins what may begin now, and lets go of what may not begin any more. */
  #next(): void {
    const { jobs = 1, drain, signal } = this.#options
    if (drain?.aborted || signal?.aborted)
      for (const { settle } of this.#waiting.splice(0))
        signal?.aborted ? settle.reject(signal.reason) : settle.resolve({ state: 'left' })
    while (this.#running < jobs) {
      const task = this.#waiting.shift()
      if (!task) return
      this.#running++
      void this.#do(task)
    }
  }

  async #do({ job, listeners, settle }: LocalTask): Promise<void> {
    const onEvent = (event: JobEvent) => {
      for (const listener of listeners) listener(event)
    }
    try {
      settle.resolve(await this.#withRoom(job, onEvent))
    } catch (error) {
      settle.reject(error)
    } finally {
      this.#running--
      this.#next()
    }
  }

  /** Runs a job when the machine has room for it; anew, where it turns out to need more. */
  async #withRoom(job: Job, onEvent: OnJobEvent): Promise<JobOutcome> {
    const { signal, pahole = PAHOLE_LIMITS } = this.#options
    let want = estimateOf(job, pahole.output)
    for (let first = false; ; first = true) {
      const lease = await this.#budget.lease(want, { first, signal })
      try {
        return await runJob(job, lease, { ...this.#options, onEvent })
      } catch (error) {
        if (!(error instanceof NoRoom)) throw error
        want = error.want
      } finally {
        lease.release()
      }
    }
  }
}
