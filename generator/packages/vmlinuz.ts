/*
 * Boot images: a compressed kernel behind the code that unpacks it. The position of the compressed payload is read from
 * a header if there is one (x86's setup header, EFI's zboot). Otherwise the payload is searched by its magic, as the
 * kernel's scripts/extract-vmlinux does. The result must have the banner of a kernel.
 */
import { buffer } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { inflateRaw, zstdDecompress } from 'node:zlib'
import { isKernelImage } from '../../bpf/index.ts'
import { GeneratorError } from '../error.ts'
import { type Compression, capped, compressionIn, decompress, MAGIC_SIZE } from './decompress.ts'

/** Maximum bytes of an unpacked kernel. Those of distributions have less than 100 MB. */
const MAX_KERNEL = 512 * 1024 ** 2
/** Positions that are tried per compression if there is no header. */
const MAX_POSITIONS = 16
/** Layers of compression. A zboot image in gzip has two. */
const MAX_LAYERS = 3

/** The first bytes of payloads in hex, as far as all kernel builds have the same; the rarest last. */
const PAYLOAD_MAGICS: readonly (readonly [Compression, string])[] = [
  ['gz', '1f8b0800'],
  ['xz', 'fd377a585a00'],
  ['zst', '28b52ffd'],
  ['lz4', '02214c18'],
  ['lz4', '04224d18'],
  ['bz2', '425a68'],
  ['lzma', '5d000000'],
]

/**
 * Unpacks the kernel in a boot image: ELF or flat. Bytes that are a kernel are returned unchanged. Errors:
 * `invalid_elf` if no kernel is found, `too_large`.
 */
export async function unpackVmlinuz(bytes: Buffer, layers = MAX_LAYERS): Promise<Buffer> {
  const fromHeader = payloadByHeader(bytes)
  // A compressed payload may contain a whole banner: lz4 keeps long literals.
  const isPacked =
    fromHeader || isZImage(bytes) || compressionIn(bytes.subarray(0, MAGIC_SIZE)) !== 'none'
  if (!isPacked && isKernelImage(bytes)) return bytes
  for (const { start, end, compression } of layers === 0
    ? []
    : (fromHeader ?? searchPayloads(bytes))) {
    const plain = await firstStream(bytes.subarray(start, end), compression)
    if (!plain) continue
    const kernel = await unpackVmlinuz(plain, layers - 1).catch(ignoreInvalid)
    if (kernel) return kernel
  }
  throw new GeneratorError(
    'invalid_elf',
    'vmlinux is neither an ELF file nor a boot image with a kernel that can be unpacked',
  )
}

function ignoreInvalid(error: unknown): undefined {
  if (error instanceof GeneratorError && error.code === 'invalid_elf') return undefined
  throw error
}

/** A possible position of the payload. */
interface PayloadRange {
  start: number
  end: number
  compression: Compression
}

/** The payload's position from a header; undefined if there is no header, or the position is outside the image. */
function payloadByHeader(bytes: Buffer): [PayloadRange] | undefined {
  const { start, end } = payloadInBzImage(bytes) ?? payloadInZboot(bytes) ?? { start: 0, end: 0 }
  if (start >= end || end > bytes.length) return undefined
  const compression = compressionIn(bytes.subarray(start, start + MAGIC_SIZE))
  return [{ start, end, compression }]
}

/** x86: Documentation/arch/x86/boot.rst, since version 2.08 of the protocol (Linux 2.6.26). */
function payloadInBzImage(bytes: Buffer): Omit<PayloadRange, 'compression'> | undefined {
  const isSetup = bytes.length > 0x250 && bytes.toString('latin1', 0x202, 0x206) === 'HdrS'
  if (!isSetup || bytes.readUInt16LE(0x206) < 0x208) return undefined
  const sectors = bytes[0x1f1] || 4
  const start = (sectors + 1) * 512 + bytes.readUInt32LE(0x248)
  return { start, end: start + bytes.readUInt32LE(0x24c) }
}

