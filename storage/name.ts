/*
 * Names to keys and back. A kernel's name comes from outside and holds what it likes (`6.12.107+deb13-amd64`,
 * `2:5.4~rc1`); a key segment holds `A-Za-z0-9._+~-` as they are and everything else percent-encoded, so that it is
 * at once a file name, an S3 key segment and a URL segment. Only this file knows the store's layout.
 */
import { StoreError } from './error.ts'
import type { Kernel, KernelName } from './kernel.ts'
import type { BuildRecord } from './record.ts'

const MAX_SEGMENT = 255
const MAX_KEY = 1024
const LITERAL = /[^A-Za-z0-9._+~-]/gu

const percent = (text: string): string =>
  Array.from(
    Buffer.from(text, 'utf8'),
    (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
  ).join('')

/**
 * A name as one segment of a key or URL. Errors: `invalid_key` where it is empty, not Unicode, `.` or `..` (URL parsers
 * take those out of a path even when they are percent-encoded), or longer than 255 bytes as a segment.
 */
export function encodeName(name: string): string {
  if (/^\.{0,2}$/.test(name) || !name.isWellFormed())
    throw new StoreError('invalid_key', `not a name: ${JSON.stringify(name.slice(0, 80))}`)
  const segment = name.replace(LITERAL, percent).replace(/^\./, '%2E')
  if (segment.length > MAX_SEGMENT) {
    throw new StoreError(
      'invalid_key',
      `a name has more than ${MAX_SEGMENT} bytes: ${segment.slice(0, 40)}…`,
    )
  }
  return segment
}

/** The name of which `encodeName` made this segment. Errors: `invalid_key` for what it never makes. */
export function decodeName(segment: string): string {
  const name = decoded(segment)
  if (name === undefined) {
    throw new StoreError(
      'invalid_key',
      `not a segment of a key: ${JSON.stringify(segment.slice(0, 80))}`,
    )
  }
  return name
}

/** Whether `encodeName` takes it. */
export function isName(name: string): boolean {
  try {
    encodeName(name)
    return true
  } catch {
    return false
  }
}

/** Whether `encodeName` could have made each segment of it. */
export function isKey(key: string): boolean {
  return key.length <= MAX_KEY && key.split('/').every((segment) => decoded(segment) !== undefined)
}

/** Refuses what `isKey` does. Errors: `invalid_key`. */
export function checkKey(key: string): void {
  if (!isKey(key))
    throw new StoreError('invalid_key', `not a key: ${JSON.stringify(key.slice(0, 80))}`)
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
 * The build segment of a record's key: the package's version where there is one, since that is known before the
 * package is read, so that a failure and the success that follows share one key and nothing is orphaned. Else the
 * build-id, else (imports, which have neither) the BTF's digest.
 */
export function buildOf(record: Pick<BuildRecord, 'kernel' | 'package' | 'btf'>): string {
  if (record.package.version !== '') return record.package.version
  if (record.kernel.buildId) return record.kernel.buildId
  if (record.btf) return `btf-${record.btf.sha256.slice(0, 16)}`
  throw new StoreError('invalid_record', 'a record has neither package version, build-id nor BTF')
}

/** `kernels/<distro>/<version>/<arch>/<release>/` */
export function kernelPrefix(kernel: KernelName): string {
  const names = [kernel.distro, kernel.version, kernel.arch, kernel.release]
  return `kernels/${names.map(encodeName).join('/')}/`
}

/** The `kernelPrefix` of a record's key. */
export const prefixOfKey = (key: string): string => key.slice(0, key.lastIndexOf('/') + 1)

/** `kernels/<distro>/<version>/<arch>/<release>/<build>.json` */
export function recordKey(kernel: Kernel, build: string): string {
  return `${kernelPrefix(kernel)}${encodeName(`${build}.json`)}`
}

/** `blobs/<aa>/<sha256>.btf.zst` */
export function blobKey(sha256: string): string {
  if (!/^[0-9a-f]{64}$/.test(sha256)) throw new StoreError('invalid_key', 'not a hex SHA-256')
  return `blobs/${sha256.slice(0, 2)}/${sha256}.btf.zst`
}

/** The SHA-256 of which `blobKey` made this key; undefined for any other. */
export function shaOfBlobKey(key: string): string | undefined {
  const [, aa, sha256] = /^blobs\/([0-9a-f]{2})\/([0-9a-f]{64})\.btf\.zst$/.exec(key) ?? []
  return sha256?.startsWith(aa ?? '-') ? sha256 : undefined
}

/** `sources/<id>/<suite>.json`, for a source that could not be discovered. */
export function sourceFailureKey(source: string, suite: string): string {
  return `sources/${encodeName(source)}/${encodeName(`${suite}.json`)}`
}
