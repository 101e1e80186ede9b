/*
 * Detached signatures in minisign's format: an Ed25519 signature of the content's BLAKE2b-512, and a second one of the
 * first and a comment (https://jedisct1.github.io/minisign/, "Signature format"). The secret key is PKCS #8, which
 * other tools read too.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto'
import { StoreError } from './error.ts'

/** In minisign's format `Ed` stands for a key, `ED` for a signature of a hash. */
const KEY_ALGORITHM = Buffer.from('Ed')
const SIGNATURE_ALGORITHM = Buffer.from('ED')
/** Sizes in bytes. */
const KEY_ID = 8
const PUBLIC_KEY = 32
const SIGNATURE = 64
/** The DER bytes before the 32 bytes of an Ed25519 public key (RFC 8410). */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')
/** The largest key or signature that is read, in characters. */
const MAX_TEXT = 4096

const UNTRUSTED = 'untrusted comment: '
const TRUSTED = 'trusted comment: '

export interface KeyPair {
  /** text of a minisign public key file */
  publicKey: string
  /** PEM of PKCS #8 */
  secretKey: string
}

/** Makes a new key pair. */
export function generateKeys(): KeyPair {
  const { privateKey } = generateKeyPairSync('ed25519')
  const secretKey = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  return { publicKey: publicKeyOf(secretKey), secretKey }
}

/** The public key of a secret key, as the text of a minisign public key file. Errors: `invalid_key`. */
export function publicKeyOf(secretKey: string): string {
  const raw = rawPublicKey(readSecretKey(secretKey))
  const id = idOf(raw)
  const name = Buffer.from(id).reverse().toString('hex').toUpperCase()
  const packed = Buffer.concat([KEY_ALGORITHM, id, raw]).toString('base64')
  return `${UNTRUSTED}minisign public key ${name}\n${packed}\n`
}

/**
 * Signs content and a comment, whose control characters become spaces. Returns a minisign signature file. Errors:
 * `invalid_key`.
 */
export function signContent(content: Uint8Array, secretKey: string, comment: string): string {
  const key = readSecretKey(secretKey)
  const signature = sign(null, digest(content), key)
  const packed = Buffer.concat([SIGNATURE_ALGORITHM, idOf(rawPublicKey(key)), signature])
  const line = comment.replaceAll(/\p{Cc}/gu, ' ')
  const global = sign(null, Buffer.concat([signature, Buffer.from(line)]), key)
  return [
    `${UNTRUSTED}signature from a btfmill secret key`,
    packed.toString('base64'),
    `${TRUSTED}${line}`,
    global.toString('base64'),
    '',
  ].join('\n')
}

/** Verifies a signature of content and returns its signed comment. Errors: `invalid_key`, `invalid_signature`. */
export function verifyContent(content: Uint8Array, signature: string, publicKey: string): string {
  const { key, signed, comment } = readSignature(signature, publicKey)
  if (!verify(null, digest(content), key, signed))
    throw invalidSignature('the content differs from the signed content')
  return comment
}

/** Verifies the comment of a signature, whatever it signs. Errors: `invalid_key`, `invalid_signature`. */
export function verifyComment(signature: string, publicKey: string): string {
  return readSignature(signature, publicKey).comment
}

interface Signature {
  key: KeyObject
  /** the signature of the content */
  signed: Buffer
  /** verified */
  comment: string
}

function readSignature(signature: string, publicKey: string): Signature {
  const key = readPublicKey(publicKey)
  const [, packed = '', comment = '', global = ''] = lines(signature)
  const bytes = Buffer.from(packed, 'base64')
  const id = bytes.subarray(2, 2 + KEY_ID)
  const signed = bytes.subarray(2 + KEY_ID)
  if (!bytes.subarray(0, 2).equals(SIGNATURE_ALGORITHM) || signed.length !== SIGNATURE)
    throw invalidSignature('it is not in the format of minisign')
  if (!comment.startsWith(TRUSTED)) throw invalidSignature('it has no trusted comment')
  if (!id.equals(key.id)) throw invalidSignature('it is by another key')
  const line = comment.slice(TRUSTED.length)
  const both = Buffer.concat([signed, Buffer.from(line)])
  if (!verify(null, both, key.key, Buffer.from(global, 'base64')))
    throw invalidSignature('the comment differs from the signed comment')
  return { key: key.key, signed, comment: line }
}

const invalidSignature = (reason: string) =>
  new StoreError('invalid_signature', `invalid signature: ${reason}`)

function readSecretKey(pem: string): KeyObject {
  try {
    const key = createPrivateKey(pem)
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch {} // its message might quote the key
  throw new StoreError(
    'invalid_key',
    'invalid secret key: expected an Ed25519 key as PEM of PKCS #8',
  )
}

/** Reads a public key from the file's text, or from its second line alone, as `minisign -P` does. */
function readPublicKey(text: string): { key: KeyObject; id: Buffer } {
  const [first = '', second = ''] = lines(text)
  const bytes = Buffer.from(first.startsWith(UNTRUSTED) ? second : first, 'base64')
  const raw = bytes.subarray(2 + KEY_ID)
  if (!bytes.subarray(0, 2).equals(KEY_ALGORITHM) || raw.length !== PUBLIC_KEY)
    throw new StoreError('invalid_key', 'invalid public key: expected a minisign public key')
  const der = Buffer.concat([SPKI, raw])
  const key = createPublicKey({ key: der, format: 'der', type: 'spki' })
  return { key, id: bytes.subarray(2, 2 + KEY_ID) }
}

const lines = (text: string): string[] => text.slice(0, MAX_TEXT).split(/\r?\n/)

function rawPublicKey(secretKey: KeyObject): Buffer {
  const der = createPublicKey(secretKey).export({ type: 'spki', format: 'der' })
  return der.subarray(SPKI.length)
}

/**
 * The key id. minisign's are random; ours is derived from the key, so that it needs no place in the secret key file.
 */
const idOf = (publicKey: Buffer): Buffer =>
  createHash('sha256').update(publicKey).digest().subarray(0, KEY_ID)

const digest = (content: Uint8Array): Buffer => createHash('blake2b512').update(content).digest()
