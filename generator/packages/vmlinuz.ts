/*
 * Kernels as boot loaders take them: a packed kernel with what unpacks it in front. Where a header says where the
 * packed bytes are (x86's setup header, EFI's zboot), it is asked; else they are looked for by what they begin with, as
 * the kernel's scripts/extract-vmlinux does. What comes out must be a kernel: it has the banner of one.
 */
import { buffer } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { inflateRaw, zstdDecompress } from 'node:zlib'
import { isKernelImage } from '../../bpf/index.ts'
import { GeneratorError } from '../error.ts'
import { type Compression, capped, compressionIn, decompress, MAGIC_SIZE } from './decompress.ts'

/** Bytes of an unpacked kernel; those of distributions have less than 100 MB. */
const MAX_KERNEL = 512 * 1024 ** 2
/** Places that are tried where no header says which, of each compression. */
const MAX_PLACES = 16
/** Kernels in a zboot image in gzip have two layers. */
const MAX_LAYERS = 3

/** What the packed bytes begin with, in hex, as far as a kernel's build leaves no choice; what is rarest last. */
const STARTS: readonly (readonly [Compression, string])[] = [
  ['gz', '1f8b0800'],
  ['xz', 'fd377a585a00'],
  ['zst', '28b52ffd'],
  ['lz4', '02214c18'],
  ['bz2', '425a68'],
  ['lzma', '5d000000'],
]

/**
 * The kernel in a boot image, ELF or flat; the bytes themselves where they are one. Errors: `invalid_elf` where there is
 * none that we find, `too_large`.
 */
export async function unpackVmlinuz(bytes: Buffer, layers = MAX_LAYERS): Promise<Buffer> {
  const told = placeByHeader(bytes)
  // packed bytes may have a whole banner: lz4 leaves much as it is
  const isPacked =
    told || isZImage(bytes) || compressionIn(bytes.subarray(0, MAGIC_SIZE)) !== 'none'
  if (!isPacked && isKernelImage(bytes)) return bytes
  for (const { start, end, compression } of layers === 0 ? [] : (told ?? searchPlaces(bytes))) {
    const plain = await firstStream(bytes.subarray(start, end), compression)
    if (!plain) continue
    const kernel = await unpackVmlinuz(plain, layers - 1).catch(badIsNone)
    if (kernel) return kernel
  }
  throw new GeneratorError(
    'invalid_elf',
    'vmlinux is neither ELF nor an image whose kernel we find',
  )
}

function badIsNone(error: unknown): undefined {
  if (error instanceof GeneratorError && error.code === 'invalid_elf') return undefined
  throw error
}

/** Where packed bytes may be. */
interface PayloadPlace {
  start: number
  end: number
  compression: Compression
}

/** Where a header says that the packed bytes are; undefined where there is none, or it leads astray. */
function placeByHeader(bytes: Buffer): [PayloadPlace] | undefined {
  const { start, end } = placeInBzImage(bytes) ?? placeInZboot(bytes) ?? { start: 0, end: 0 }
  if (start >= end || end > bytes.length) return undefined
  const compression = compressionIn(bytes.subarray(start, start + MAGIC_SIZE))
  return [{ start, end, compression }]
}

/** x86: Documentation/arch/x86/boot.rst, from version 2.08 of the protocol (2.6.26) on. */
function placeInBzImage(bytes: Buffer): Omit<PayloadPlace, 'compression'> | undefined {
  const isSetup = bytes.length > 0x250 && bytes.toString('latin1', 0x202, 0x206) === 'HdrS'
  if (!isSetup || bytes.readUInt16LE(0x206) < 0x208) return undefined
  const sectors = bytes[0x1f1] || 4
  const start = (sectors + 1) * 512 + bytes.readUInt32LE(0x248)
  return { start, end: start + bytes.readUInt32LE(0x24c) }
}

/** arm64, riscv, loongarch: drivers/firmware/efi/libstub/zboot-header.S. */
function placeInZboot(bytes: Buffer): Omit<PayloadPlace, 'compression'> | undefined {
  const isZboot = bytes.length > 0x40 && bytes.toString('latin1', 4, 8) === 'zimg'
  if (!isZboot || bytes.toString('latin1', 0, 2) !== 'MZ') return undefined
  const start = bytes.readUInt32LE(8)
  return { start, end: start + bytes.readUInt32LE(12) }
}

/** 32-bit ARM (arch/arm/boot/compressed/head.S): a header, but not one that says where. */
const isZImage = (bytes: Buffer): boolean =>
  bytes.length > 0x28 && bytes.readUInt32LE(0x24) === 0x016f2818

function* searchPlaces(bytes: Buffer): Generator<PayloadPlace> {
  for (const [compression, hex] of STARTS) {
    const magic = Buffer.from(hex, 'hex')
    let start = bytes.indexOf(magic)
    for (let tried = 0; start >= 0 && tried < MAX_PLACES; tried++) {
      yield { start, end: bytes.length, compression }
      start = bytes.indexOf(magic, start + 1)
    }
  }
}

/** What the stream at the beginning of these bytes unpacks to, whatever follows it; undefined where it is none. */
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
        return await wholeOf(bytes.subarray(0, endOfLz4(bytes)), compression)
      case 'lzo':
        // what follows is the size of what it unpacks to (scripts/Makefile.lib: size_append)
        return await wholeOf(bytes.subarray(0, -4), compression)
      case 'xz':
      case 'lzma':
      case 'bz2':
        return await wholeOf(bytes, compression)
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

/** Without name, comment or other fields: `gzip -n`. */
const GZIP_HEADER = 10

async function wholeOf(bytes: Buffer, compression: Compression): Promise<Buffer> {
  const plain = decompress([bytes], compression, { first: true })
  try {
    return await buffer(capped(plain, MAX_KERNEL, 'the kernel'))
  } finally {
    plain.destroy()
  }
}

/** Bytes of a block of lz4's older form (8 MiB and what they may grow by): what claims more is no block. */
const LZ4_BLOCK = 8_421_520

/** Where blocks end in lz4's older form, which says no more than how long each is. */
function endOfLz4(bytes: Buffer): number {
  let at = 4
  while (at + 4 <= bytes.length) {
    const size = bytes.readUInt32LE(at)
    if (size === 0 || size > LZ4_BLOCK || at + 4 + size > bytes.length) break
    at += 4 + size
  }
  return at
}
