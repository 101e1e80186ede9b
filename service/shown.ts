/*
 * Records as strangers see them. What programs wrote while they failed, and where a file lay that somebody gave, is the
 * operator's: it names directories and code of his machine.
 */
import Type, { type Static } from 'typebox'
import { type BuildRecord, Failure, type Package } from '../storage/index.ts'

const { code, message, attempts, at, retryAt } = Failure.properties
export const ShownFailure = Type.Object({ code, message, attempts, at, retryAt })

export function shownFailure(failure: Failure): Static<typeof ShownFailure> {
  const { code, message, attempts, at, retryAt } = failure
  return { code, message, attempts, at, retryAt }
}

/** A package's address as it is where others can reach it, else the file's name alone. */
export function shownPackage(from: Package): Package {
  const { url } = from
  if (/^https?:/.test(url)) return { ...from, url: url.replace(/(\/\/)[^/@]*@/, '$1') }
  return { ...from, url: url.replace(/^.*[/\\]/s, '') }
}

export type ShownRecord = Omit<BuildRecord, 'failure'> & { failure?: Static<typeof ShownFailure> }

export function shownRecord({ failure, ...record }: BuildRecord): ShownRecord {
  return {
    ...record,
    package: shownPackage(record.package),
    ...(failure && { failure: shownFailure(failure) }),
  }
}
