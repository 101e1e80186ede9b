/*
 * A snapshot of all records in one object, so that a service starts with one GET. It is made from the records and
 * replaced by compare-and-swap. It is never the truth: without a valid snapshot, readers list the records instead.
 *
 * The format is zstd of JSON lines: a header with the number of records and, as `[digest, size]`, the packs of the store,
 * then `[key, etag, record]` for each record, in byte order of the keys. Anybody may read it, so it has the public part of
 * each record. A fourth element `true` marks records that have a private part. The signature covers all of it: a mirror
 * knows which packs to expect. Older readers skip the packs, and older snapshots have none.
 */
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { constants, createZstdDecompress, zstdCompress } from 'node:zlib'
import { ignoreNotFound, StoreError } from './error.ts'
import { newerSchema, toRecord } from './json.ts'
import { digestOfPack, PACKS } from './name.ts'
import { isPartialStore } from './partial.ts'
import { isPublic, publicRecord } from './public.ts'
import type { RecordEntry } from './records.ts'
import { signObject } from './signed.ts'
import type { ObjectInfo, Store } from './store.ts'
import { ifUnchanged } from './swap.ts'

export const SNAPSHOT_KEY = 'catalog/snapshot.ndjson.zst'

const SCHEMA = 1
/** The largest snapshot that is read, compressed and not, in bytes: about 600 000 records. */
export const MAX_SNAPSHOT = 128 * 1024 * 1024
const MAX_SIZE = 1024 * 1024 * 1024
const MAX_LINE = 1024 * 1024
/** Bytes of a decompressed chunk; with Node's default it takes four times as long. */
const CHUNK = 256 * 1024

/** A pack that a snapshot names: the SHA-256 of the file in hex, and its bytes. */
export type SnapshotPack = readonly [digest: string, size: number]

/** The most packs that a snapshot names: a line is bounded. */
const MAX_PACKS = 10_000

export interface SnapshotContent {
  entries: RecordEntry[]
  /** in byte order of their digests; undefined if the snapshot does not tell */
  packs?: readonly SnapshotPack[]
}

export interface Snapshot extends SnapshotContent {
  /** etag of the object, for the next `writeSnapshot` */
  etag: string
}

/** Reads the snapshot; undefined if there is none. Errors: `invalid_snapshot`; those of `Store.get`. */
export async function readSnapshot(store: Store): Promise<Snapshot | undefined> {
  const found = await store.get(SNAPSHOT_KEY).catch(ignoreNotFound)
  if (!found) return undefined
  if (found.size > MAX_SNAPSHOT) {
    found.body.destroy()
    throw new StoreError(
      'invalid_snapshot',
      `${SNAPSHOT_KEY} has ${found.size} bytes: expected at most ${MAX_SNAPSHOT}`,
    )
  }
  const content = await decodeSnapshot(await buffer(found.body))
  const isInPlace = ({ record }: RecordEntry) =>
    (record.origin === 'headers') === isPartialStore(store)
  if (!content.entries.every(isInPlace))
    throw new StoreError(
      'invalid_snapshot',
      `${SNAPSHOT_KEY} has records of partial BTF and of whole kernels`,
    )
  return { ...content, etag: found.etag }
}

/** The info of the current snapshot object; undefined if there is none. Errors: those of `Store.head`. */
export async function headSnapshot(store: Store): Promise<ObjectInfo | undefined> {
  return await store.head(SNAPSHOT_KEY).catch(ignoreNotFound)
}

/**
 * Replaces the snapshot with this etag; without an etag, writes the first. Errors: `precondition_failed`; those of
 * `Store.put`.
 */
export async function writeSnapshot(
  store: Store,
  { entries, packs }: SnapshotContent,
  etag: string | undefined,
): Promise<ObjectInfo> {
  return await store.put(SNAPSHOT_KEY, await encodeSnapshot(entries, packs), ifUnchanged(etag))
}

/** The packs of a store, as a snapshot names them. Errors: those of `Store.list`. */
export async function packsIn(store: Store): Promise<SnapshotPack[]> {
  const packs: SnapshotPack[] = []
  for await (const { key, size } of store.list(PACKS)) {
    const digest = digestOfPack(key)
    if (digest !== undefined && packs.length < MAX_PACKS) packs.push([digest, size])
  }
  return packs
}

