/* Records as clients see them: without private properties, and with the parts of a failure that clients can use. */
import Type, { type Static } from 'typebox'
import { type BuildRecord, Failure, publicRecord } from '../../storage/index.ts'

const { code, message, attempts, at, retryAt } = Failure.properties
export const PublicFailure = Type.Object({ code, message, attempts, at, retryAt })

export function toPublicFailure(failure: Failure): Static<typeof PublicFailure> {
  const { code, message, attempts, at, retryAt } = failure
  return { code, message, attempts, at, retryAt }
}

export type PublicRecord = Omit<BuildRecord, 'failure'> & { failure?: Static<typeof PublicFailure> }

export function toPublic(record: BuildRecord): PublicRecord {
  const { failure, ...rest } = publicRecord(record)
  return { ...rest, ...(failure && { failure: toPublicFailure(failure) }) }
}

export const KernelState = Type.Union([
  Type.Literal('available'),
  Type.Literal('embedded'),
  Type.Literal('failed'),
])
export type KernelState = Type.Static<typeof KernelState>

/** The state of a build. A build with BTF is available, even if a later attempt to generate it failed. */
export function stateOf(record: BuildRecord): KernelState {
  if (record.btf) return 'available'
  return record.failure || !record.embedded ? 'failed' : 'embedded'
}
