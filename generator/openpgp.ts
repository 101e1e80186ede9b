/*
 * OpenPGP public keys (RFC 9580): splits a file of keys, so that a key can be taken out of it by its fingerprint. A key
 * is a primary key with all that follows it up to the next one: names, subkeys and signatures. Signatures are not
 * verified here; gpgv does that whenever it uses a key.
 */
import { createHash } from 'node:crypto'
import { GeneratorError } from './error.ts'

/** A public key in a file. */
export interface OpenPgpKey {
  /** of the primary key, in capitals: 40 digits for version 4, 64 for version 6 */
  fingerprint: string
  /** when the key last signed itself, in seconds since 1970: of two copies, the later one is newer. 0 if never */
  signedAt: number
  /** binary */
  bytes: Buffer
}

interface Packet {
  tag: number
  body: Buffer
  /** of the whole packet in the file */
  start: number
  end: number
}

const SIGNATURE = 2
const SECRET_KEY = 5
const PUBLIC_KEY = 6

/** Reads the keys in a file, binary or armoured. Keys of version 3 are left out. Errors: `invalid_key`. */
export function readOpenPgpKeys(file: Uint8Array): OpenPgpKey[] {
  const bytes = dearmour(Buffer.from(file.buffer, file.byteOffset, file.byteLength))
  const packets = packetsOf(bytes)
  if (packets.some(({ tag }) => tag === SECRET_KEY))
    throw new GeneratorError('invalid_key', 'the file has a secret key')
  const starts = packets.flatMap(({ tag }, i) => (tag === PUBLIC_KEY ? [i] : []))
  if (starts.length === 0)
    throw new GeneratorError('invalid_key', 'the file has no OpenPGP public key')
  return starts.flatMap((start, i) => {
    const own = packets.slice(start, starts[i + 1])
    const fingerprint = fingerprintOf(own[0]!.body)
    if (fingerprint === undefined) return []
    const times = own.flatMap(({ tag, body }) =>
      tag === SIGNATURE ? timeOfSelfSignature(body, fingerprint) : [],
    )
    return [
      {
        fingerprint,
        signedAt: Math.max(0, ...times),
        bytes: bytes.subarray(own[0]!.start, own.at(-1)!.end),
      },
    ]
  })
}

const ARMOUR = '-----BEGIN PGP PUBLIC KEY BLOCK-----'

/**
 * Decodes blocks of ASCII armour (RFC 9580, 6.2); other bytes are returned unchanged. Line by line, since an expression
 * for a block takes quadratic time on a long run of blanks.
 */
export function dearmour(bytes: Buffer): Buffer {
  const found: Buffer[] = []
  let part: 'outside' | 'headers' | 'body' = 'outside'
  let body: string[] = []
  for (const line of bytes.toString('latin1').split('\n')) {
    const text = line.trim()
    if (text === ARMOUR) {
      part = 'headers'
      body = []
    } else if (part === 'headers') {
      if (text === '') part = 'body'
    } else if (part === 'body' && text.startsWith('-----END')) {
      found.push(Buffer.from(body.join(''), 'base64'))
      part = 'outside'
    } else if (part === 'body' && !/^=[A-Za-z0-9+/]{4}$/.test(text)) {
      body.push(text)
    }
  }
  return found.length === 0 ? bytes : Buffer.concat(found)
}

/** Splits bytes into packets (RFC 9580, 4.2). Errors: `invalid_key`. */
function packetsOf(bytes: Buffer): Packet[] {
  const packets: Packet[] = []
  let start = 0
  while (start < bytes.length) {
    const header = headerAt(bytes, start)
    const end = header === undefined ? Number.NaN : header.begin + header.length
    if (header === undefined || !(end <= bytes.length))
      throw new GeneratorError('invalid_key', 'the file is no OpenPGP key')
    packets.push({ tag: header.tag, body: bytes.subarray(header.begin, end), start, end })
    start = end
  }
  return packets
}