/** arm64, riscv, loongarch: drivers/firmware/efi/libstub/zboot-header.S. */
function payloadInZboot(bytes: Buffer): Omit<PayloadRange, 'compression'> | undefined {
  const isZboot = bytes.length > 0x40 && bytes.toString('latin1', 4, 8) === 'zimg'
  if (!isZboot || bytes.toString('latin1', 0, 2) !== 'MZ') return undefined
  const start = bytes.readUInt32LE(8)
  return { start, end: start + bytes.readUInt32LE(12) }
}

/** 32-bit ARM (arch/arm/boot/compressed/head.S): its header does not have the payload's position. */
const isZImage = (bytes: Buffer): boolean =>
  bytes.length > 0x28 && bytes.readUInt32LE(0x24) === 0x016f2818

/** Searches payloads by their magic. */
function* searchPayloads(bytes: Buffer): Generator<PayloadRange> {
  for (const [compression, hex] of PAYLOAD_MAGICS) {
    const magic = Buffer.from(hex, 'hex')
    let start = bytes.indexOf(magic)
    for (let tried = 0; start >= 0 && tried < MAX_POSITIONS; tried++) {
      yield { start, end: bytes.length, compression }
      start = bytes.indexOf(magic, start + 1)
    }
  }
}

/** Decompresses the first stream in `bytes` and ignores what follows; undefined if it does not decompress. */
async function firstStream(bytes: Buffer, compression: Compression): Promise<Buffer | undefined> {
  const options = { maxOutputLength: MAX_KERNEL }
  try {
    switch (compression) {
      case 'none':
        return undefined
      case 'gz':
        return await promisify(inflateRaw)(bytes.subarray(GZIP_HEADER), options)
      case 'zst':
        return await promisify(zstdDecompress)(bytes, options)
      case 'lz4':
        return await decompressAll(bytes.subarray(0, endOfLz4(bytes)), compression)
      case 'lzo':
        // The last four bytes are the unpacked size (scripts/Makefile.lib: size_append).
        return await decompressAll(bytes.subarray(0, -4), compression)
      case 'xz':
      case 'lzma':
      case 'bz2':
        return await decompressAll(bytes, compression)
      default:
        return compression satisfies never
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'too_large') throw error
    if (code === 'ERR_BUFFER_TOO_LARGE')
      throw new GeneratorError('too_large', `the kernel has more than ${MAX_KERNEL} bytes`)
    return undefined
  }
}

/** Bytes of a header without name, comment or other fields: `gzip -n`. */
const GZIP_HEADER = 10

async function decompressAll(bytes: Buffer, compression: Compression): Promise<Buffer> {
  const plain = decompress([bytes], compression, { first: true })
  try {
    return await buffer(capped(plain, MAX_KERNEL, 'the kernel'))
  } finally {
    plain.destroy()
  }
}

/** Maximum bytes of a block in lz4's legacy format: 8 MiB, plus the possible growth. */
const MAX_LZ4_BLOCK = 8_421_520

/** The magic of lz4's legacy format, in little-endian order. */
const LZ4_LEGACY = 0x184c2102

const endOfLz4 = (bytes: Buffer): number =>
  bytes.readUInt32LE(0) === LZ4_LEGACY ? endOfLz4Legacy(bytes) : endOfLz4Frame(bytes)

/** The end of the last block in lz4's legacy format, which has only the length of each block. */
function endOfLz4Legacy(bytes: Buffer): number {
  let at = 4
  while (at + 4 <= bytes.length) {
    const size = bytes.readUInt32LE(at)
    if (size === 0 || size > MAX_LZ4_BLOCK || at + 4 + size > bytes.length) break
    at += 4 + size
  }
  return at
}

/** The end of lz4's frame: blocks up to one of length 0 (lz4's doc/lz4_Frame_format.md). */
function endOfLz4Frame(bytes: Buffer): number {
  const flags = bytes[4] ?? 0
  const [blockSums, contentSize, contentSum, dictionary] = [0x10, 0x08, 0x04, 0x01].map(
    (flag) => (flags & flag) !== 0,
  )
  let at = 7 + (contentSize ? 8 : 0) + (dictionary ? 4 : 0)
  while (at + 4 <= bytes.length) {
    // the highest bit marks a block that is stored as it is
    const size = bytes.readUInt32LE(at) & 0x7fffffff
    at += 4
    if (size === 0) break
    at += size + (blockSums ? 4 : 0)
  }
  return at + (contentSum ? 4 : 0)
}
