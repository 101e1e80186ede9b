/* Records as JSON objects of a store. Each is validated when it is read, since others write to the store too. */
import { buffer } from 'node:stream/consumers'
import { Compile } from 'typebox/compile'
import { ignoreNotFound, isUnusableRecord, StoreError } from './error.ts'
import type { KernelName } from './kernel.ts'
import { buildOf, kernelPrefix, prefixOfKey, recordKey, sourceResultKey } from './name.ts'
import { checkPlace } from './partial.ts'
import { BuildRecord, type SourceFailure, SourceResult } from './record.ts'
import type { ObjectInfo, PutOptions, Store } from './store.ts'

/** Largest record, in bytes. */
const MAX_SIZE = 1024 * 1024

/** The schema of the documents that this version reads and writes. */
const SCHEMA = 1

/** Says that a document is of a newer version. */
export const newerSchema = (schema: number, known: number): string =>
  `written by a newer btfmill: schema ${schema}, this one reads ${known}`

const buildRecord = Compile(BuildRecord)
const sourceResult = Compile(SourceResult)

/**
 * Writes a build's record under its key and replaces an older one; with `ifMatch`, only the one with that etag; with
 * `ifAbsent`, none. Errors: `invalid_record`; those of `Store.put`.
 */
export async function putRecord(
  store: Store,
  record: BuildRecord,
  options: Pick<PutOptions, 'ifMatch' | 'ifAbsent'> = {},
): Promise<ObjectInfo> {
  const key = recordKey(record.kernel, buildOf(record))
  checkPlace(store, key, record.origin)
  return await put(store, key, record, options)
}

/** Reads the record at a key. Errors: `not_found`, `invalid_record`, `newer_schema`; those of `Store.get`. */
export async function readRecord(store: Store, key: string): Promise<BuildRecord> {
  const record = checkedKernel(key, await read(store, key, buildRecord))
  checkPlace(store, key, record.origin)
  return record
}

/** Validates a parsed record that was stored under `key`. Errors: `invalid_record`, `newer_schema`. */
export function toRecord(key: string, value: unknown): BuildRecord {
  return checkedKernel(key, validated(key, value, buildRecord))
}

/** Checks that a record belongs to the kernel of its key; otherwise the wrong BTF would be served. */
function checkedKernel(key: string, record: BuildRecord): BuildRecord {
  if (belongsTo(key, record.kernel)) return record
  const name = Object.values(record.kernel).slice(0, 4).join(' ')
  throw new StoreError('invalid_record', `${key}: the record belongs to another kernel, ${name}`)
}

function belongsTo(key: string, kernel: KernelName): boolean {
  try {
    return kernelPrefix(kernel) === prefixOfKey(key)
  } catch {
    return false // the names cannot form a key
  }
}

/** Stores how the discovery of an index ended, in place of the last result. Errors: `invalid_record`; those of `Store.put`. */
export async function putSourceResult(store: Store, result: SourceResult): Promise<void> {
  await put(store, sourceResultKey(result.source, result.suite), result)
}

/** Reads the source result at a key. Errors: as `readRecord`. */
export async function readSourceResult(store: Store, key: string): Promise<SourceResult> {
  return await read(store, key, sourceResult)
}

/**
 * Yields the last result of each index of a source. A document that cannot be read or used is reported and skipped.
 * Errors: those of `Store` that concern more than one object.
 */
export async function* listSourceResults(
  store: Store,
  onInvalid: (error: StoreError, key: string) => void = () => {},
): AsyncGenerator<SourceResult> {
  for await (const { key } of store.list('sources/')) {
    try {
      yield await readSourceResult(store, key)
    } catch (error) {
      if (isUnusableRecord(error)) onInvalid(error, key)
      else ignoreNotFound(error) // deleted meanwhile
    }
  }
}

/** Yields the indexes whose last discovery failed. Errors: as `listSourceResults`. */
export async function* listSourceFailures(
  store: Store,
  onInvalid?: (error: StoreError, key: string) => void,
): AsyncGenerator<SourceFailure> {
  for await (const result of listSourceResults(store, onInvalid))
    if ('failure' in result) yield result
}

async function put(
  store: Store,
  key: string,
  value: unknown,
  options: PutOptions = {},
): Promise<ObjectInfo> {
  const bytes = Buffer.from(`${JSON.stringify(value, null, 2)}\n`)
  if (bytes.length > MAX_SIZE) throw tooLarge(key, bytes.length, MAX_SIZE)
  return await store.put(key, bytes, options)
}

/** The part of a compiled schema that is used here. */
interface Validator<T> {
  Check(value: unknown): value is T
  Errors(value: unknown): { instancePath: string; message: string }[]
}

async function read<T>(store: Store, key: string, validator: Validator<T>): Promise<T> {
  return parseJson(key, await readBytes(store, key, MAX_SIZE), validator)
}

/** Reads a whole object. Errors: `not_found`; `invalid_record` if it has more than `maxSize` bytes. */
export async function readBytes(store: Store, key: string, maxSize: number): Promise<Buffer> {
  const { body, size } = await store.get(key)
  if (size <= maxSize) return await buffer(body)
  body.destroy()
  throw tooLarge(key, size, maxSize)
}

const tooLarge = (key: string, size: number, maxSize: number): StoreError =>
  new StoreError(
    'invalid_record',
    `${key}: the object has ${size} bytes: expected at most ${maxSize}`,
  )

/** Parses JSON and validates the value. Errors: `invalid_record`, `newer_schema`. */
export function parseJson<T>(key: string, bytes: Buffer, validator: Validator<T>): T {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    const message = `${key}: invalid JSON: ${(cause as Error).message}`
    throw new StoreError('invalid_record', message, { cause })
  }
  return validated(key, value, validator)
}

function validated<T>(key: string, value: unknown, validator: Validator<T>): T {
  const { schema } = (value ?? {}) as { schema?: unknown }
  if (Number.isSafeInteger(schema) && (schema as number) > SCHEMA)
    throw new StoreError('newer_schema', `${key}: ${newerSchema(schema as number, SCHEMA)}`)
  if (validator.Check(value)) return value
  const [first] = validator.Errors(value)
  throw new StoreError(
    'invalid_record',
    `${key}: ${first?.instancePath ?? ''} ${first?.message ?? ''}`,
  )
}
