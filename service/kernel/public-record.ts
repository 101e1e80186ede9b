/* Records as strangers see them: what is public of one, and of a failure what they can make use of. */
import Type, { type Static } from 'typebox'
import { type BuildRecord, Failure, publicFailure, publicRecord } from '../../storage/index.ts'

const { code, message, attempts, at, retryAt } = Failure.properties
export const PublicFailure = Type.Object({ code, message, attempts, at, retryAt })

export function toPublicFailure(failure: Failure): Static<typeof PublicFailure> {
  const { code, message, attempts, at, retryAt } = publicFailure(failure)
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

/** What can be had of a build: its BTF, even where a newer try failed. */
export function stateOf(record: BuildRecord): KernelState {
  if (record.btf) return 'available'
  return record.failure || !record.embedded ? 'failed' : 'embedded'
}