/** The tag of the packet at an offset, and where its body begins; undefined where there is no packet of known length. */
function headerAt(
  bytes: Buffer,
  at: number,
): { tag: number; begin: number; length: number } | undefined {
  const [first = 0, second = 0, third = 0] = bytes.subarray(at, at + 3)
  if (!(first & 0x80)) return undefined
  const number = (offset: number, size: number) =>
    offset + size <= bytes.length ? bytes.readUIntBE(offset, size) : Number.NaN
  if (!(first & 0x40)) {
    const size = [1, 2, 4][first & 3]
    if (size === undefined) return undefined // to the end of the file
    return { tag: (first >> 2) & 15, begin: at + 1 + size, length: number(at + 1, size) }
  }
  const tag = first & 0x3f
  if (second < 192) return { tag, begin: at + 2, length: second }
  if (second < 224) return { tag, begin: at + 3, length: ((second - 192) << 8) + third + 192 }
  return second === 255 ? { tag, begin: at + 6, length: number(at + 2, 4) } : undefined
}

/** The fingerprint of a key's packet (RFC 9580, 5.5.4); undefined for other versions than 4 and 6. */
function fingerprintOf(body: Buffer): string | undefined {
  const digest = (algorithm: string, prefix: Buffer) =>
    createHash(algorithm).update(prefix).update(body).digest('hex').toUpperCase()
  const prefix = Buffer.alloc(5)
  if (body[0] === 4 && body.length < 65536) {
    prefix.writeUInt8(0x99)
    prefix.writeUInt16BE(body.length, 1)
    return digest('sha1', prefix.subarray(0, 3))
  }
  if (body[0] !== 6) return undefined
  prefix.writeUInt8(0x9b)
  prefix.writeUInt32BE(body.length, 1)
  return digest('sha256', prefix)
}

/** Types of subpackets of signatures (RFC 9580, 5.2.3.7). */
const CREATION_TIME = 2
const ISSUER_KEY_ID = 16
const ISSUER_FINGERPRINT = 33

/** Seconds that this machine's clock may be slow. */
const MAX_CLOCK_ERROR = 86_400

/**
 * The time of a signature of version 4, in seconds, if it says that the key itself made it, and not in the future: who
 * can invent a signature can invent its time.
 */
function timeOfSelfSignature(body: Buffer, fingerprint: string): number[] {
  if (body[0] !== 4 || body.length < 6) return []
  const hashedEnd = 6 + body.readUInt16BE(4)
  if (hashedEnd + 2 > body.length) return []
  const unhashedEnd = hashedEnd + 2 + body.readUInt16BE(hashedEnd)
  const hashed = subpacketsOf(body.subarray(6, hashedEnd))
  const unhashed = subpacketsOf(body.subarray(hashedEnd + 2, unhashedEnd))
  const isOwn = [...hashed, ...unhashed].some(
    ({ type, value }) =>
      (type === ISSUER_KEY_ID && fingerprint.endsWith(value.toString('hex').toUpperCase())) ||
      (type === ISSUER_FINGERPRINT &&
        value.subarray(1).toString('hex').toUpperCase() === fingerprint),
  )
  const time = hashed.find(({ type, value }) => type === CREATION_TIME && value.length === 4)
  const seconds = time?.value.readUInt32BE() ?? 0
  return isOwn && seconds <= Date.now() / 1000 + MAX_CLOCK_ERROR ? [seconds] : []
}

/** Splits an area of a signature into its subpackets, up to the first that is malformed. */
function subpacketsOf(area: Buffer): { type: number; value: Buffer }[] {
  const found: { type: number; value: Buffer }[] = []
  let at = 0
  while (at < area.length) {
    const [first = 0, second = 0] = area.subarray(at, at + 2)
    const size = first < 192 ? 1 : first < 255 ? 2 : 5
    if (at + size > area.length) break
    const length =
      [first, ((first - 192) << 8) + second + 192][size - 1] ?? area.readUInt32BE(at + 1)
    if (length === 0 || at + size + length > area.length) break
    const body = area.subarray(at + size, at + size + length)
    found.push({ type: body[0]! & 0x7f, value: body.subarray(1) })
    at += size + length
  }
  return found
}
