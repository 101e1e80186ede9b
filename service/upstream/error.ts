/* Why an upstream gave no BTF, though it may have some. */
import { printable } from '../printable.ts'

export type UpstreamErrorCode =
  | 'unreachable' // no answer, an error of the server, or it was not asked because it has just failed
  | 'timeout' // the answer was not complete in time
  | 'refused' // it wants other credentials
  | 'pending' // it makes the BTF; `retryAfter` says when to ask again
  | 'too_large' // the answer is over a limit
  | 'invalid_response' // the answer is none of such a service, or redirects too far
  | 'digest_mismatch' // the bytes are not those that it announced
  | 'kernel_mismatch' // the BTF is announced as that of another kernel
  | 'invalid_btf' // the bytes are not the BTF of a kernel of that architecture
  | 'too_complex' // the bytes need more time or memory to check than the limits of one task
  | 'not_kept' // the store does not take the BTF

/** Characters of a message: it may quote an upstream. */
const MAX_MESSAGE = 400

export class UpstreamError extends Error {
  override readonly name = 'UpstreamError'
  readonly code: UpstreamErrorCode
  /** seconds after which the upstream wants to be asked again */
  readonly retryAfter: number | undefined

  constructor(
    code: UpstreamErrorCode,
    message: string,
    { retryAfter, ...options }: ErrorOptions & { retryAfter?: number | undefined } = {},
  ) {
    super(printable(message).slice(0, MAX_MESSAGE), options)
    this.code = code
    this.retryAfter = retryAfter
  }
}

/** Tells whether an error says that the upstream is away, and not only that it lacks something. */
export const isAway = (error: unknown): error is UpstreamError =>
  error instanceof UpstreamError && ['unreachable', 'timeout'].includes(error.code)
