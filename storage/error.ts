/** What can go wrong with a store; each backend maps its own errors to these and to nothing else. */
export const STORE_ERROR_CODES = [
  'not_found', // the key has no object
  'not_permitted', // the backend refuses us: EACCES, EROFS, 403
  'unreachable', // the backend does not answer: connection refused, time-out, 5xx after retries, unmounted disk
  'precondition_failed', // ifAbsent or ifMatch did not hold
  'digest_mismatch', // the bytes are not those the caller, or the address, promised
  'invalid_key', // a key or name that cannot be stored: traversal, empty, too long; or a key to sign with that is none
  'invalid_range', // the range lies outside the object
  'invalid_record', // JSON that is not a record, or a record that is not where its kernel's belong
  'invalid_snapshot', // a snapshot of the catalog that does not read
  'invalid_signature', // a signature that is not of this content by this key
  'no_space', // ENOSPC, EDQUOT
  'unsupported', // a store URL or an operation the backend does not have
] as const

export type StoreErrorCode = (typeof STORE_ERROR_CODES)[number]

/** The one error class of `storage/`; `cause` holds the backend's own error. */
export class StoreError extends Error {
  override readonly name = 'StoreError'
  readonly code: StoreErrorCode

  constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** For `catch`: what is not there is undefined, and any other error stays one. */
export function absentIsNone(error: unknown): undefined {
  if (error instanceof StoreError && error.code === 'not_found') return undefined
  throw error
}
