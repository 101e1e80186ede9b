/*
 * A snapshot of all records in one object, so that a service starts with one GET. It is made from the records, replaced
 * by compare-and-swap, and never the truth: who finds none, or one that does not read, lists the records instead.
 *
 * zstd of JSON lines: a head with the number of records, then `[key, etag, record]` for each, in byte order of keys.
 * Anybody may read it, so it has what is public of each; where that is not all, a fourth element `true` says so.
 */
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { constants, createZstdDecompress, zstdCompress } from 'node:zlib'
import { absentIsNone, StoreError } from './error.ts'
import { toRecord } from './json.ts'
import { isPublic, publicRecord } from './public.ts'
import type { RecordEntry } from './records.ts'
import { signObject } from './signed.ts'
import type { ObjectInfo, Store } from './store.ts'
import { over } from './swap.ts'

export const SNAPSHOT_KEY = 'catalog/snapshot.ndjson.zst'

const SCHEMA = 1
/** Bytes of a snapshot, compressed and not, that we read: some 600 000 records. */
export const MAX_SNAPSHOT = 128 * 1024 * 1024
const MAX_SIZE = 1024 * 1024 * 1024
const MAX_LINE = 1024 * 1024
/** The default gives a quarter of the speed. */
const CHUNK = 256 * 1024

export interface Snapshot {
  /** of the object; what `writeSnapshot` wants of the next one's writer */
  etag: string
  entries: RecordEntry[]
}

/** The snapshot, if there is one. Errors: `invalid_snapshot`. */
export async function readSnapshot(store: Store): Promise<Snapshot | undefined> {
  const found = await store.get(SNAPSHOT_KEY).catch(absentIsNone)
  if (!found) return undefined
  if (found.size > MAX_SNAPSHOT) {
    found.body.destroy()
    throw new StoreError('invalid_snapshot', `${SNAPSHOT_KEY} has ${found.size} bytes`)
  }
  return { etag: found.etag, entries: await decodeSnapshot(await buffer(found.body)) }
}

/** The version of the snapshot that is there now, if there is one. */
export async function headSnapshot(store: Store): Promise<ObjectInfo | undefined> {
  return await store.head(SNAPSHOT_KEY).catch(absentIsNone)
}

/** Replaces the snapshot whose etag is given, or makes the first. Errors: `precondition_failed`. */
export async function writeSnapshot(
  store: Store,
  entries: readonly RecordEntry[],
  etag: string | undefined,
): Promise<ObjectInfo> {
  return await store.put(SNAPSHOT_KEY, await encodeSnapshot(entries), over(etag))
}

/** Signs the snapshot that is there, unless it is signed already. Errors: `invalid_key`, `not_found`. */
export async function signSnapshot(store: Store, secretKey: string): Promise<void> {
  await signObject(store, SNAPSHOT_KEY, MAX_SNAPSHOT, secretKey)
}

/** The bytes of a snapshot of these entries. */
export async function encodeSnapshot(entries: readonly RecordEntry[]): Promise<Buffer> {
  const lines = entries.map(({ key, etag, record, partial = !isPublic(record) }) =>
    JSON.stringify([key, etag, publicRecord(record), ...(partial ? [true] : [])]),
  )
  const text = [JSON.stringify({ schema: SCHEMA, records: entries.length }), ...lines, ''].join(
    '\n',
  )
  return await promisify(zstdCompress)(text, {
    pledgedSrcSize: Buffer.byteLength(text), // else each side makes room for the largest window
    params: {
      [constants.ZSTD_c_checksumFlag]: 1,
      [constants.ZSTD_c_enableLongDistanceMatching]: 1,
    },
  })
}

/**
 * The entries of which `encodeSnapshot` made these bytes. They are decoded as a stream, since all of them at once are
 * more than what comes of them. Errors: `invalid_snapshot`.
 */
export async function decodeSnapshot(bytes: Uint8Array): Promise<RecordEntry[]> {
  const entries: RecordEntry[] = []
  const share = sharing()
  let records: number | undefined
  const read = (line: string) => {
    if (records === undefined) records = readHead(line)
    else entries.push(share(toEntry(line)))
  }
  try {
    const decompress = createZstdDecompress({ chunkSize: CHUNK })
    await pipeline(Readable.from([bytes]), decompress, (chunks) => forEachLine(chunks, read))
    if (entries.length !== records) throw new Error(`${entries.length} of ${records} records`)
    return entries
  } catch (cause) {
    const why = (cause as Error).message
    throw new StoreError('invalid_snapshot', `the snapshot does not read: ${why}`, { cause })
  }
}

function readHead(line: string): number {
  const { schema, records } = JSON.parse(line)
  if (schema !== SCHEMA) throw new Error(`its schema is ${schema}`)
  return records
}

function toEntry(line: string): RecordEntry {
  const [key, etag, record, partial] = JSON.parse(line)
  if (typeof key !== 'string' || typeof etag !== 'string') throw new Error('a line without a key')
  return { key, etag, record: toRecord(key, record), ...(partial === true && { partial }) }
}

/** Lets equal parts of records be one: few tools make all of them, and most kernels use the same kinds. */
function sharing(): (entry: RecordEntry) => RecordEntry {
  const known = new Map<string, unknown>()
  const shared = <T>(value: T): T => {
    const text = JSON.stringify(value)
    if (!known.has(text)) known.set(text, value)
    return known.get(text) as T
  }
  return (entry) => {
    const { record } = entry
    record.tool = shared(record.tool)
    if (record.btf) record.btf.kinds = shared(record.btf.kinds)
    return entry
  }
}

/** Gives each line of a text that ends with a newline. */
async function forEachLine(
  chunks: AsyncIterable<Buffer>,
  read: (line: string) => void,
): Promise<void> {
  let rest: Buffer = Buffer.alloc(0)
  let size = 0
  for await (const chunk of chunks) {
    size += chunk.length
    if (size > MAX_SIZE) throw new Error(`more than ${MAX_SIZE} bytes`)
    const text = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk
    let start = 0
    for (let end = text.indexOf(10); end >= 0; end = text.indexOf(10, start)) {
      read(text.toString('utf8', start, end))
      start = end + 1
    }
    rest = text.subarray(start)
    if (rest.length > MAX_LINE) throw new Error(`a line of more than ${MAX_LINE} bytes`)
  }
  if (rest.length > 0) throw new Error('it ends in the middle of a line')
}
