/** The failures of a store. Each backend maps its own errors to these codes and to no others. */
export type StoreErrorCode =
  | 'not_found' // the key has no object
  | 'unreadable' // one object cannot be read, while the store answers: a link or a directory in its place, a bad sector
  | 'not_permitted' // the backend denies access: EACCES, EROFS, 403
  | 'unreachable' // the backend does not answer: connection refused, timeout, 5xx after retries, unmounted disk
  | 'precondition_failed' // `ifAbsent` or `ifMatch` did not hold
  | 'digest_mismatch' // the bytes do not have the SHA-256 that the caller or the key names
  | 'invalid_key' // a key or name that cannot be stored (traversal, empty, too long), or an invalid signing key
  | 'invalid_range' // the range lies outside the object
  | 'invalid_record' // JSON that is not a record, or a record under the key of another kernel
  | 'newer_schema' // a record or manifest that a newer btfmill wrote
  | 'invalid_pack' // a pack that is damaged, cut off, over a limit or of an unknown version
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

/** Tells whether one object cannot be read. The store answers, so this stops no work on other objects. */
export const isUnreadable = (error: unknown): error is StoreError =>
  error instanceof StoreError && ['unreadable', 'not_permitted'].includes(error.code)

/** Tells whether a record cannot be used: it cannot be read, is invalid, or is of a newer btfmill. */
export const isUnusableRecord = (error: unknown): error is StoreError =>
  isUnreadable(error) ||
  (error instanceof StoreError && ['invalid_record', 'newer_schema'].includes(error.code))

/** Tells whether BTF in the store is lost, damaged or cannot be read: it is left out, and the others go on. */
export const isDamagedObject = (error: unknown): error is StoreError =>
  isUnreadable(error) ||
  (error instanceof StoreError && ['not_found', 'digest_mismatch'].includes(error.code))

/** For `catch`: turns `not_found` into undefined and throws any other error again. */
export function ignoreNotFound(error: unknown): undefined {
  if (error instanceof StoreError && error.code === 'not_found') return undefined
  throw error
}
