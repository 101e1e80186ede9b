/* Records as strangers see them: what is public of one, and of a failure what they can make use of. */
import Type, { type Static } from 'typebox'
import { type BuildRecord, Failure, publicRecord } from '../../storage/index.ts'

const { code, message, attempts, at, retryAt } = Failure.properties
export const ShownFailure = Type.Object({ code, message, attempts, at, retryAt })

export function shownFailure(failure: Failure): Static<typeof ShownFailure> {
  const { code, message, attempts, at, retryAt } = failure
  return { code, message, attempts, at, retryAt }
}

export type ShownRecord = Omit<BuildRecord, 'failure'> & { failure?: Static<typeof ShownFailure> }

export function shownRecord(record: BuildRecord): ShownRecord {
  const { failure, ...rest } = publicRecord(record)
  return { ...rest, ...(failure && { failure: shownFailure(failure) }) }
}
