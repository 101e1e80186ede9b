/*
 * The btfhub-archive tree: `<distro>/<version>/<arch>/<release>.btf.tar.xz`, each with one member `<release>.btf`, so
 * that a bucket behind any static server is a BTFHub mirror. Equal BTF under one name gives equal bytes, whatever the
 * clock, the user and the umask (reference: btfhub's own archives, and the clients that read them). The manifest says
 * of each file its digest and that of the BTF in it; it is rebuilt from the tree, and replaced by compare-and-swap.
 */
import { buffer } from 'node:stream/consumers'
import { extract, pack } from 'tar-stream'
import { archiveArch, canonicalArch } from './arch.ts'
import { MAX_BTF } from './blob.ts'
import { unquoted } from './distro.ts'
import { StoreError } from './error.ts'
import type { KernelName } from './kernel.ts'
import { decodeName, encodeName, isName } from './name.ts'
import { compressXz, decompressXz } from './xz.ts'

export const ARCHIVE = 'archive/'
export const SUFFIX = '.btf.tar.xz'
/** A tar's header, its padding, and its end. */
const TAR_OVERHEAD = 64 * 1024

/** `<distro>/<version>/<arch>/<release>.btf.tar.xz`, with the architecture as btfhub spells it. */
export function archivePath({ distro, version, arch, release }: KernelName): string {
  return [distro, version, archiveArch(arch), `${release}${SUFFIX}`].map(encodeName).join('/')
}

/** Whether the tree can have it: a release that is all of a file name leaves no room for the ending. */
export const hasArchivePath = ({ release }: KernelName): boolean => isName(`${release}${SUFFIX}`)

/** Where the tree has it: `archive/` and its path. */
export const archiveKey = (kernel: KernelName): string => `${ARCHIVE}${archivePath(kernel)}`

/** The kernel of which `archiveKey` made this key; undefined for any other. */
export function kernelOfArchive(key: string): KernelName | undefined {
  return key.startsWith(ARCHIVE) ? kernelOfPath(key.slice(ARCHIVE.length), SUFFIX) : undefined
}

/**
 * The kernel that a path in a tree names, `<distro>/<version>/<arch>/<release>` and the suffix; else undefined. In bundles
 * for readers that keep the quotes of os-release, the distribution has them.
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

/** The archive of a kernel's raw BTF. Errors: `unsupported` where there is no xz. */
export async function packArchive(
  release: string,
  raw: Uint8Array,
  signal?: AbortSignal,
): Promise<Buffer> {
  return await compressXz(await packTar(release, raw), raw.length + TAR_OVERHEAD, signal)
}

/** The same before it is compressed: a tar with `<release>.btf`. */
export async function packTar(release: string, raw: Uint8Array): Promise<Buffer> {
  const tar = pack()
  const owner = { uid: 0, gid: 0, uname: 'root', gname: 'root' }
  const header = { name: `${release}.btf`, mode: 0o444, ...owner, mtime: new Date(0) }
  tar.entry(header, Buffer.from(raw))
  tar.finalize()
  return await buffer(tar)
}

/**
 * The raw BTF in an archive, ours or another's: of its one member that ends with `.btf`. Errors: `digest_mismatch` for
 * what does not decode, or has none or several.
 */
export async function unpackArchive(bytes: Uint8Array, signal?: AbortSignal): Promise<Buffer> {
  const tar = await decompressXz(bytes, MAX_BTF + TAR_OVERHEAD, signal)
  const found: Buffer[] = []
  const reader = extract()
  reader.end(tar)
  try {
    for await (const entry of reader) {
      const { name, type } = entry.header
      if (type === 'file' && name.endsWith('.btf')) found.push(await buffer(entry))
      else entry.resume()
    }
  } catch (cause) {
    throw new StoreError('digest_mismatch', 'the archive is not a tar', { cause })
  }
  const [raw] = found
  if (!raw || found.length > 1)
    throw new StoreError('digest_mismatch', `the archive has ${found.length} BTF files, not one`)
  return raw
}
