/*
 * Maps the errors of S3 and its SDK to our codes. The error's name decides, and without a known name the HTTP status,
 * except 404: a server that is not S3 answers 404 to everything, and an S3 server names what is missing.
 */
import { StoreError, type StoreErrorCode } from './error.ts'

/** By the error's name in S3 or the SDK. */
const BY_NAME: Record<string, StoreErrorCode> = {
  NoSuchKey: 'not_found',
  NoSuchBucket: 'unreachable', // as for a disk that is not mounted
  NoSuchUpload: 'unreachable', // others removed the parts
  AllAccessDisabled: 'not_permitted',
  AuthorizationHeaderMalformed: 'not_permitted',
  CredentialsProviderError: 'not_permitted',
  ExpiredToken: 'not_permitted',
  InvalidToken: 'not_permitted',
  TokenProviderError: 'not_permitted',
  TokenRefreshRequired: 'not_permitted',
  EntityTooLarge: 'no_space',
  QuotaExceeded: 'no_space',
  KeyTooLongError: 'invalid_key',
  XMinioInvalidObjectName: 'invalid_key',
  BadDigest: 'digest_mismatch',
  XAmzContentChecksumMismatch: 'digest_mismatch',
  XAmzContentSHA256Mismatch: 'digest_mismatch',
  ConditionalRequestConflict: 'precondition_failed',
}

const BY_STATUS: Record<number, StoreErrorCode> = {
  401: 'not_permitted',
  403: 'not_permitted',
  405: 'not_permitted',
  412: 'precondition_failed',
  416: 'invalid_range',
  501: 'unsupported',
  507: 'no_space',
}

interface S3Failure {
  name?: string
  message?: string
  code?: string
  $metadata?: { httpStatusCode?: number; attempts?: number }
}

/** Maps the error of a request about `what` to a `StoreError`; an unknown error becomes `unreachable`. */
export function toStoreError(error: unknown, what: string): StoreError {
  if (error instanceof StoreError) return error
  const { name = '' } = error as S3Failure
  const code = BY_NAME[name] ?? BY_STATUS[statusOf(error)] ?? 'unreachable'
  return new StoreError(code, `${what}: ${describe(error as S3Failure)}`, { cause: error })
}

/**
 * Tells whether a request may have been carried out although it failed: the SDK tried more than once, and an unanswered first
 * attempt may be the reason why a later one was rejected.
 */
export const wasRetried = (error: unknown): boolean =>
  ((error as S3Failure).$metadata?.attempts ?? 2) > 1

/** The HTTP status of the response; 0 if there was none. */
export const statusOf = (error: unknown): number =>
  (error as S3Failure).$metadata?.httpStatusCode ?? 0

/** Status, name and message. A refused connection has no message, only a code. */
function describe({ name, message, code, $metadata }: S3Failure): string {
  const status = $metadata?.httpStatusCode
  return [status, name, message || code].filter(Boolean).join(' ').slice(0, 500)
}
