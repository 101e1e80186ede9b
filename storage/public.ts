/*
 * The public part of a record. A failed program's log, the path of a local package and the credentials in a URL stay
 * private: they reveal directories and code of the operator's machine, or grant access to a server.
 */
import type { Failure } from './failure.ts'
import type { BuildRecord, ModuleFailure } from './record.ts'
import { scrubbed, showable } from './showable.ts'

/** A record without its private data. A record that has none is returned unchanged. */
export function publicRecord(record: BuildRecord): BuildRecord {
  if (isPublic(record)) return record
  const { package: from, failure, moduleFailures, inlinedFailure, ...rest } = record
  return {
    ...rest,
    package: { ...from, url: showable(from.url) },
    ...(failure && { failure: publicFailure(failure) }),
    ...(moduleFailures && { moduleFailures: publicModules(moduleFailures) }),
    ...(inlinedFailure && {
      inlinedFailure: { ...inlinedFailure, message: scrubbed(inlinedFailure.message) },
    }),
  }
}

/** A failure without its log. Its message is scrubbed, in case whoever made it forgot to. */
export function publicFailure({ log: _, ...failure }: Failure): Failure {
  return { ...failure, message: scrubbed(failure.message) }
}

const publicModules = (failures: Record<string, ModuleFailure>): Record<string, ModuleFailure> =>
  Object.fromEntries(
    Object.entries(failures).map(([name, failure]) => [
      name,
      { ...failure, message: scrubbed(failure.message) },
    ]),
  )

/** Tells whether a record has no private data. */
export function isPublic(record: BuildRecord): boolean {
  const { failure, moduleFailures, inlinedFailure } = record
  const { url } = record.package
  const failures = [failure, inlinedFailure, ...Object.values(moduleFailures ?? {})].filter(
    (one) => one !== undefined,
  )
  return (
    failure?.log === undefined &&
    showable(url) === url &&
    failures.every(({ message }) => scrubbed(message) === message)
  )
}
