/** What the service answers instead of what was asked for; `problem.ts` maps each to its HTTP status, once. */
export const SERVICE_ERROR_CODES = [
  'invalid_request', // a parameter, header or body that is not as its schema says
  'invalid_name', // a name that no kernel can have
  'unknown_kernel', // no record of this kernel
  'unknown_blob', // no BTF with this digest
  'has_own_btf', // this kernel carries BTF of its own, and we hold no copy
  'generation_failed', // generating it failed
  'ambiguous', // several builds, with different BTF
  'invalid_range', // a range outside the body
  'pending', // it is being made; `details.job` says where to watch
  'unknown_job', // no generation by that id, or one that ended long ago
  'quota_exceeded', // this client has used its quota
  'busy', // no more is taken on for now: of this client, or at all
  'unauthorized', // a token is wanted, or the one given is none of ours
  'forbidden', // the token's scopes do not reach this far
  'rate_limited', // too many requests of one client
  'timeout', // a request that did not come whole in time
  'too_large', // a body over the limit
  'uri_too_long', // an address over the limit
  'headers_too_large', // headers over the limit
  'unsupported_media_type', // a body that is none of the forms taken here
  'invalid_object', // what was sent, or is to be worked on, is not what it should be: `details.reason` is a code of BtfError
  'unsupported', // kernels on which an object does not work, where all must
  'invalid_bundle', // a bundle that does not read, or is not what its manifest says
  'not_representable', // a kernel that a bundle in this profile cannot hold
  'too_complex', // objects that take more time or memory than the service gives to a stranger
  'not_found', // no such address
  'unavailable', // the store does not answer, or the catalog is not loaded yet; at drop-ins also what is being made
  'invalid_tokens', // a file of tokens that does not read, or a token that cannot be in it
  'internal', // a defect of ours
] as const

export type ServiceErrorCode = (typeof SERVICE_ERROR_CODES)[number]

/** The one error class of `service/`; `details` go into the problem document. */
export class ServiceError extends Error {
  override readonly name = 'ServiceError'
  readonly code: ServiceErrorCode
  readonly details: Readonly<Record<string, unknown>>

  constructor(
    code: ServiceErrorCode,
    message: string,
    { details = {}, ...options }: ErrorOptions & { details?: Record<string, unknown> } = {},
  ) {
    super(message, options)
    this.code = code
    this.details = details
  }
}
