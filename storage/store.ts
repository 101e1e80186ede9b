import type { Readable } from 'node:stream'

/** First and last byte, both included, as in an HTTP Range header; without `end` to the object's end. */
export interface ByteRange {
  start: number
  end?: number
}

/** What a store knows of an object. `etag` is opaque and changes whenever the bytes do; it is what `ifMatch` takes. */
export interface ObjectInfo {
  key: string
  /** bytes of the whole object, whatever range was asked for */
  size: number
  etag: string
  modified: Date
}

export interface StoredObject extends ObjectInfo {
  /** The bytes of the object, or of the range. The caller consumes or destroys it; what it gives is the caller's own. */
  body: Readable
}

export interface PutOptions {
  /** hex SHA-256 the bytes must have; else `digest_mismatch`, and nothing is stored */
  sha256?: string
  /** store only where the key has no object yet; else `precondition_failed` */
  ifAbsent?: boolean
  /** store only over the object with this etag; else `precondition_failed` */
  ifMatch?: string
  signal?: AbortSignal
}

/**
 * Where bytes live. Five methods, none optional; every backend passes the contract suite in test/storage/contract.ts.
 *
 * A put is all or nothing and is never seen half: a reader during an overwrite sees the old object or the new one,
 * whole; a source that fails midway leaves what was there. A put that fails destroys its source. Keys are
 * `/`-separated segments as `name.ts` makes them; any other gives `invalid_key`, a prefix of none lists nothing. All
 * errors are `StoreError`, but a source's own and an `AbortError`, which pass as they are.
 */
export interface Store {
  /** The URL this store was opened with, without secrets. */
  readonly url: string
  /** Errors: `not_found`, `invalid_range`. */
  get(key: string, range?: ByteRange): Promise<StoredObject>
  /** Errors: `not_found`. */
  head(key: string): Promise<ObjectInfo>
  /** Returns what was stored. Errors: `precondition_failed`, `digest_mismatch`, `no_space`. */
  put(key: string, body: Readable | Uint8Array, options?: PutOptions): Promise<ObjectInfo>
  /** Objects whose key starts with `prefix` (a plain string prefix, as in S3), in byte order of their keys. */
  list(prefix: string): AsyncIterable<ObjectInfo>
  /** Deleting what is not there is no error. */
  delete(key: string): Promise<void>
}
