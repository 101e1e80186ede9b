/*
 * The btfhub-archive tree: `<distro>/<version>/<arch>/<release>.btf.tar.xz`, each with one member `<release>.btf`, so
 * that a bucket behind any static server is a BTFHub mirror. Equal BTF under one name gives equal bytes; the clock,
 * the user and the umask have no influence. The format follows btfhub's own archives and the clients that read them.
 */
import { buffer } from 'node:stream/consumers'
import { archiveArch, canonicalArch } from './arch.ts'
import { MAX_BTF } from './blob.ts'
import { unquoted } from './distro.ts'
import { StoreError } from './error.ts'
import type { KernelName } from './kernel.ts'
import { decodeName, encodeName, isName } from './name.ts'
import { compressXz, decompressXz } from './xz.ts'

/** The prefix of all keys in the tree. */
export const ARCHIVE = 'archive/'
export const ARCHIVE_SUFFIX = '.btf.tar.xz'
/** Bytes that a tar adds to its one member: header, padding and end; with room to spare. */
const TAR_OVERHEAD = 64 * 1024

/** The path in the tree: `<distro>/<version>/<arch>/<release>.btf.tar.xz`, with btfhub's name of the architecture. */
export function archivePath({ distro, version, arch, release }: KernelName): string {
  return [distro, version, archiveArch(arch), `${release}${ARCHIVE_SUFFIX}`]
    .map(encodeName)
    .join('/')
}

/** Tells whether the tree can hold a kernel: a release as long as a file name may be leaves no room for the suffix. */
export const hasArchivePath = ({ release }: KernelName): boolean =>
  isName(`${release}${ARCHIVE_SUFFIX}`)

/** The key of a kernel's archive: `archive/` and its path. */
export const archiveKey = (kernel: KernelName): string => `${ARCHIVE}${archivePath(kernel)}`

/** The inverse of `archiveKey`; undefined for a key that it cannot have made. */
export function kernelOfArchive(key: string): KernelName | undefined {
  return key.startsWith(ARCHIVE)
    ? kernelOfPath(key.slice(ARCHIVE.length), ARCHIVE_SUFFIX)
    : undefined
}

/**
 * The kernel that a path `<distro>/<version>/<arch>/<release><suffix>` names; undefined for any other path. The
 * distribution may be quoted: bundles for readers that keep the quotes of os-release have it so.
 */
export function kernelOfPath(path: string, suffix: string): KernelName | undefined {
  const [id = '', ...rest] = path.split('/')
  const names = [unquoted(id), ...rest]
  if (names.length !== 4) return undefined
  try {
    const [distro, version, arch, file] = names.map(decodeName) as [string, string, string, string]
    if (!file.endsWith(suffix) || file === suffix) return undefined
    return { distro, version, arch: canonicalArch(arch), release: file.slice(0, -suffix.length) }
  } catch {
    return undefined
  }
}

/** Packs a kernel's raw BTF as `.btf.tar.xz`. Errors: `unsupported` if xz is not installed. */
export async function packArchive(
  release: string,
  raw: Uint8Array,
  signal?: AbortSignal,
): Promise<Buffer> {
  return await compressXz(await packTar(release, raw), raw.length + TAR_OVERHEAD, signal)
}

/** Packs a kernel's raw BTF as an uncompressed tar with one member, `<release>.btf`. */
export async function packTar(release: string, raw: Uint8Array): Promise<Buffer> {
  const { pack } = await import('tar-stream') // the client package never packs, and does not depend on it
  const tar = pack()
  const owner = { uid: 0, gid: 0, uname: 'root', gname: 'root' }
  const header = { name: `${release}.btf`, mode: 0o444, ...owner, mtime: new Date(0) }
  tar.entry(header, Buffer.from(raw))
  tar.finalize()
  return await buffer(tar)
}

/**
 * Unpacks the raw BTF of an archive: the one member whose name ends with `.btf`. Errors: `digest_mismatch` if the
 * archive does not decode, or has no such member or several; `unsupported` if xz is not installed.
 */
export async function unpackArchive(bytes: Uint8Array, signal?: AbortSignal): Promise<Buffer> {
  return (await unpackMember(bytes, signal)).raw
}

/** The same with the member's name, and with a limit in bytes. Errors: those of `unpackArchive`. */
export async function unpackMember(
  bytes: Uint8Array,
  signal?: AbortSignal,
  maxSize = MAX_BTF,
): Promise<{ name: string; raw: Buffer }> {
  const tar = await decompressXz(bytes, maxSize + TAR_OVERHEAD, signal)
  const found: { name: string; raw: Buffer }[] = []
  const { extract } = await import('tar-stream')
  const reader = extract()
  reader.end(tar)
  try {
    for await (const entry of reader) {
      const { name, type } = entry.header
      if (type === 'file' && name.endsWith('.btf')) found.push({ name, raw: await buffer(entry) })
      else entry.resume()
    }
  } catch (cause) {
    throw new StoreError('digest_mismatch', 'the archive does not contain a valid tar', { cause })
  }
  const [member] = found
  if (!member || found.length > 1)
    throw new StoreError(
      'digest_mismatch',
      `the archive has ${found.length} .btf files: expected one`,
    )
  return member
}
