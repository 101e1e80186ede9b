import { setTimeout as sleep } from 'node:timers/promises'
import { StoreError } from './error.ts'

const ATTEMPTS = 20
/** Milliseconds up to which a writer that was too late waits. */
const PAUSE = 250

/**
 * Compare-and-swap as a loop: `attempt` reads what is there and puts what should be with its etag; where another was
 * first it looks again. Errors: `precondition_failed` where that never ends, and those of `attempt`.
 */
export async function swap<T>(attempt: () => Promise<T>): Promise<T> {
  for (let count = 1; ; count++) {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== 'precondition_failed') throw error
      if (count === ATTEMPTS) throw error
      await sleep(Math.random() * PAUSE)
    }
  }
}

/** What a put over an object with this etag, or over none, is asked to compare. */
export const over = (etag: string | undefined): { ifMatch: string } | { ifAbsent: true } =>
  etag === undefined ? { ifAbsent: true } : { ifMatch: etag }
