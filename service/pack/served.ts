/*
 * A pack in a file that is served, beside a store or without one. The file stays open: if another one takes its place, the
 * service goes on with the one that it began with. Its SHA-256 is taken once; each kernel is checked when it is read.
 */
import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { Readable } from 'node:stream'
import {
  type BuildRecord,
  type ByteRange,
  decodePackIndex,
  PackMembers,
  type PackSource,
  packKey,
  type RecordEntry,
  readPackIndex,
  type StoredPack,
} from '../../storage/index.ts'

/** Bytes that are read at once. */
const PIECE = 256 * 1024

/** A pack in a file, with the records of its kernels. */
export interface ServedPack {
  stored: StoredPack
  entries: readonly RecordEntry[]
}

/** Opens a pack in a file. Errors: `invalid_pack`; the system's. */
export async function openServedPack(path: string): Promise<ServedPack> {
  const file = await open(path)
  try {
    const source = sourceOf(file)
    const { header, bytes } = await readPackIndex(source)
    const { members, catalog } = await decodePackIndex(header, bytes)
    const hash = createHash('sha256')
    const { size, mtime: modified } = await file.stat()
    for await (const piece of piecesOf(file, 0, size)) hash.update(piece)
    const digest = hash.digest('hex')
    const info = { key: packKey(digest), size, etag: digest, modified }
    const stored = {
      ...{ digest, info, source, members: new PackMembers(source, members) },
      open: async ({ start, end = size - 1 }: ByteRange = { start: 0 }) =>
        Readable.from(piecesOf(file, start, end + 1), { objectMode: false }),
    }
    const entries = [...catalog.list()].map((entry) => ({
      ...entry,
      record: offered(entry.record),
    }))
    return { stored, entries }
  } catch (error) {
    await file.close()
    throw error
  }
}

function sourceOf(file: FileHandle): PackSource {
  return {
    maxGap: 0,
    read: (start, end, take) => take(piecesOf(file, start, end)),
  }
}

/** Reads a range of a file that stays open. A stream of it would close it. */
async function* piecesOf(file: FileHandle, start: number, end: number): AsyncGenerator<Buffer> {
  for (let at = start; at < end; ) {
    const piece = Buffer.alloc(Math.min(PIECE, end - at))
    const { bytesRead } = await file.read(piece, 0, piece.length, at)
    if (bytesRead === 0) return
    yield piece.subarray(0, bytesRead)
    at += bytesRead
  }
}

/** A record whose BTF counts as imported: nobody here has checked where it comes from. */
function offered({ proven: _, ...record }: BuildRecord): BuildRecord {
  return {
    ...record,
    package: { ...record.package, authenticated: 'none' },
    origin: 'import',
    tool: { ...record.tool, fingerprint: 'import' },
  }
}