/** Signs the current snapshot, unless this key has signed it already. Errors: those of `signObject`. */
export async function signSnapshot(store: Store, secretKey: string): Promise<void> {
  await signObject(store, SNAPSHOT_KEY, MAX_SNAPSHOT, secretKey)
}

/** Encodes entries, and the packs of a store, as the bytes of a snapshot. */
export async function encodeSnapshot(
  entries: readonly RecordEntry[],
  packs?: readonly SnapshotPack[],
): Promise<Buffer> {
  const lines = entries.map(({ key, etag, record, partial = !isPublic(record) }) =>
    JSON.stringify([key, etag, publicRecord(record), ...(partial ? [true] : [])]),
  )
  const header = { schema: SCHEMA, records: entries.length, ...(packs && { packs }) }
  const text = [JSON.stringify(header), ...lines, ''].join('\n')
  return await promisify(zstdCompress)(text, {
    pledgedSrcSize: Buffer.byteLength(text), // without it both sides allocate the largest window
    params: {
      [constants.ZSTD_c_checksumFlag]: 1,
      [constants.ZSTD_c_enableLongDistanceMatching]: 1,
    },
  })
}

/**
 * Decodes the bytes of a snapshot. They are decompressed as a stream, since the whole text takes more memory than the
 * entries. `maxSize` limits their text, in bytes. Errors: `invalid_snapshot`.
 */
export async function decodeSnapshot(
  bytes: Uint8Array,
  maxSize = MAX_SIZE,
): Promise<SnapshotContent> {
  const entries: RecordEntry[] = []
  const share = createSharing()
  let header: SnapshotHeader | undefined
  const read = (line: string) => {
    if (header === undefined) header = readHeader(line)
    else entries.push(share(toEntry(line)))
  }
  try {
    const decompress = createZstdDecompress({ chunkSize: CHUNK })
    await pipeline(Readable.from([bytes]), decompress, (chunks) =>
      forEachLine(chunks, read, maxSize),
    )
    const { records, packs } = header ?? {}
    if (entries.length !== records)
      throw new Error(`it has ${entries.length} of ${records} records`)
    return { entries, ...(packs && { packs }) }
  } catch (cause) {
    const reason = (cause as Error).message
    throw new StoreError('invalid_snapshot', `invalid snapshot: ${reason}`, { cause })
  }
}

interface SnapshotHeader {
  records: number
  packs?: readonly SnapshotPack[]
}

function readHeader(line: string): SnapshotHeader {
  const { schema, records, packs } = JSON.parse(line)
  if (Number.isSafeInteger(schema) && schema > SCHEMA) throw new Error(newerSchema(schema, SCHEMA))
  if (schema !== SCHEMA) throw new Error(`its schema is ${schema}: expected ${SCHEMA}`)
  if (packs === undefined) return { records }
  if (!Array.isArray(packs) || !packs.every(isPack)) throw new Error('its list of packs is invalid')
  return { records, packs }
}

const isPack = (pack: unknown): boolean =>
  Array.isArray(pack) &&
  /^[0-9a-f]{64}$/.test(String(pack[0])) &&
  Number.isSafeInteger(pack[1]) &&
  pack[1] >= 0

function toEntry(line: string): RecordEntry {
  const [key, etag, record, partial] = JSON.parse(line)
  if (typeof key !== 'string' || typeof etag !== 'string')
    throw new Error('a line has no key or no etag')
  return { key, etag, record: toRecord(key, record), ...(partial === true && { partial }) }
}

/** Saves memory: records with equal tools or kinds share one object. A store has few different ones. */
function createSharing(): (entry: RecordEntry) => RecordEntry {
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

/**
 * Calls `read` with each line of a text. Errors: `Error` if the text or a line is too long, or the text does not end
 * with a newline.
 */
async function forEachLine(
  chunks: AsyncIterable<Buffer>,
  read: (line: string) => void,
  maxSize: number,
): Promise<void> {
  let rest: Buffer = Buffer.alloc(0)
  let size = 0
  for await (const chunk of chunks) {
    size += chunk.length
    if (size > maxSize) throw new Error(`it has more than ${maxSize} bytes`)
    const text = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk
    let start = 0
    for (let end = text.indexOf(10); end >= 0; end = text.indexOf(10, start)) {
      read(text.toString('utf8', start, end))
      start = end + 1
    }
    rest = text.subarray(start)
    if (rest.length > MAX_LINE) throw new Error(`a line has more than ${MAX_LINE} bytes`)
  }
  if (rest.length > 0) throw new Error('it ends in the middle of a line')
}
