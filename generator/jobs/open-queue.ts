/* The choice between the two queues. The code and the libraries of the Redis queue are loaded only when it is chosen. */
import type { Queue, QueueOptions } from './queue.ts'
import type { Work, WorkerOptions } from './worker.ts'

/** Opens a queue, in this process or in Redis. Errors: `queue_failed`. */
export async function openQueue(options: QueueOptions): Promise<Queue> {
  const { queue: url, ...rest } = options
  if (url !== undefined) return (await import('./redis-queue.ts')).openRedisQueue(url, rest)
  return (await import('./local-queue.ts')).openLocalQueue(rest)
}

/** Does what others put into a queue in Redis; see `worker.ts`, whose code and libraries are loaded here. */
export async function work(options: WorkerOptions): Promise<Work> {
  return (await import('./worker.ts')).work(options)
}
