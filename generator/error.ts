import type { FailureCode } from '../storage/index.ts'

/** The one error class of `generator/`; its codes are those that records keep. */
export class GeneratorError extends Error {
  override readonly name = 'GeneratorError'
  readonly code: FailureCode
  /** the end of what a failing program wrote to stderr */
  readonly log: string | undefined

  constructor(code: FailureCode, message: string, options: ErrorOptions & { log?: string } = {}) {
    super(message, options)
    this.code = code
    this.log = options.log || undefined
  }
}
