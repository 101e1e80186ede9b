/*
 * What S3 and its SDK say of a failure, and which of our codes that is. The status decides where no name does, but for
 * 404: a server that is not S3 says that of everything, and one that is says what it has not.
 */
import { StoreError, type StoreErrorCode } from './error.ts'

/** By the name S3 or the SDK gives the error. */
const BY_NAME: Record<string, StoreErrorCode> = {
  NoSuchKey: 'not_found',
  NoSuchBucket: 'unreachable', // as a disk that is not mounted
  NoSuchUpload: 'unreachable', // someone else took its parts away
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

/** The failure of a request about `what` as ours; whatever else it was, the server was not reached. */
export function explainS3(error: unknown, what: string): StoreError {
  if (error instanceof StoreError) return error
  const { name = '' } = error as S3Failure
  const code = BY_NAME[name] ?? BY_STATUS[statusOf(error)] ?? 'unreachable'
  return new StoreError(code, `${what}: ${describe(error as S3Failure)}`, { cause: error })
}

/**
 * Whether a request may have been carried out although it failed: a first attempt that was not answered, before the one
 * that was refused.
 */
export const wasRetried = (error: unknown): boolean =>
  ((error as S3Failure).$metadata?.attempts ?? 2) > 1

/** The HTTP status of the answer, where there was one. */
export const statusOf = (error: unknown): number =>
  (error as S3Failure).$metadata?.httpStatusCode ?? 0

/** A refused connection has no message of its own, only those of the addresses that were tried. */
function describe({ name, message, code, $metadata }: S3Failure): string {
  const status = $metadata?.httpStatusCode
  return [status, name, message || code].filter(Boolean).join(' ').slice(0, 500)
}
