/*
 * A reader for rpm files (rpm's docs/manual/format_v4.md and format_v6.md): lead, signature header, header, and the
 * payload, a compressed cpio archive of the files. The signature header has digests and signatures of the header, which
 * has digests of the payload and of each file. All of them are checked while reading. Packages built before rpm 4.14
 * have no digest of the payload in the header, only digests of the files.
 */
import { createHash, type Hash } from 'node:crypto'
import { GeneratorError } from '../error.ts'
import { verifyDetached } from '../signature.ts'
import type { ArchiveEntry, Digest } from './archive-entry.ts'
import { ByteReader } from './bytes.ts'
import { type ListedFile, readCpio } from './cpio.ts'
import { type Compression, capped, compressionIn, decompress, MAGIC_SIZE } from './decompress.ts'
import { INTRO, RpmHeader, sizeAfter } from './rpm-header.ts'

export interface Rpm {
  /** The compressed payload. Errors at its end: `digest_mismatch` and `truncated` if it does not match the header. */
  payload: AsyncIterable<Buffer>
  /**
   * Reads the files in a payload in order; `limit` is the maximum of unpacked bytes. Errors: `invalid_package`,
   * `unsupported_package`, `too_large`.
   */
  files(payload: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<ArchiveEntry>
  /** one of the keys signed the header, and the header has digests of the payload or its files */
  signed: boolean
}

export interface RpmOptions {
  /** paths of OpenPGP keys; one of them must have signed the header (default: no signature is checked) */
  keys?: readonly string[] | undefined
  signal?: AbortSignal | undefined
}

const LEAD = 96
const LEAD_MAGIC = 0xedabeedb

/** Tags of the signature header (include/rpm/rpmtag.h). */
const SIGNATURE = {
  dsa: 267,
  rsa: 268,
  sha1: 269,
  longSize: 270,
  sha256: 273,
  openpgp: 278,
  sha3: 279,
  size: 1000,
  md5: 1004,
} as const

/** Tags of the header. */
const HEADER = {
  fileSizes: 1028,
  fileModes: 1030,
  fileDigests: 1035,
  fileFlags: 1037,
  fileDevices: 1095,
  fileInodes: 1096,
  directoryIndexes: 1116,
  baseNames: 1117,
  directories: 1118,
  payloadCompressor: 1125,
  longFileSizes: 5008,
  fileDigestAlgorithm: 5011,
  payloadDigest: 5092,
  payloadDigestAlgorithm: 5093,
} as const

/** Tags with digests of the header, by node:crypto's names. */
const HEADER_DIGESTS = [
  ['sha3-256', SIGNATURE.sha3],
  ['sha256', SIGNATURE.sha256],
  ['sha1', SIGNATURE.sha1],
] as const

/** node:crypto's names of hash algorithms by OpenPGP's numbers (RFC 9580, 9.5). */
const ALGORITHMS: Readonly<Record<number, string>> = {
  1: 'md5',
  2: 'sha1',
  8: 'sha256',
  9: 'sha384',
  10: 'sha512',
  11: 'sha224',
  12: 'sha3-256',
  14: 'sha3-512',
}
const MD5 = 1

const COMPRESSORS: Readonly<Record<string, Compression>> = {
  gzip: 'gz',
  bzip2: 'bz2',
  xz: 'xz',
  lzma: 'lzma',
  zstd: 'zst',
}

const S_IFMT = 0o170000
const S_IFREG = 0o100000
const S_IFLNK = 0o120000
/** `RPMFILE_GHOST`: the file is in the list, not in the payload */
const GHOST = 1 << 6

/**
 * Reads a package up to its payload. Errors: `invalid_package`, `truncated`, `too_large`, `digest_mismatch` if the
 * header does not match its digest; with `keys` also `invalid_signature`, `expired_signature`, `no_keyring`.
 */
export async function openRpm(
  source: AsyncIterable<Uint8Array>,
  { keys, signal }: RpmOptions = {},
): Promise<Rpm> {
  const bytes = new ByteReader(source, () => {
    return new GeneratorError('truncated', 'the package ends in the middle of its header')
  })
  if ((await bytes.take(LEAD)).readUInt32BE() !== LEAD_MAGIC)
    throw new GeneratorError('invalid_package', 'the file is not an rpm package')
  const signature = new RpmHeader(await takeHeader(bytes))
  await bytes.skipTo(Math.ceil(bytes.position / 8) * 8)
  const raw = await takeHeader(bytes)
  checkHeader(raw, signature)
  // Packages are old: like rpm, accept a signature by a key that has expired since.
  const trust = keys && { keyrings: keys, endOfLife: true, signal }
  if (trust) await verifyDetached(signaturesOf(signature), raw, trust)
  const header = new RpmHeader(raw)
  const hasDigests = [HEADER.payloadDigest, HEADER.fileDigests].some(
    (tag) => header.strings(tag).length > 0,
  )
  return {
    payload: checkedPayload(bytes.remaining(), raw, header, signature),
    files: (payload, limit) => readFiles(payload, header, limit),
    signed: trust !== undefined && hasDigests,
  }
}

async function takeHeader(bytes: ByteReader): Promise<Buffer> {
  const intro = await bytes.take(INTRO)
  return Buffer.concat([intro, await bytes.take(sizeAfter(intro))])
}

function checkHeader(raw: Buffer, signature: RpmHeader): void {
  for (const [algorithm, tag] of HEADER_DIGESTS) {
    const [expected] = signature.strings(tag)
    if (expected === undefined) continue
    const digest = createHash(algorithm).update(raw).digest('hex')
    if (digest !== expected) {
      const message = `the package's header has ${algorithm} ${digest}, expected ${expected}`
      throw new GeneratorError('digest_mismatch', message)
    }
  }
}

/** The concatenated signatures of the header. Errors: `invalid_signature` if there is none. */
function signaturesOf(signature: RpmHeader): Buffer {
  const found = [
    ...signature.strings(SIGNATURE.openpgp).map((text) => Buffer.from(text, 'base64')),
    signature.bytes(SIGNATURE.rsa) ?? Buffer.alloc(0),
    signature.bytes(SIGNATURE.dsa) ?? Buffer.alloc(0),
  ]
  const all = Buffer.concat(found)
  if (all.length === 0)
    throw new GeneratorError('invalid_signature', "the package's header is not signed")
  return all
}

/** Passes the payload on, and fails at its end if it does not match the headers. */
async function* checkedPayload(
  payload: AsyncIterable<Buffer>,
  raw: Buffer,
  header: RpmHeader,
  signature: RpmHeader,
): AsyncGenerator<Buffer> {
  const digest = payloadDigest(raw, header, signature)
  const expected = [SIGNATURE.longSize, SIGNATURE.size].flatMap((tag) => signature.numbers(tag))[0]
  let size = raw.length
  for await (const piece of payload) {
    size += piece.length
    digest?.hash.update(piece)
    yield piece
  }
  if (expected !== undefined && size < expected)
    throw new GeneratorError('truncated', `header and payload have ${size} of ${expected} bytes`)
  const isSame = digest === undefined || digest.hash.digest('hex') === digest.hex
  if (!isSame || (expected !== undefined && size > expected))
    throw new GeneratorError('digest_mismatch', "the payload does not match the package's header")
}

/** The hash of the payload to update, and its expected digest. The hash of old packages covers the header, too. */
function payloadDigest(
  raw: Buffer,
  header: RpmHeader,
  signature: RpmHeader,
): { hash: Hash; hex: string } | undefined {
  const [hex] = header.strings(HEADER.payloadDigest)
  if (hex !== undefined)
    return { hash: createHash(algorithmOf(header, HEADER.payloadDigestAlgorithm)), hex }
  const md5 = signature.bytes(SIGNATURE.md5)
  return md5 && { hash: createHash('md5').update(raw), hex: md5.toString('hex') }
}

/** The algorithm that a tag names. Errors: `unsupported_package`. */
function algorithmOf(header: RpmHeader, tag: number): string {
  const [number = MD5] = header.numbers(tag)
  const algorithm = ALGORITHMS[number]
  if (algorithm) return algorithm
  throw new GeneratorError(
    'unsupported_package',
    `the package has digests of the unsupported algorithm ${number}`,
  )
}

async function* readFiles(
  payload: AsyncIterable<Uint8Array>,
  header: RpmHeader,
  limit: number,
): AsyncGenerator<ArchiveEntry> {
  const list = fileList(header)
  const byName = new Map(list.map((file) => [file.name, file]))
  const bytes = new ByteReader(
    payload,
    () => new GeneratorError('truncated', 'the package has no payload'),
  )
  const compression = compressionOf(header) ?? compressionIn(await bytes.peek(MAGIC_SIZE))
  const plain = decompress(bytes.remaining(), compression)
  try {
    for await (const entry of readCpio(capped(plain, limit, 'the package'), (i) => list[i])) {
      const name = entry.name.replace(/^\.?\//, '/')
      const listed = byName.get(name)
      if (!listed)
        throw new GeneratorError(
          'invalid_package',
          `the payload has ${name}, which the header does not list`,
        )
      yield { ...entry, ...(listed.digest && { digest: listed.digest }) }
    }
  } finally {
    plain.destroy()
  }
}

/** The compression of the payload; undefined if the package does not say: then gzip or none (rpm's lib/psm.c). */
function compressionOf(header: RpmHeader): Compression | undefined {
  const [name] = header.strings(HEADER.payloadCompressor)
  if (name === undefined) return undefined
  const compression = COMPRESSORS[name]
  if (compression) return compression
  throw new GeneratorError(
    'unsupported_package',
    `unsupported compression ${name}: expected one of ${Object.keys(COMPRESSORS).join(', ')}`,
  )
}

type RpmFile = ListedFile & { digest?: Digest }

/** The list of files in the header; the large-file form of cpio refers to it by index. */
function fileList(header: RpmHeader): RpmFile[] {
  const directories = header.strings(HEADER.directories)
  const numbers = (tag: number) => header.numbers(tag)
  const [indexes, modes] = [numbers(HEADER.directoryIndexes), numbers(HEADER.fileModes)]
  const [long, short] = [numbers(HEADER.longFileSizes), numbers(HEADER.fileSizes)]
  const algorithm = algorithmOf(header, HEADER.fileDigestAlgorithm)
  const digests = header.strings(HEADER.fileDigests)
  const withBytes = filesWithBytes(header, modes)
  return header.strings(HEADER.baseNames).map((name, i) => {
    const hex = digests[i]
    const hasBytes = withBytes.has(i) || (modes[i]! & S_IFMT) === S_IFLNK
    return {
      name: `${directories[indexes[i] ?? -1] ?? ''}${name}`,
      regular: withBytes.has(i),
      size: hasBytes ? (long[i] ?? short[i] ?? 0) : 0,
      ...(hex && { digest: { algorithm, hex } }),
    }
  })
}

/** Indexes of the regular files with bytes in the payload: of several hard links, the last one (rpm's lib/rpmfi.c). */
function filesWithBytes(header: RpmHeader, modes: readonly number[]): Set<number> {
  const [devices, inodes, flags] = [
    header.numbers(HEADER.fileDevices),
    header.numbers(HEADER.fileInodes),
    header.numbers(HEADER.fileFlags),
  ]
  const last = new Map<string, number>()
  modes.forEach((mode, i) => {
    if ((mode & S_IFMT) === S_IFREG && !((flags[i] ?? 0) & GHOST))
      last.set(`${devices[i]} ${inodes[i] ?? `of ${i}`}`, i)
  })
  return new Set(last.values())
}
