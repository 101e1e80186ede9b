/* Compare-and-swap: the way in which writers share an object, such as the catalog's snapshot. */
import { setTimeout as sleep } from 'node:timers/promises'
import { StoreError } from './error.ts'

const ATTEMPTS = 20
/** The longest random pause before the next attempt, in milliseconds. */
const MAX_PAUSE = 250

/**
 * Runs `attempt` again as long as it fails with `precondition_failed`, up to 20 times. Each attempt reads the object
 * and puts the new one with `ifUnchanged`. Errors: `precondition_failed` from the last attempt; any other error of
 * `attempt`.
 */
export async function compareAndSwap<T>(attempt: () => Promise<T>): Promise<T> {
  for (let count = 1; ; count++) {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== 'precondition_failed') throw error
      if (count === ATTEMPTS) throw error
      await sleep(Math.random() * MAX_PAUSE)
    }
  }
}

/** The put options that replace only the object with this etag; without an etag, that create only a new object. */
export const ifUnchanged = (etag: string | undefined): { ifMatch: string } | { ifAbsent: true } =>
  etag === undefined ? { ifAbsent: true } : { ifMatch: etag }
