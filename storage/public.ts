/*
 * What strangers may have of a record. What a program wrote while it failed, where a file lay that somebody gave, and
 * the password in an address are the operator's: they name directories and code of his machine, and open doors.
 */
import type { Failure } from './failure.ts'
import type { BuildRecord } from './record.ts'

/** A record without what is the operator's. */
export function publicRecord(record: BuildRecord): BuildRecord {
  if (isPublic(record)) return record
  const { package: from, failure, ...rest } = record
  return {
    ...rest,
    package: { ...from, url: publicUrl(from.url) },
    ...(failure && { failure: withoutLog(failure) }),
  }
}

const withoutLog = ({ log: _, ...failure }: Failure): Failure => failure

/** Whether nothing of a record is the operator's. */
export function isPublic({ package: { url }, failure }: BuildRecord): boolean {
  return failure?.log === undefined && publicUrl(url) === url
}

/** An address as it is where others can reach it, else the file's name alone. */
function publicUrl(url: string): string {
  return /^https?:/.test(url)
    ? url.replace(/^(https?:\/\/)[^/?#]*@/, '$1') // to the last @: a password may have one
    : url.replace(/^.*[/\\]/s, '')
}
