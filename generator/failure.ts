/* Turns errors into the failures that records store: a code of the closed list, a message, and the time of a retry. */
import {
  FAILURE_CODES,
  type Failure,
  type FailureCode,
  StoreError,
  scrubbed,
  withoutCredentials,
} from '../storage/index.ts'
import { GeneratorError } from './error.ts'

const HOUR = 3600 * 1000
const MAX_DELAY = 7 * 24 * HOUR

/** The failure of an error; `attempts` includes this one. The delay of a `later` retry doubles, up to a week. */
export function failureOf(error: unknown, attempts: number, now = new Date()): Failure {
  const { code, log } = codeOf(error)
  const message = messageOf(error)
  const delay = {
    now: 0,
    later: Math.min(HOUR * 2 ** (attempts - 1), MAX_DELAY),
    never: undefined,
  }[FAILURE_CODES[code]]
  return {
    code,
    message,
    ...(log && { log: withoutCredentials(log) }),
    attempts,
    at: now.toISOString(),
    retryAt: delay === undefined ? null : new Date(now.getTime() + delay).toISOString(),
  }
}

/** Tells whether a retry would fail in the same way, or the package is no longer where the index lists it. */
export const isLost = (code: FailureCode): boolean =>
  FAILURE_CODES[code] === 'never' || code === 'not_found_upstream'

/** The message of an error without secrets. Those of other classes may have paths, which nobody has made showable. */
export function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return error instanceof GeneratorError ? withoutCredentials(message) : scrubbed(message)
}

/** The failure code of an error, and its log: the end of a program's stderr, or the stack of an internal error. */
export function codeOf(error: unknown): { code: FailureCode; log?: string | undefined } {
  if (error instanceof GeneratorError) return error
  if (error instanceof StoreError)
    return { code: error.code === 'no_space' ? 'no_space' : 'store_failed', log: error.message }
  const system = (error as NodeJS.ErrnoException | undefined)?.code
  if (system === 'ENOSPC' || system === 'EDQUOT') return { code: 'no_space' }
  return { code: 'internal', log: error instanceof Error ? error.stack : undefined }
}
