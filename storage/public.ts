/*
 * The public part of a record. A failed program's log, the path of a local package and the credentials in a URL stay
 * private: they reveal directories and code of the operator's machine, or grant access to a server.
 */
import type { Failure } from './failure.ts'
import type { BuildRecord } from './record.ts'

/** A record without its private data. A record that has none is returned unchanged. */
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

/** Whether a record has no private data. */
export function isPublic({ package: { url }, failure }: BuildRecord): boolean {
  return failure?.log === undefined && publicUrl(url) === url
}

/** An HTTP URL without credentials; of any other URL or path only the file name. */
function publicUrl(url: string): string {
  return /^https?:/.test(url)
    ? url.replace(/^(https?:\/\/)[^/?#]*@/, '$1') // up to the last @: a password may contain one
    : url.replace(/^.*[/\\]/s, '')
}
