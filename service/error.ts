/** Codes of the service's errors; only `http/problem.ts` maps them to HTTP statuses. */
export const SERVICE_ERROR_CODES = [
  'invalid_request', // a parameter, header or body that does not match its schema
  'invalid_name', // not a possible kernel name
  'unknown_kernel', // no record of this kernel
  'unknown_source', // no source of kernel packages has this distribution, version, architecture or release
  'unknown_blob', // no BTF with this digest
  'unknown_type', // no type, member or function of this name, or none in this kernel
  'has_own_btf', // the kernel was built with BTF, and the store has no copy
  'generation_failed', // generating its BTF failed
  'upstream_failed', // it is not here, and an upstream that may have it did not send it; `details.upstreams` say why
  'ambiguous', // several builds match, and their BTF differs
  'invalid_range', // a byte range outside the body
  'pending', // its BTF is being generated; `details.job` is the URL to watch
  'unknown_job', // no generation with this id, or it ended long ago
  'quota_exceeded', // this client has used its quota
  'busy', // a limit on concurrent work is reached; retry later
  'unauthorized', // the token is missing or not known
  'forbidden', // the token does not have the scope
  'rate_limited', // too many requests from one client
  'timeout', // the request did not arrive in time
  'too_large', // the body is over the limit
  'uri_too_long', // the URL is over the limit
  'headers_too_large', // the headers are over the limit
  'unsupported_media_type', // the route does not take this type of body
  'invalid_file', // a path that is not a file, or not a readable one
  'invalid_object', // an invalid BPF object or BTF; `details.reason` is a code of BtfError
  'unsupported', // an object does not work on a kernel, and the bundle requires that it does
  'invalid_bundle', // a bundle that cannot be read or differs from its manifest
  'not_representable', // the bundle's profile has no name for a kernel
  'too_complex', // objects that need more time or memory than the limits of one task
  'not_found', // no such route or file
  'unavailable', // the store does not answer, or the catalog is not loaded yet; on drop-in routes also `pending`
  'invalid_list', // a list of offsets with an invalid line
  'invalid_tokens', // an invalid token file, or an invalid or duplicate token
  'internal', // a bug
] as const

export type ServiceErrorCode = (typeof SERVICE_ERROR_CODES)[number]

/** The error class of `service/`; `details` are added to the problem document. */
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
