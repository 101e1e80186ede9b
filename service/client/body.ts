/* The body of a response with BTF: unpacked within limits, and compared with the digest in its ETag. */
import type { IncomingHttpHeaders } from 'node:http'
import { Readable } from 'node:stream'
import { createZstdDecompress, constants as zlib } from 'node:zlib'
import { sha256Of } from '../../storage/index.ts'
import { FetchError } from './request.ts'

/** The largest BTF that is accepted, in bytes. A distribution's largest kernels have 10 MB. */
export const MAX_BTF = 64 * 1024 * 1024
/** Log2 of the largest window of a zstd frame, in bytes; a decoder allocates as much as the frame asks for. */
const MAX_WINDOW = 26
/** Bytes that are decompressed at a time. */
const CHUNK = 256 * 1024

/** Raw bytes, and their SHA-256 in hex. */
export interface CheckedBytes {
  raw: Buffer
  sha256: string
}

/** Decompresses a response and compares its SHA-256 with the one in its ETag. Errors: `digest_mismatch`. */
export async function readChecked(
  bytes: Buffer,
  headers: IncomingHttpHeaders,
): Promise<CheckedBytes> {
  const [, announced] = /^"([0-9a-f]{64})(?:-\w+)?"$/.exec(String(headers.etag)) ?? []
  const raw = headers['content-encoding'] === 'zstd' ? await decompressFrame(bytes) : bytes
  const sha256 = sha256Of(raw)
  if (sha256 === announced) return { raw, sha256 }
  const message = `the response has SHA-256 ${sha256}: expected ${announced ?? 'an ETag with a SHA-256'}`
  throw new FetchError('digest_mismatch', message)
}

/** Decompresses a zstd frame as far as it may be BTF: a small frame may hold gigabytes. Errors: `digest_mismatch`. */
export async function decompressFrame(frame: Buffer): Promise<Buffer> {
  const params = { [zlib.ZSTD_d_windowLogMax]: MAX_WINDOW }
  const pieces: Buffer[] = []
  let size = 0
  try {
    const input = Readable.from([frame], { objectMode: false })
    for await (const piece of input.compose(createZstdDecompress({ params, chunkSize: CHUNK }))) {
      size += piece.length
      if (size > MAX_BTF) throw new Error(`it has more than ${MAX_BTF} bytes`)
      pieces.push(piece)
    }
    return Buffer.concat(pieces)
  } catch (cause) {
    const message = `the response does not decompress: ${(cause as Error).message}`
    throw new FetchError('digest_mismatch', message, { cause })
  }
}
