/*
 * Raw BTF, addressed by its SHA-256 and kept compressed. Equal BTF of different kernels is one blob. The digest is
 * that of the raw bytes, so it is compared after decompression, whenever a blob is read.
 */
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdDecompress } from 'node:zlib'
import { sha256Of } from './digest.ts'
import { absentIsNone, StoreError } from './error.ts'
import { blobKey } from './name.ts'
import type { Store } from './store.ts'

/**
 * Where a kernel's BTF takes little time, both ways: 4.08 MB become 1.24 in 0.2 s, and are read in 4 ms. Level 19 makes
 * 1.09 of them in 1.0 s, a tenth of what pahole takes, and reading that takes a quarter longer.
 */
const LEVEL = 12
/** Level 12 would take 64 MB for its tables; with these it takes 8, and a blob is as large. */
const TABLES = { [constants.ZSTD_c_chainLog]: 20, [constants.ZSTD_c_hashLog]: 20 }
/** Milliseconds that a blob is new: well below what `collectGarbage` calls young. */
const NEW = 12 * 3600 * 1000
/** Largest BTF we read back, in bytes, compressed or not; a distribution's largest kernels have 10 MB. */
export const MAX_BTF = 256 * 1024 * 1024

export interface BlobInfo {
  /** hex, of the raw bytes */
  sha256: string
  /** raw bytes */
  size: number
}

/**
 * Keeps raw BTF, unless a blob with its digest is there already; one that is no longer new is written again, so that
 * `collectGarbage` sees that somebody wants it. Errors: those of `Store.put`.
 */
export async function putBlob(
  store: Store,
  raw: Uint8Array,
  signal?: AbortSignal,
): Promise<BlobInfo> {
  const sha256 = sha256Of(raw)
  const key = blobKey(sha256)
  if (!(await isNew(store, key))) {
    const params = {
      [constants.ZSTD_c_compressionLevel]: LEVEL,
      ...TABLES,
      [constants.ZSTD_c_checksumFlag]: 1,
    }
    const compressed = await promisify(zstdCompress)(raw, { params, pledgedSrcSize: raw.length })
    await store.put(key, compressed, { ...(signal && { signal }) })
  }
  return { sha256, size: raw.length }
}

/** A blob as it is stored, and what it is. */
export interface Blob {
  raw: Buffer
  /** a zstd frame of it, for those who pass it on */
  compressed: Buffer
}

/** The raw bytes. Errors: those of `readBlob`. */
export async function getBlob(store: Store, sha256: string): Promise<Buffer> {
  return (await readBlob(store, sha256)).raw
}

/** Reads a blob. Errors: `not_found`; `digest_mismatch` for one that is not what its address says. */
export async function readBlob(store: Store, sha256: string): Promise<Blob> {
  const compressed = await readFrame(store, sha256)
  let raw: Buffer
  try {
    raw = await inflate(compressed)
  } catch (cause) {
    throw new StoreError('digest_mismatch', `blob ${sha256} does not decompress`, { cause })
  }
  if (sha256Of(raw) !== sha256)
    throw new StoreError('digest_mismatch', `blob ${sha256} has other bytes`)
  return { raw, compressed }
}

/** The raw bytes of a zstd frame. Errors: zlib's, also for more than `MAX_BTF` bytes. */
export async function inflate(frame: Buffer): Promise<Buffer> {
  const options = { maxOutputLength: MAX_BTF, chunkSize: chunkFor(frame) }
  return await promisify(zstdDecompress)(frame, options)
}

/** The zstd frame alone, for who decodes it elsewhere. Errors: `not_found`; `digest_mismatch` for one too large. */
export async function readFrame(store: Store, sha256: string): Promise<Buffer> {
  const { body, size } = await store.get(blobKey(sha256))
  if (size > MAX_BTF) {
    body.destroy()
    throw new StoreError('digest_mismatch', `blob ${sha256} has ${size} bytes`)
  }
  const pieces: Buffer[] = await body.toArray()
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
}

/** Most that is set aside at once for what a frame says it holds, in bytes. */
const MAX_CHUNK = 16 * 1024 * 1024

/** Bytes: a chunk that is just full would have zlib set aside another. */
const SPARE = 64

/** All at once: in zlib's own chunks of 16 KiB it takes five times as long. `putBlob` has the frame say its size. */
function chunkFor(frame: Buffer): number {
  return Math.min(Math.max((contentSize(frame) ?? 0) + SPARE, 64 * 1024), MAX_CHUNK)
}

/** The size of the content that the header of a zstd frame tells, in bytes, below 4 GiB (RFC 8878, 3.1.1.1). */
function contentSize(frame: Buffer): number | undefined {
  const descriptor = frame[4]
  if (descriptor === undefined || frame.length < 18) return undefined
  const single = (descriptor >> 5) & 1
  const at = 5 + (1 - single) + [0, 1, 2, 4][descriptor & 3]!
  switch (descriptor >> 6) {
    case 0:
      return single === 1 ? frame[at] : undefined
    case 1:
      return frame.readUInt16LE(at) + 256
    default:
      return frame.readUInt32LE(at)
  }
}

async function isNew(store: Store, key: string): Promise<boolean> {
  const there = await store.head(key).catch(absentIsNone)
  return there !== undefined && there.modified.getTime() > Date.now() - NEW
}
