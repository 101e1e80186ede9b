/*
 * The keys of sources on this machine: in the keyrings that rows name, and in directories with one file for each key,
 * which is named by its fingerprint.
 */
import { findKeyrings, fingerprintsIn, keyPath } from '../signature.ts'
import { keyringsOf, type Source } from './source.ts'

/** Directories with keys, in the order in which they are looked through. */
export interface KeyDirectories {
  /** absolute paths */
  paths: readonly string[]
  /** sources that say their fingerprints use no keyring besides these */
  only?: boolean
}

/** Adds the files of its keys in these directories to the keyrings of a source, before its own: they may be newer. */
export function withKeys(source: Source, { paths, only = false }: KeyDirectories): Source {
  if (!('fingerprints' in source) || !source.fingerprints) return source
  const { fingerprints } = source
  const files = paths.flatMap((path) => fingerprints.map((key) => keyPath(path, key)))
  const keyrings = [...files, ...(only ? [] : (source.keyrings ?? []))]
  return keyrings.length > 0 ? { ...source, keyrings } : source
}

/** The keys of a distribution version. */
export interface SourceKeys {
  /** files that they may be in */
  places: string[]
  /** those that exist on this machine */
  here: string[]
  /** fingerprints of the source's keys that no file has; a version may need only some of the keys */
  missing: string[]
}

/** Looks for the keys of a distribution version. */
export async function keysOfVersion(source: Source, version: string): Promise<SourceKeys> {
  const places = keyringsOf(source, version)
  const known = await fingerprintsIn(places)
  const fingerprints = ('fingerprints' in source && source.fingerprints) || []
  return {
    places,
    here: await findKeyrings(places),
    missing: fingerprints.filter((fingerprint) => !known.has(fingerprint)),
  }
}

/** Tells whether signatures of a distribution version are to be checked, and no keyring that could is on this machine. */
export async function lacksKeys(source: Source, version: string): Promise<boolean> {
  const places = keyringsOf(source, version)
  return places.length > 0 && (await findKeyrings(places)).length === 0
}

/** Tells whether the keys of a source have known addresses. */
export const hasPublishedKeys = (source: Source): boolean =>
  'keyUrls' in source && source.keyUrls !== undefined && source.fingerprints !== undefined
