/*
 * Blobs: raw BTF, compressed with zstd and addressed by the SHA-256 of the raw bytes. Equal BTF of different kernels is
 * one blob. The digest is that of the raw bytes, so each read compares it after decompression. BTF that has no blob may be
 * in a pack (packs.ts): all readers but those that check blobs look there too. The symbols of kernels, a text with the
 * names of their functions, are kept in the same way as blobs, below keys of their own.
 */
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdDecompress } from 'node:zlib'
import { sha256Of } from './body.ts'
import { isDamagedObject, StoreError } from './error.ts'
import { blobKey, symbolsKey } from './name.ts'
import type { PackedBtf } from './pack-members.ts'
import { packsOf } from './packs.ts'
import type { Store } from './store.ts'

/**
 * The compression level. It takes little time both ways: 4.08 MB of BTF become 1.24 MB in 0.2 s and decompress in 4 ms.
 * Level 19 gives 1.09 MB, but takes 1.0 s (a tenth of pahole's time) and decompresses a quarter slower.
 */
const LEVEL = 12
/** Sizes of zstd's tables, log2. Level 12 takes 64 MB by default and 8 MB with these; the blobs are as small. */
const TABLES = { [constants.ZSTD_c_chainLog]: 20, [constants.ZSTD_c_hashLog]: 20 }
/** Milliseconds after which `putBlob` writes a blob again; well below the `MIN_AGE` of `collectGarbage`. */
const FRESH = 12 * 3600 * 1000
/** The largest BTF that is read, in bytes, compressed or not. A distribution's largest kernels have 10 MB. */
export const MAX_BTF = 256 * 1024 * 1024

export interface BlobInfo {
  /** hex, of the raw bytes */
  sha256: string
  /** raw bytes */
  size: number
}

/**
 * Stores raw BTF, unless a blob with its digest exists already. An existing blob that is older than 12 hours is written
 * again, so that `collectGarbage` does not remove it. Errors: those of `Store.put`.
 */
export async function putBlob(
  store: Store,
  raw: Uint8Array,
  signal?: AbortSignal,
  keyOf: KeyOf = blobKey,
): Promise<BlobInfo> {
  const sha256 = sha256Of(raw)
  const key = keyOf(sha256)
  if (!(await isFresh(store, key))) {
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

/** Makes the key of a digest: of a blob, or of symbols. */
export type KeyOf = (sha256: string) => string

/** Stores the function names of a kernel, as `putBlob` stores BTF. Errors: those of `Store.put`. */
export async function putSymbols(
  store: Store,
  raw: Uint8Array,
  signal?: AbortSignal,
): Promise<BlobInfo> {
  return await putBlob(store, raw, signal, symbolsKey)
}

/** Reads the function names of a kernel. Errors: those of `readBlob`. */
export async function getSymbols(store: Store, sha256: string): Promise<Buffer> {
  return (await readBlob(store, sha256, symbolsKey)).raw
}

/** A blob in both forms. */
export interface StoredBlob {
  raw: Buffer
  /** the zstd frame, as stored */
  compressed: Buffer
}

/**
 * Reads raw BTF and checks it: of its blob, or of a pack if there is no blob, or a damaged one. Errors: those of `readBlob`
 * and of `StorePacks.read`.
 */
export async function getBlob(store: Store, sha256: string): Promise<Buffer> {
  const read = async () => (await readBlob(store, sha256)).raw
  return await orPacked(read, () => packsOf(store).read(sha256))
}

/** BTF as it is stored, not yet checked: the zstd frame of its blob, or the steps of a pack. */
export type StoredBytes = { frame: Buffer } | { packed: PackedBtf }

/**
 * Reads BTF as it is stored, without checking it, for callers that decompress it elsewhere. Errors: those of
 * `readCompressedBlob` and of `StorePacks.steps`.
 */
export async function readStoredBytes(store: Store, sha256: string): Promise<StoredBytes> {
  return await orPacked<StoredBytes>(
    async () => ({ frame: await readCompressedBlob(store, sha256) }),
    async () => {
      const packed = await packsOf(store).steps(sha256)
      return packed && { packed }
    },
  )
}

/** Reads a blob, or, if it is missing or damaged and a pack has the BTF, from the pack. Errors: those of both. */
export async function orPacked<T>(
  blob: () => Promise<T>,
  packed: () => Promise<T | undefined>,
): Promise<T> {
  try {
    return await blob()
  } catch (error) {
    if (!isDamagedObject(error)) throw error
    const found = await packed()
    if (found === undefined) throw error
    return found
  }
}

/**
 * Reads a blob and checks it. It does not look into packs. Errors: `not_found`; `digest_mismatch` if the bytes do not have
 * the digest.
 */
export async function readBlob(
  store: Store,
  sha256: string,
  keyOf: KeyOf = blobKey,
): Promise<StoredBlob> {
  const compressed = await readCompressedBlob(store, sha256, keyOf)
  let raw: Buffer
  try {
    raw = await decompressBlob(compressed)
  } catch (cause) {
    throw new StoreError('digest_mismatch', `blob ${sha256} does not decompress`, { cause })
  }
  const actual = sha256Of(raw)
  if (actual !== sha256)
    throw new StoreError('digest_mismatch', `blob ${sha256} has the SHA-256 ${actual}`)
  return { raw, compressed }
}

/** Decompresses a blob's zstd frame. Errors: those of zlib, also for more than `MAX_BTF` bytes. */
export async function decompressBlob(frame: Buffer): Promise<Buffer> {
  const options = { maxOutputLength: MAX_BTF, chunkSize: chunkSizeFor(frame) }
  return await promisify(zstdDecompress)(frame, options)
}

/**
 * Reads a blob's zstd frame without checking it, for callers that decompress it elsewhere. Errors: `not_found`;
 * `digest_mismatch` if it is larger than any blob.
 */
export async function readCompressedBlob(
  store: Store,
  sha256: string,
  keyOf: KeyOf = blobKey,
): Promise<Buffer> {
  const { body, size } = await store.get(keyOf(sha256))
  if (size > MAX_BTF) {
    body.destroy()
    throw new StoreError(
      'digest_mismatch',
      `blob ${sha256} has ${size} bytes: expected at most ${MAX_BTF}`,
    )
  }
  const pieces: Buffer[] = await body.toArray()
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
}

/** The largest output buffer that is allocated at once, whatever size a frame announces, in bytes. */
const MAX_CHUNK = 16 * 1024 * 1024

/** Extra bytes in the output buffer: if it were exactly full, zlib would allocate another. */
const SPARE = 64

/** The output buffer's size. One buffer for all is five times as fast as zlib's chunks of 16 KiB. */
function chunkSizeFor(frame: Buffer): number {
  return Math.min(Math.max((contentSize(frame) ?? 0) + SPARE, 64 * 1024), MAX_CHUNK)
}

/** The content size in the header of a zstd frame, in bytes, below 4 GiB (RFC 8878, section 3.1.1.1). */
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

/** For `catch`: a blob that is missing or cannot be read is written again. */
function ignoreDamaged(error: unknown): undefined {
  if (!isDamagedObject(error)) throw error
}

async function isFresh(store: Store, key: string): Promise<boolean> {
  const found = await store.head(key).catch(ignoreDamaged)
  return found !== undefined && found.modified.getTime() > Date.now() - FRESH
}
