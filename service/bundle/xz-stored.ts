/*
 * Writes an .xz file with stored data (The .xz File Format 1.2.1; LZMA2 uncompressed chunks). It is for an .xz file
 * inside a compressed archive: the outer compressor finds repetitions in stored data, and none in compressed data.
 */
import { crc32 } from 'node:zlib'

const MAGIC = Buffer.from('fd377a585a00', 'hex')
const FOOTER_MAGIC = Buffer.from('YZ')
/** stream flags: the check of each block is a CRC32 */
const FLAGS = Buffer.from([0, 1])
const CHECK_SIZE = 4
/** control bytes of uncompressed LZMA2 chunks: with and without a dictionary reset */
const FIRST_CHUNK = 1
const NEXT_CHUNK = 2
const MAX_CHUNK = 64 * 1024
/** one filter, LZMA2, with a dictionary of 64 KiB, which stored data does not use */
const BLOCK_HEADER = Buffer.from([2, 0, 0x21, 1, 8, 0, 0, 0])

/** Returns an .xz file with one stream and one block; it exceeds the input by at most 0.02 % and 80 bytes. */
export function frameXz(bytes: Uint8Array): Buffer {
  const header = withCrc(BLOCK_HEADER)
  const chunks = [...chunksOf(bytes), Buffer.of(0)]
  const data = chunks.reduce((sum, { length }) => sum + length, 0)
  const unpadded = header.length + data + CHECK_SIZE
  const records = [0, ...encodeVli(1), ...encodeVli(unpadded), ...encodeVli(bytes.length)]
  const index = withCrc(padded(Buffer.from(records)))
  const backward = Buffer.alloc(4)
  backward.writeUInt32LE(index.length / 4 - 1)
  const footer = Buffer.concat([backward, FLAGS])
  const block = [header, ...chunks, Buffer.alloc(-data & 3), crcOf(bytes)]
  const streamFooter = [crcOf(footer), footer, FOOTER_MAGIC]
  return Buffer.concat([MAGIC, withCrc(FLAGS), ...block, index, ...streamFooter])
}

function* chunksOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += MAX_CHUNK) {
    const chunk = bytes.subarray(at, at + MAX_CHUNK)
    const head = Buffer.alloc(3)
    head.writeUInt8(at === 0 ? FIRST_CHUNK : NEXT_CHUNK)
    head.writeUInt16BE(chunk.length - 1, 1)
    yield head
    yield chunk
  }
}

/** Encodes a multibyte integer (section 1.2): seven bits per byte, the lowest first. */
function encodeVli(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) | 128, ...encodeVli(Math.floor(value / 128))]
}

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)])

const withCrc = (bytes: Buffer): Buffer => Buffer.concat([bytes, crcOf(bytes)])

function crcOf(bytes: Uint8Array): Buffer {
  const crc = Buffer.alloc(4)
  crc.writeUInt32LE(crc32(bytes))
  return crc
}
