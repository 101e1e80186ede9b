/* JSON from servers, validated against a schema before use. */
import { showable } from '../storage/index.ts'
import { GeneratorError } from './error.ts'

/** The part of a compiled TypeBox schema that is used here. */
interface Schema<T> {
  Check(value: unknown): value is T
  Errors(value: unknown): { instancePath: string; message: string }[]
}

/** Parses and validates the JSON that was read from a URL. Errors: `invalid_index`. */
export function parseJson<T>(bytes: Buffer, schema: Schema<T>, url: string): T {
  const value = parse(bytes, url)
  if (schema.Check(value)) return value
  const [first] = schema.Errors(value)
  throw new GeneratorError(
    'invalid_index',
    `${showable(url)}: invalid JSON at ${first?.instancePath || '/'}: ${first?.message}`,
  )
}

function parse(bytes: Buffer, url: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw new GeneratorError(
      'invalid_index',
      `${showable(url)}: invalid JSON: ${(cause as Error).message}`,
      {
        cause,
      },
    )
  }
}
