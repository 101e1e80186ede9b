/* What the check of a store finds. */
import type { StoreErrorCode } from './error.ts'

export type FindingCode =
  | StoreErrorCode
  | 'missing_blob' // a record names BTF that neither a blob nor a pack has, or symbols that do not exist
  | 'missing_archive' // the manifest lists a file that does not exist
  | 'archive_mismatch' // an archive has the BTF of another kernel
  | 'unknown_object' // btfmill makes no such key
  | 'unsigned' // an object has no signature by the given key, or one of older content
  | keyof typeof BEHIND

/** The findings that are behind the records, not damage. */
export const BEHIND = {
  /** the archive's kernel has newer BTF */
  stale_archive: true,
  /** the snapshot differs from the records */
  stale_snapshot: true,
  /** the manifest differs from the files, or is missing */
  stale_manifest: true,
}

export interface StoreFinding {
  key: string
  code: FindingCode
  message: string
  /** behind the records, not damaged */
  behind: boolean
  /** whether `repair` corrected it */
  repaired: boolean
  /** the releases whose lost BTF the next run makes again, if `repair` found no other copy */
  due?: string[]
}

export interface VerifyOptions {
  /** rebuild what can be rebuilt */
  repair?: boolean
  /** reports objects that this key has not signed; with `repair`, signs them */
  secretKey?: string
  signal?: AbortSignal
}

/** A finding, before it is known whether it is damage. */
export type FoundObjects = Omit<StoreFinding, 'behind'>

/** Finds the raw bytes of an object elsewhere: BTF in a pack or an archive; undefined if nothing else has them. */
export type Recovery = (object: string) => Promise<Buffer | undefined>
