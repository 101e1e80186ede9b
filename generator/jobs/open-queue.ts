/* Opens one of the two queues. The Redis queue and its libraries are loaded only when they are used. */
import type { Queue, QueueOptions } from './queue.ts'
import type { Work, WorkerOptions } from './worker.ts'

/** Opens the queue in this process, or the one in Redis if `queue` is given. Errors: `queue_failed`. */
export async function openQueue(options: QueueOptions): Promise<Queue> {
  const { queue: url, ...rest } = options
  if (url !== undefined) return (await import('./redis-queue.ts')).openRedisQueue(url, rest)
  return (await import('./local-queue.ts')).openLocalQueue(rest)
}

/** Runs a worker on a queue in Redis; see `work` in `worker.ts`. Errors: those of it. */
export async function work(options: WorkerOptions): Promise<Work> {
  return (await import('./worker.ts')).work(options)
}
