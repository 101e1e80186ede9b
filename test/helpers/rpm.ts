/* rpm packages: made by rpmbuild, as distributions do, or assembled from headers that no tool would write. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, linkSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Signer } from './signer.ts'

/** rpmbuild's names of payload compressions: level and library. */
export const PAYLOADS = {
  gzip: 'w9.gzdio',
  bzip2: 'w9.bzdio',
  xz: 'w2.xzdio',
  lzma: 'w2.lzdio',
  zstd: 'w3.zstdio',
  none: 'w.ufdio',
} as const

export interface RpmOptions {
  name?: string
  version?: string
  release?: string
  /** rpm's architecture name */
  arch?: string
  /** paths of the files on disk, by their paths in the package */
  files: Readonly<Record<string, string>>
  payload?: keyof typeof PAYLOADS
  /** hard links in the package: targets by path */
  links?: Readonly<Record<string, string>>
  /** signer of the header */
  signer?: Signer
}

/** Makes `NAME-VERSION-RELEASE.ARCH.rpm` in a directory. Returns its path. */
export function makeRpm(directory: string, options: RpmOptions): string {
  const { name = 'kernel-debuginfo', version = '5.14.0', release = '1.el9' } = options
  const { arch = 'x86_64', files, links = {}, payload = 'gzip', signer } = options
  const work = join(directory, `${name}.rpmbuild`)
  const root = join(work, 'root')
  const put = (to: string, write: (path: string) => void) => {
    mkdirSync(dirname(join(root, to)), { recursive: true })
    write(join(root, to))
  }
  mkdirSync(root, { recursive: true })
  for (const [to, from] of Object.entries(files)) put(to, (path) => copyFileSync(from, path))
  for (const [to, from] of Object.entries(links))
    put(to, (path) => linkSync(join(root, from), path))
  const paths = [...Object.keys(files), ...Object.keys(links)].map((path) => `/${path}`)
  const spec = [
    `Name: ${name}`,
    `Version: ${version}`,
    `Release: ${release}`,
    'Summary: a kernel',
    'License: GPL-2.0',
    'AutoReqProv: no',
    '%description',
    'A kernel.',
    '%install',
    `cp -a '${root}/.' '%{buildroot}'`,
    '%files',
    ...paths,
    '',
  ]
  writeFileSync(join(work, 'spec'), spec.join('\n'))
  const defines = {
    _topdir: work,
    _binary_payload: PAYLOADS[payload],
    _build_id_links: 'none',
    __os_install_post: '%{nil}',
    debug_package: '%{nil}',
  }
  const file = `${name}-${version}-${release}.${arch}.rpm`
  execFileSync('rpmbuild', ['-bb', '--quiet', '--target', arch, ...asOptions(defines), 'spec'], {
    cwd: work,
    stdio: 'pipe',
  })
  renameSync(join(work, 'RPMS', arch, file), join(directory, file))
  rmSync(work, { recursive: true })
  if (signer) signer.signRpm(join(directory, file))
  return join(directory, file)
}

const asOptions = (defines: Readonly<Record<string, string>>): string[] =>
  Object.entries(defines).flatMap(([name, value]) => ['--define', `${name} ${value}`])

/** The value of a tag: 16, 32 or 64-bit numbers, bytes, a string, or several strings. */
export type RpmValue =
  | { int16: readonly number[] }
  | { int32: readonly number[] }
  | { int64: readonly number[] }
  | Buffer
  | string
  | readonly string[]

/** Encodes a header structure with these tags. */
export function headerOf(tags: Readonly<Record<number, RpmValue>>): Buffer {
  let store = Buffer.alloc(0)
  const index = Object.entries(tags).map(([tag, value]) => {
    const { type, width, count, bytes } = encode(value)
    store = Buffer.concat([store, Buffer.alloc(-store.length & (width - 1))])
    const entry = int32s([Number(tag), type, store.length, count])
    store = Buffer.concat([store, bytes])
    return entry
  })
  const intro = [Buffer.from('8eade80100000000', 'hex'), int32s([index.length, store.length])]
  return Buffer.concat([...intro, ...index, store])
}

function encode(value: RpmValue): { type: number; width: number; count: number; bytes: Buffer } {
  if (Buffer.isBuffer(value)) return { type: 7, width: 1, count: value.length, bytes: value }
  if (typeof value === 'string')
    return { type: 6, width: 1, count: 1, bytes: Buffer.from(`${value}\0`) }
  if ('int16' in value) {
    const bytes = Buffer.alloc(value.int16.length * 2)
    for (const [i, number] of value.int16.entries()) bytes.writeUInt16BE(number, i * 2)
    return { type: 3, width: 2, count: value.int16.length, bytes }
  }
  if ('int32' in value)
    return { type: 4, width: 4, count: value.int32.length, bytes: int32s(value.int32) }
  if ('int64' in value) {
    const bytes = Buffer.alloc(value.int64.length * 8)
    for (const [i, number] of value.int64.entries()) bytes.writeBigUInt64BE(BigInt(number), i * 8)
    return { type: 5, width: 8, count: value.int64.length, bytes }
  }
  const bytes = Buffer.from(value.map((text) => `${text}\0`).join(''))
  return { type: 8, width: 1, count: value.length, bytes }
}

function int32s(numbers: readonly number[]): Buffer {
  const bytes = Buffer.alloc(numbers.length * 4)
  for (const [i, number] of numbers.entries()) bytes.writeUInt32BE(number, i * 4)
  return bytes
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** A package with these header tags and an uncompressed payload; tags in `signature` replace the correct ones. */
export function rpmOf(
  tags: Readonly<Record<number, RpmValue>>,
  payload: Buffer,
  signature: Readonly<Record<number, RpmValue>> = {},
): Buffer {
  const header = headerOf({ 5092: [sha256(payload)], 5093: { int32: [8] }, ...tags })
  return rpmAround(header, payload, signature)
}

/** A package with an encoded header, which may be invalid. */
export function rpmAround(
  header: Buffer,
  payload: Buffer,
  signature: Readonly<Record<number, RpmValue>> = {},
): Buffer {
  const signed = headerOf({
    273: sha256(header),
    1000: { int32: [header.length + payload.length] },
    ...signature,
  })
  const lead = Buffer.alloc(96)
  lead.writeUInt32BE(0xedabeedb)
  return Buffer.concat([lead, signed, Buffer.alloc(-signed.length & 7), header, payload])
}
