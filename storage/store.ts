/* The interface that all backends implement, and its types. */
import type { Readable } from 'node:stream'

/**
 * The first and last byte, both included, as in an HTTP Range header. Without `end` the range goes to the object's end.
 */
export interface ByteRange {
  start: number
  end?: number
}

/** An object without its bytes. */
export interface ObjectInfo {
  key: string
  /** bytes of the whole object, even if a range was requested */
  size: number
  /** opaque; changes whenever the bytes change; the value for `ifMatch` */
  etag: string
  modified: Date
}

export interface StoredObject extends ObjectInfo {
  /** the bytes of the object or range; the caller consumes or destroys the stream, and owns its buffers */
  body: Readable
}

export interface PutOptions {
  /** expected SHA-256, hex; with another one the put fails with `digest_mismatch` and stores nothing */
  sha256?: string
  /** fail with `precondition_failed` if the key has an object already */
  ifAbsent?: boolean
  /** fail with `precondition_failed` unless the key's object has this etag */
  ifMatch?: string
  signal?: AbortSignal
}

/**
 * An object store. All five methods are required, and every backend passes the suite in test/helpers/store-contract.ts.
 *
 * A put is atomic: during an overwrite a reader sees the old object or the new object, whole. If the source fails
 * midway, the old object stays. A put that fails destroys its source. Keys are `/`-separated segments that `encodeName`
 * makes; any other key gives `invalid_key`, and a prefix of no valid key lists nothing. All errors are `StoreError`,
 * except a source's own errors and `AbortError`, which are passed on unchanged.
 */
export interface Store {
  /** the URL that the store was opened with; it contains no secrets */
  readonly url: string
  /** Reads an object or a range of it. Errors: `not_found`, `invalid_range`. */
  get(key: string, range?: ByteRange): Promise<StoredObject>
  /** Reads an object's info. Errors: `not_found`. */
  head(key: string): Promise<ObjectInfo>
  /** Stores an object and returns its info. Errors: `precondition_failed`, `digest_mismatch`, `no_space`. */
  put(key: string, body: Readable | Uint8Array, options?: PutOptions): Promise<ObjectInfo>
  /** Lists the objects whose keys start with `prefix` (a plain string, as in S3), in byte order of the keys. */
  list(prefix: string): AsyncIterable<ObjectInfo>
  /** Deletes an object. A missing object is no error. */
  delete(key: string): Promise<void>
}
