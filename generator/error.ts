import type { FailureCode } from '../storage/index.ts'

/** The error class of `generator/`. Its codes are the failure codes that records store. */
export class GeneratorError extends Error {
  override readonly name = 'GeneratorError'
  readonly code: FailureCode
  /** the end of a failed program's stderr */
  readonly log: string | undefined

  constructor(code: FailureCode, message: string, options: ErrorOptions & { log?: string } = {}) {
    super(message, options)
    this.code = code
    this.log = options.log || undefined
  }
}
