/*
 * Errors as the failures that records keep: a code from the closed list, the message, and the time of the next attempt.
 */
import { FAILURE_CODES, type Failure, type FailureCode, StoreError } from '../storage/index.ts'
import { GeneratorError } from './error.ts'

const HOUR = 3600 * 1000
const LONGEST_PAUSE = 7 * 24 * HOUR

/** An error as it is kept; `attempts` counts this one. The pause after a `later` one doubles, up to a week. */
export function failureOf(error: unknown, attempts: number, now = new Date()): Failure {
  const { code, log } = codeOf(error)
  const message = error instanceof Error ? error.message : String(error)
  const pause = {
    now: 0,
    later: Math.min(HOUR * 2 ** (attempts - 1), LONGEST_PAUSE),
    never: undefined,
  }[FAILURE_CODES[code]]
  return {
    code,
    message,
    ...(log && { log }),
    attempts,
    at: now.toISOString(),
    retryAt: pause === undefined ? null : new Date(now.getTime() + pause).toISOString(),
  }
}

/** The failure code of an error, and the log that is kept with it: a program's last words, or the stack of a defect. */
export function codeOf(error: unknown): { code: FailureCode; log?: string | undefined } {
  if (error instanceof GeneratorError) return error
  if (error instanceof StoreError)
    return { code: error.code === 'no_space' ? 'no_space' : 'store_failed' }
  const system = (error as NodeJS.ErrnoException | undefined)?.code
  if (system === 'ENOSPC' || system === 'EDQUOT') return { code: 'no_space' }
  return { code: 'internal', log: error instanceof Error ? error.stack : undefined }
}
