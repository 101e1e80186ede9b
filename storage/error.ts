/** The failures of a store. Each backend maps its own errors to these codes and to no others. */
export type StoreErrorCode =
  | 'not_found' // the key has no object
  | 'not_permitted' // the backend denies access: EACCES, EROFS, 403
  | 'unreachable' // the backend does not answer: connection refused, timeout, 5xx after retries, unmounted disk
  | 'precondition_failed' // `ifAbsent` or `ifMatch` did not hold
  | 'digest_mismatch' // the bytes do not have the SHA-256 that the caller or the key names
  | 'invalid_key' // a key or name that cannot be stored (traversal, empty, too long), or an invalid signing key
  | 'invalid_range' // the range lies outside the object
  | 'invalid_record' // JSON that is not a record, or a record under the key of another kernel
  | 'invalid_snapshot' // a snapshot of the catalog that does not decode
  | 'invalid_signature' // a signature of other content, by another key, or not in minisign's format
  | 'no_space' // ENOSPC, EDQUOT
  | 'unsupported' // a store URL or an operation that the backend does not have

/** The one error class of `storage/`. `cause` holds the backend's own error. */
export class StoreError extends Error {
  override readonly name = 'StoreError'
  readonly code: StoreErrorCode

  constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** For `catch`: turns `not_found` into undefined and throws any other error again. */
export function ignoreNotFound(error: unknown): undefined {
  if (error instanceof StoreError && error.code === 'not_found') return undefined
  throw error
}
