/*
 * Detached signatures as minisign makes and verifies them: Ed25519 over the BLAKE2b-512 of the content, and a second
 * one over the first and a comment (https://jedisct1.github.io/minisign/, "Signature format"). The secret key is kept
 * as PKCS #8, which other tools read too.
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

/** `Ed` is minisign's name of the key's algorithm, `ED` of a signature over a hash. */
const KEY_ALGORITHM = Buffer.from('Ed')
const SIGNATURE_ALGORITHM = Buffer.from('ED')
const KEY_ID = 8
const PUBLIC_KEY = 32
const SIGNATURE = 64
/** What stands before the 32 bytes of an Ed25519 key in DER (RFC 8410). */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')
const MAX_TEXT = 4096

const UNTRUSTED = 'untrusted comment: '
const TRUSTED = 'trusted comment: '

export interface KeyPair {
  /** the text of a minisign public key */
  publicKey: string
  /** PEM; whoever has it can sign */
  secretKey: string
}

/** A new key pair. */
export function generateKeys(): KeyPair {
  const { privateKey } = generateKeyPairSync('ed25519')
  const secretKey = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  return { publicKey: publicKeyOf(secretKey), secretKey }
}

/** The public half of a secret key, as minisign writes it. Errors: `invalid_key`. */
export function publicKeyOf(secretKey: string): string {
  const raw = rawPublicKey(readSecretKey(secretKey))
  const id = idOf(raw)
  const name = Buffer.from(id).reverse().toString('hex').toUpperCase()
  const packed = Buffer.concat([KEY_ALGORITHM, id, raw]).toString('base64')
  return `${UNTRUSTED}minisign public key ${name}\n${packed}\n`
}

/** Signs content. `comment` is signed too, and is one line. Errors: `invalid_key`. */
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

/**
 * The comment of a signature that is right: of this content, by this key. Errors: `invalid_key` for a key that is
 * none, `invalid_signature`.
 */
export function verifyContent(content: Uint8Array, signature: string, publicKey: string): string {
  const key = readPublicKey(publicKey)
  const [, packed = '', comment = '', global = ''] = lines(signature)
  const bytes = Buffer.from(packed, 'base64')
  const id = bytes.subarray(2, 2 + KEY_ID)
  const signed = bytes.subarray(2 + KEY_ID)
  if (!bytes.subarray(0, 2).equals(SIGNATURE_ALGORITHM) || signed.length !== SIGNATURE)
    throw refused('it is not one of minisign')
  if (!comment.startsWith(TRUSTED)) throw refused('it has no trusted comment')
  if (!id.equals(key.id)) throw refused('it is by another key')
  if (!verify(null, digest(content), key.key, signed)) throw refused('the content is not as signed')
  const line = comment.slice(TRUSTED.length)
  const both = Buffer.concat([signed, Buffer.from(line)])
  if (!verify(null, both, key.key, Buffer.from(global, 'base64')))
    throw refused('its comment is not as signed')
  return line
}

const refused = (why: string) =>
  new StoreError('invalid_signature', `the signature is refused: ${why}`)

function readSecretKey(pem: string): KeyObject {
  try {
    const key = createPrivateKey(pem)
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch {} // whatever it says might quote the key
  throw new StoreError('invalid_key', 'that is no Ed25519 secret key in PKCS #8')
}

/** Takes the file's text, or its second line alone, as `minisign -P` does. */
function readPublicKey(text: string): { key: KeyObject; id: Buffer } {
  const [first = '', second = ''] = lines(text)
  const bytes = Buffer.from(first.startsWith(UNTRUSTED) ? second : first, 'base64')
  const raw = bytes.subarray(2 + KEY_ID)
  if (!bytes.subarray(0, 2).equals(KEY_ALGORITHM) || raw.length !== PUBLIC_KEY)
    throw new StoreError('invalid_key', 'that is no public key of minisign')
  const der = Buffer.concat([SPKI, raw])
  const key = createPublicKey({ key: der, format: 'der', type: 'spki' })
  return { key, id: bytes.subarray(2, 2 + KEY_ID) }
}

const lines = (text: string): string[] => text.slice(0, MAX_TEXT).split(/\r?\n/)

function rawPublicKey(secretKey: KeyObject): Buffer {
  const der = createPublicKey(secretKey).export({ type: 'spki', format: 'der' })
  return der.subarray(SPKI.length)
}

/** minisign draws key ids by lot; ours follow from the key, so that the secret key needs no more than itself. */
const idOf = (publicKey: Buffer): Buffer =>
  createHash('sha256').update(publicKey).digest().subarray(0, KEY_ID)

const digest = (content: Uint8Array): Buffer => createHash('blake2b512').update(content).digest()
