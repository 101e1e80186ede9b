/*
 * .rpm files (rpm's docs/manual/format_v4.md and format_v6.md): lead, signature header, header, and the files as a
 * compressed cpio archive, the payload. The signature header vouches for the header, which vouches for the payload and
 * for each file in it; all of it is compared as it is read. Packages older than rpm 4.14 have no digest of the payload
 * in the header, but of the files.
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
  /**
   * The payload as it is stored. Whoever reads it to its end hears there whether it is what the header says:
   * `digest_mismatch`, `truncated`.
   */
  payload: AsyncIterable<Buffer>
  /**
   * The files in a payload, in their order; `limit` is that of all they unpack to, in bytes. Errors:
   * `invalid_package`, `unsupported_package`, `too_large`.
   */
  files(payload: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<ArchiveEntry>
  /** one of the keys signed the header, and that has digests of what follows */
  signed: boolean
}

export interface RpmOptions {
  /** paths of OpenPGP keys, of which one must have signed the header; without them no signature is looked at */
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

/** Digests of the header, by node:crypto's names. */
const HEADER_DIGESTS = [
  ['sha3-256', SIGNATURE.sha3],
  ['sha256', SIGNATURE.sha256],
  ['sha1', SIGNATURE.sha1],
] as const

/** OpenPGP's numbers of hash algorithms (RFC 9580, 9.5), by node:crypto's names. */
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
/** `RPMFILE_GHOST`: in the list, not in the payload */
const GHOST = 1 << 6

/**
 * Reads a package as far as its payload. Errors: `invalid_package`, `truncated`, `too_large`, `digest_mismatch` where
 * the header is not what the package says, `invalid_signature`, `expired_signature` and `no_keyring` where `keys` are given.
 */
export async function openRpm(
  source: AsyncIterable<Uint8Array>,
  { keys, signal }: RpmOptions = {},
): Promise<Rpm> {
  const bytes = new ByteReader(source, () => {
    return new GeneratorError('truncated', 'the package ends in the middle of its header')
  })
  if ((await bytes.take(LEAD)).readUInt32BE() !== LEAD_MAGIC)
    throw new GeneratorError('invalid_package', 'not an rpm package')
  const signature = new RpmHeader(await takeHeader(bytes))
  await bytes.skipTo(Math.ceil(bytes.position / 8) * 8)
  const raw = await takeHeader(bytes)
  compareHeader(raw, signature)
  // packages are older than the indexes that list them: what was signed in time stays signed, as rpm sees it
  const trust = keys && { keyrings: keys, endOfLife: true, signal }
  if (trust) await verifyDetached(signaturesOf(signature), raw, trust)
  const header = new RpmHeader(raw)
  const vouches = [HEADER.payloadDigest, HEADER.fileDigests].some(
    (tag) => header.strings(tag).length > 0,
  )
  return {
    payload: comparedPayload(bytes.remaining(), raw, header, signature),
    files: (payload, limit) => readFiles(payload, header, limit),
    signed: trust !== undefined && vouches,
  }
}

async function takeHeader(bytes: ByteReader): Promise<Buffer> {
  const intro = await bytes.take(INTRO)
  return Buffer.concat([intro, await bytes.take(sizeAfter(intro))])
}

function compareHeader(raw: Buffer, signature: RpmHeader): void {
  for (const [algorithm, tag] of HEADER_DIGESTS) {
    const [wanted] = signature.strings(tag)
    if (wanted !== undefined && createHash(algorithm).update(raw).digest('hex') !== wanted)
      throw new GeneratorError('digest_mismatch', `the package's header has another ${algorithm}`)
  }
}

/** The signatures that cover the header alone, one after the other. Errors: `invalid_signature` where there is none. */
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

/** The payload, and an error at its end where it is not what the headers say. */
async function* comparedPayload(
  payload: AsyncIterable<Buffer>,
  raw: Buffer,
  header: RpmHeader,
  signature: RpmHeader,
): AsyncGenerator<Buffer> {
  const digest = payloadDigest(raw, header, signature)
  const wanted = [SIGNATURE.longSize, SIGNATURE.size].flatMap((tag) => signature.numbers(tag))[0]
  let size = raw.length
  for await (const piece of payload) {
    size += piece.length
    digest?.hash.update(piece)
    yield piece
  }
  if (wanted !== undefined && size < wanted)
    throw new GeneratorError('truncated', `header and payload have ${size} of ${wanted} bytes`)
  const same = digest === undefined || digest.hash.digest('hex') === digest.hex
  if (!same || (wanted !== undefined && size > wanted))
    throw new GeneratorError(
      'digest_mismatch',
      "the payload is not the one of the package's header",
    )
}

/** What the payload's bytes are hashed with, and what must come out: the old digest covers the header, too. */
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
  throw new GeneratorError('unsupported_package', `the package has digests of algorithm ${number}`)
}

async function* readFiles(
  payload: AsyncIterable<Uint8Array>,
  header: RpmHeader,
  limit: number,
): AsyncGenerator<ArchiveEntry> {
  const list = fileList(header)
  const byName = new Map(list.map((file) => [file.name, file]))
  const bytes = new ByteReader(payload, () => new GeneratorError('truncated', 'no payload'))
  const compression = compressionOf(header) ?? compressionIn(await bytes.peek(MAGIC_SIZE))
  const plain = decompress(bytes.remaining(), compression)
  try {
    for await (const entry of readCpio(capped(plain, limit, 'the package'), (i) => list[i])) {
      const name = entry.name.replace(/^\.?\//, '/')
      const listed = byName.get(name)
      if (!listed)
        throw new GeneratorError('invalid_package', `the payload has ${name}, the header has not`)
      yield { ...entry, ...(listed.digest && { digest: listed.digest }) }
    }
  } finally {
    plain.destroy()
  }
}

/** The payload's compression; undefined where the package does not say: gzip's, or none (rpm's lib/psm.c). */
function compressionOf(header: RpmHeader): Compression | undefined {
  const [name] = header.strings(HEADER.payloadCompressor)
  if (name === undefined) return undefined
  const compression = COMPRESSORS[name]
  if (compression) return compression
  throw new GeneratorError('unsupported_package', `no compression we read: ${name}`)
}

type RpmFile = ListedFile & { digest?: Digest }

/** The files that the header lists, by the index that the large-file form of cpio names them with. */
function fileList(header: RpmHeader): RpmFile[] {
  const directories = header.strings(HEADER.directories)
  const numbers = (tag: number) => header.numbers(tag)
  const [indexes, modes] = [numbers(HEADER.directoryIndexes), numbers(HEADER.fileModes)]
  const [long, short] = [numbers(HEADER.longFileSizes), numbers(HEADER.fileSizes)]
  const algorithm = algorithmOf(header, HEADER.fileDigestAlgorithm)
  const digests = header.strings(HEADER.fileDigests)
  const carried = carriers(header, modes)
  return header.strings(HEADER.baseNames).map((name, i) => {
    const hex = digests[i]
    const hasBytes = carried.has(i) || (modes[i]! & S_IFMT) === S_IFLNK
    return {
      name: `${directories[indexes[i] ?? -1] ?? ''}${name}`,
      regular: carried.has(i),
      size: hasBytes ? (long[i] ?? short[i] ?? 0) : 0,
      ...(hex && { digest: { algorithm, hex } }),
    }
  })
}

/** The regular files that have their bytes in the payload: of hard links the last one (rpm's lib/rpmfi.c). */
function carriers(header: RpmHeader, modes: readonly number[]): Set<number> {
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
