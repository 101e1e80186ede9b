/*
 * Names to keys and back. A kernel's name comes from outside and may have any character (`6.12.107+deb13-amd64`,
 * `2:5.4~rc1`). A key segment keeps `A-Za-z0-9._+~-` and percent-encodes the rest, so it can be a file name, an S3 key
 * segment and a URL segment. Only this file knows the store's layout.
 */
import { StoreError } from './error.ts'
import type { Kernel, KernelName } from './kernel.ts'
import type { BuildRecord } from './record.ts'

/** The prefix of damaged blobs and symbols that were set aside. */
export const QUARANTINE = 'quarantine/'

const MAX_SEGMENT = 255
const MAX_KEY = 1024
const ENCODED = /[^A-Za-z0-9._+~-]/gu

const percent = (text: string): string =>
  Array.from(
    Buffer.from(text, 'utf8'),
    (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
  ).join('')

/**
 * Encodes a name as one segment of a key or URL. Errors: `invalid_key` if the name is empty, has a lone surrogate, is
 * `.` or `..` (URL parsers remove these from a path even if percent-encoded), or has more than 255 bytes when encoded.
 */
export function encodeName(name: string): string {
  if (/^\.{0,2}$/.test(name) || !name.isWellFormed())
    throw new StoreError('invalid_key', `invalid name: ${JSON.stringify(name.slice(0, 80))}`)
  const segment = name.replace(ENCODED, percent).replace(/^\./, '%2E')
  if (segment.length > MAX_SEGMENT) {
    throw new StoreError(
      'invalid_key',
      `a name has more than ${MAX_SEGMENT} bytes: ${segment.slice(0, 40)}…`,
    )
  }
  return segment
}

/** The inverse of `encodeName`. Errors: `invalid_key` for a segment that it cannot have made. */
export function decodeName(segment: string): string {
  const name = decoded(segment)
  if (name === undefined) {
    throw new StoreError(
      'invalid_key',
      `invalid key segment: ${JSON.stringify(segment.slice(0, 80))}`,
    )
  }
  return name
}

/** Tells whether `encodeName` accepts a name. */
export function isName(name: string): boolean {
  try {
    encodeName(name)
    return true
  } catch {
    return false
  }
}

/** Tells whether a key is short enough and `encodeName` could have made each of its segments. */
export function isKey(key: string): boolean {
  return key.length <= MAX_KEY && key.split('/').every((segment) => decoded(segment) !== undefined)
}

/** The keys that objects may have, by their first segment and the number of segments below it. */
const OBJECT_KEY =
  /^(?:partial\/)?(?:archive\/manifest\.json[^/]*|archive(?:\/[^/]+){4}|kernels(?:\/[^/]+){5}|(?:blobs|sources|symbols)(?:\/[^/]+){2}|(?:catalog|packs|quarantine)\/[^/]+)$/

/** Tells whether a key is that of an object, not of a directory on the way to one. */
export const isObjectKey = (key: string): boolean => OBJECT_KEY.test(key)

/** Throws for a key that `isKey` rejects. Errors: `invalid_key`. */
export function checkKey(key: string): void {
  if (!isKey(key))
    throw new StoreError('invalid_key', `invalid key: ${JSON.stringify(key.slice(0, 80))}`)
}

function decoded(segment: string): string | undefined {
  try {
    const name = decodeURIComponent(segment)
    return encodeName(name) === segment ? name : undefined
  } catch {
    return undefined
  }
}

/**
 * The build segment of a record's key: the package's version, which is known before the package is read. So a failure
 * and a later success share one key. A record without package version uses the build-id, and an import without either
 * the BTF's digest. Errors: `invalid_record`.
 */
export function buildOf(record: Pick<BuildRecord, 'kernel' | 'package' | 'btf'>): string {
  if (record.package.version !== '') return record.package.version
  if (record.kernel.buildId) return record.kernel.buildId
  if (record.btf) return `btf-${record.btf.sha256.slice(0, 16)}`
  throw new StoreError(
    'invalid_record',
    'the record has no package version, no build-id and no BTF',
  )
}

/**
 * The prefix of the keys of a kernel's records: `kernels/<distro>/<version>/<arch>/<release>/`. Errors: `invalid_key`.
 */
export function kernelPrefix(kernel: KernelName): string {
  const names = [kernel.distro, kernel.version, kernel.arch, kernel.release]
  return `kernels/${names.map(encodeName).join('/')}/`
}

/** The `kernelPrefix` that a record's key starts with. */
export const prefixOfKey = (key: string): string => key.slice(0, key.lastIndexOf('/') + 1)

/** The key of a record: `kernels/<distro>/<version>/<arch>/<release>/<build>.json`. Errors: `invalid_key`. */
export function recordKey(kernel: Kernel, build: string): string {
  return `${kernelPrefix(kernel)}${encodeName(`${build}.json`)}`
}

/** The key of a blob: `blobs/<aa>/<sha256>.btf.zst`. Errors: `invalid_key`. */
export const blobKey = (sha256: string): string => digestKey('blobs', sha256, 'btf.zst')

/** The key of a kernel's function names: `symbols/<aa>/<sha256>.zst`. Errors: `invalid_key`. */
export const symbolsKey = (sha256: string): string => digestKey('symbols', sha256, 'zst')

/** The prefixes of objects that are addressed by the SHA-256 of their raw bytes, with the functions that make their keys. */
export const CONTENT_KEYS = { 'blobs/': blobKey, 'symbols/': symbolsKey } as const

function digestKey(folder: string, sha256: string, suffix: string): string {
  if (!/^[0-9a-f]{64}$/.test(sha256)) throw invalidDigest(sha256)
  return `${folder}/${sha256.slice(0, 2)}/${sha256}.${suffix}`
}

const invalidDigest = (text: string): StoreError =>
  new StoreError(
    'invalid_key',
    `invalid SHA-256 ${JSON.stringify(text.slice(0, 80))}: expected 64 lower-case hex digits`,
  )

/** The key under which a damaged blob, or symbols, are kept until gc removes them: `quarantine/<sha256>.btf.zst`. */
export const quarantineKey = (key: string): string => `${QUARANTINE}${key.split('/').at(-1)}`

/** The inverse of `blobKey` and `symbolsKey`; undefined for a key that neither can have made. */
export function shaOfKey(key: string): string | undefined {
  const [, sha256] = /\/([0-9a-f]{64})\./.exec(key) ?? []
  if (sha256 === undefined) return undefined
  return [blobKey(sha256), symbolsKey(sha256)].includes(key) ? sha256 : undefined
}

/** The prefix of packs. */
export const PACKS = 'packs/'
const PACK_SUFFIX = '.btfpack'

/** The key of a pack: `packs/<sha256 of the file>.btfpack`. Errors: `invalid_key`. */
export function packKey(digest: string): string {
  if (!/^[0-9a-f]{64}$/.test(digest)) throw invalidDigest(digest)
  return `${PACKS}${digest}${PACK_SUFFIX}`
}

/** The inverse of `packKey`; undefined for a key that it cannot have made. */
export function digestOfPack(key: string): string | undefined {
  const digest = key.slice(PACKS.length, -PACK_SUFFIX.length)
  return /^[0-9a-f]{64}$/.test(digest) && packKey(digest) === key ? digest : undefined
}

/** The key of the last discovery of an index: `sources/<id>/<suite>.json`. Errors: `invalid_key`. */
export function sourceResultKey(source: string, suite: string): string {
  return `sources/${encodeName(source)}/${encodeName(`${suite}.json`)}`
}
