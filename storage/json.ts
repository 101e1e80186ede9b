/* Records as objects of a store: JSON that is validated when it is read, since others write to the store too. */
import { buffer } from 'node:stream/consumers'
import { Compile } from 'typebox/compile'
import { StoreError } from './error.ts'
import type { KernelName } from './kernel.ts'
import { buildOf, kernelPrefix, prefixOfKey, recordKey, sourceFailureKey } from './name.ts'
import { BuildRecord, SourceFailure } from './record.ts'
import type { Store } from './store.ts'

/** Largest record, in bytes. */
const MAX_SIZE = 1024 * 1024

const buildRecord = Compile(BuildRecord)
const sourceFailure = Compile(SourceFailure)

/** Writes a build's record under its key, over an older one. Errors: `invalid_record`, those of `Store.put`. */
export async function putRecord(store: Store, record: BuildRecord): Promise<void> {
  await put(store, recordKey(record.kernel, buildOf(record)), record)
}

/** Reads the record at a key. Errors: `not_found`, `invalid_record`. */
export async function readRecord(store: Store, key: string): Promise<BuildRecord> {
  return atItsKey(key, await read(store, key, buildRecord))
}

/** The record that a value says it is, which was kept under that key. Errors: `invalid_record`. */
export function toRecord(key: string, value: unknown): BuildRecord {
  return atItsKey(key, validated(key, value, buildRecord))
}

/** One kernel's record under another's name would hand out the wrong BTF. */
function atItsKey(key: string, record: BuildRecord): BuildRecord {
  if (isAt(key, record.kernel)) return record
  const name = Object.values(record.kernel).slice(0, 4).join(' ')
  throw new StoreError('invalid_record', `${key}: it is of another kernel, ${name}`)
}

function isAt(key: string, kernel: KernelName): boolean {
  try {
    return kernelPrefix(kernel) === prefixOfKey(key)
  } catch {
    return false // names that make no key
  }
}

/** Writes that a source could not be discovered. */
export async function putSourceFailure(store: Store, failure: SourceFailure): Promise<void> {
  await put(store, sourceFailureKey(failure.source, failure.suite), failure)
}

/** Reads one back. Errors: `not_found`, `invalid_record`. */
export async function readSourceFailure(store: Store, key: string): Promise<SourceFailure> {
  return await read(store, key, sourceFailure)
}

/** The sources that could not be discovered when they were last tried. What does not parse is reported, never fatal. */
export async function* listSourceFailures(
  store: Store,
  onInvalid: (error: StoreError) => void = () => {},
): AsyncGenerator<SourceFailure> {
  for await (const { key } of store.list('sources/')) {
    try {
      yield await readSourceFailure(store, key)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      if (error.code === 'invalid_record') onInvalid(error)
      else if (error.code !== 'not_found') throw error // deleted since
    }
  }
}

async function put(store: Store, key: string, value: unknown): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify(value, null, 2)}\n`)
  if (bytes.length > MAX_SIZE)
    throw new StoreError('invalid_record', `${key}: ${bytes.length} bytes`)
  await store.put(key, bytes)
}

/** What `Compile` makes of a schema. */
interface Validator<T> {
  Check(value: unknown): value is T
  Errors(value: unknown): { instancePath: string; message: string }[]
}

async function read<T>(store: Store, key: string, validator: Validator<T>): Promise<T> {
  return parseJson(key, await readBytes(store, key, MAX_SIZE), validator)
}

/** The bytes of an object. Errors: `not_found`, `invalid_record` for one of more than `max` bytes. */
export async function readBytes(store: Store, key: string, max: number): Promise<Buffer> {
  const { body, size } = await store.get(key)
  if (size <= max) return await buffer(body)
  body.destroy()
  throw new StoreError('invalid_record', `${key}: ${size} bytes`)
}

/** The value that a text is, checked. Errors: `invalid_record`. */
export function parseJson<T>(key: string, bytes: Buffer, validator: Validator<T>): T {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw new StoreError('invalid_record', `${key}: ${(cause as Error).message}`, { cause })
  }
  return validated(key, value, validator)
}

function validated<T>(key: string, value: unknown, validator: Validator<T>): T {
  if (validator.Check(value)) return value
  const [first] = validator.Errors(value)
  throw new StoreError(
    'invalid_record',
    `${key}: ${first?.instancePath ?? ''} ${first?.message ?? ''}`,
  )
}
