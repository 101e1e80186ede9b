/* Answers in JSON, checked before anything is made of them. */
import { GeneratorError } from './error.ts'

/** What a compiled schema of TypeBox can do. */
interface Schema<T> {
  Check(value: unknown): value is T
  Errors(value: unknown): { instancePath: string; message: string }[]
}

/** The value that a URL's bytes hold. Errors: `invalid_index`, with what is wrong. */
export function parseJson<T>(bytes: Buffer, schema: Schema<T>, url: string): T {
  const value = parse(bytes, url)
  if (schema.Check(value)) return value
  const [first] = schema.Errors(value)
  throw new GeneratorError('invalid_index', `${url}: ${first?.instancePath} ${first?.message}`)
}

function parse(bytes: Buffer, url: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw new GeneratorError('invalid_index', `${url}: ${(cause as Error).message}`, { cause })
  }
}
