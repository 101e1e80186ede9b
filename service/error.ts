/** What the service answers instead of what was asked for; `problem.ts` maps each to its HTTP status, once. */
export const SERVICE_ERROR_CODES = [
  'bad_request', // a parameter, header or body that is not as its schema says
  'invalid_name', // a name that no kernel can have
  'unknown_kernel', // no record of this kernel
  'unknown_blob', // no BTF with this digest
  'embedded', // this kernel carries BTF of its own, and we hold no copy
  'failed', // generating it failed
  'ambiguous', // several builds, with different BTF
  'invalid_range', // a range outside the body
  'not_found', // no such address
  'unavailable', // the store does not answer
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
