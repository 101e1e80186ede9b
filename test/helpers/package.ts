/*
 * deb packages: made by dpkg-deb, as Debian does, or assembled byte by byte, as no tool would. Also tar, ar and cpio.
 */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pack } from 'tar-stream'
import { RELEASE } from './vmlinux.ts'

export interface PackageOptions {
  /** default: the name of Debian's package with debug info of this release */
  name?: string
  release?: string
  /** Debian's architecture name */
  architecture?: string
  version?: string
  /** paths of the files on disk, by their paths in the package (default: `vmlinux` at Debian's path) */
  files?: Readonly<Record<string, string>>
  compression?: 'xz' | 'gzip' | 'zstd' | 'none'
  /** further fields of its control file, or others in place of those that it has */
  control?: Readonly<Record<string, string>>
}

/** Makes `linux-image-RELEASE-dbg_VERSION_ARCHITECTURE.deb` in a directory around a vmlinux. Returns its path. */
export function makePackage(
  directory: string,
  vmlinux: string | undefined,
  options: PackageOptions = {},
): string {
  const { release = RELEASE, version = '6.1.9-1', compression = 'xz' } = options
  const { name = `linux-image-${release}-dbg`, architecture = 'i386' } = options
  const {
    files = vmlinux === undefined ? {} : { [`usr/lib/debug/boot/vmlinux-${release}`]: vmlinux },
  } = options
  const [root, path] = [join(directory, `${name}.root`), `${name}_${version}_${architecture}.deb`]
  const put = (to: string, write: (path: string) => void) => {
    mkdirSync(dirname(join(root, to)), { recursive: true })
    write(join(root, to))
  }
  const fields = control(name, version, architecture, options.control)
  put('DEBIAN/control', (path) => writeFileSync(path, fields))
  put('usr/share/doc/copyright', (path) => writeFileSync(path, 'GPL-2\n'))
  for (const [to, from] of Object.entries(files)) put(to, (path) => copyFileSync(from, path))
  execFileSync('dpkg-deb', ['--root-owner-group', `-Z${compression}`, '--build', root, path], {
    cwd: directory,
  })
  rmSync(root, { recursive: true })
  return join(directory, path)
}

/** The control file of a package. */
function control(
  name: string,
  version: string,
  architecture = 'i386',
  more: Readonly<Record<string, string>> = {},
): string {
  const fields = {
    Package: name,
    Version: version,
    Architecture: architecture,
    Maintainer: 'Nobody <nobody@example.org>',
    Description: 'a kernel with debug info',
    ...more,
  }
  return Object.entries(fields)
    .map(([field, value]) => `${field}: ${value}\n`)
    .join('')
}

/** An entry of a tar archive: the bytes of a file, or the target of a symlink. */
export type Entry = readonly [name: string, content: string | Buffer | { linkname: string }]

/** An uncompressed tar of these entries, in this order; names are not checked. */
export async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack()
  for (const [name, content] of entries) {
    if (typeof content === 'string' || Buffer.isBuffer(content)) tar.entry({ name }, content)
    else tar.entry({ name, type: 'symlink', ...content })
  }
  tar.finalize()
  return await buffer(tar)
}

/** An ar archive of these members. */
export function arOf(members: readonly (readonly [name: string, bytes: Uint8Array])[]): Buffer {
  const parts: (string | Uint8Array)[] = ['!<arch>\n']
  for (const [name, bytes] of members) {
    const fields = [name.padEnd(16), '0'.padEnd(12), '0'.padEnd(6), '0'.padEnd(6)]
    parts.push(`${fields.join('')}${'100644'.padEnd(8)}${String(bytes.length).padEnd(10)}\`\n`)
    parts.push(bytes, bytes.length % 2 === 1 ? '\n' : '')
  }
  return Buffer.concat(parts.map((part) => Buffer.from(part as string)))
}

/** A package with these entries in data.tar. */
export async function debOf(entries: readonly Entry[]): Promise<Buffer> {
  return arOf([
    ['debian-binary', Buffer.from('2.0\n')],
    ['control.tar', await tarOf([['./control', control('shim', '1')]])],
    ['data.tar', await tarOf(entries)],
  ])
}

/** Header fields of a cpio entry that replace the correct ones. */
interface CpioFields {
  magic?: '070701' | '070702' | '07070X'
  mode?: number
  links?: number
  size?: number
  nameSize?: number
  sum?: number
}

/** Encodes an entry of a cpio archive. In the large-file form (magic 07070X), the name is an index. */
export function cpioEntry(
  name: string | number,
  content: string | Uint8Array,
  fields: CpioFields = {},
): Buffer {
  const body = Buffer.from(content as string)
  const text = Buffer.from(`${name}\0`)
  const hex = (value: number) => value.toString(16).padStart(8, '0')
  const { magic = '070701', mode = 0o100644, links = 1, size = body.length } = fields
  const { nameSize = text.length, sum = 0 } = fields
  const numbers = [1, mode, 0, 0, links, 0, size, 0, 0, 0, 0, nameSize, sum]
  const header = typeof name === 'number' ? [hex(name)] : [...numbers.map(hex), text]
  return Buffer.concat([padded([magic, ...header]), padded([body])])
}

/** A cpio archive of these entries. */
export const cpioOf = (entries: readonly Buffer[]): Buffer =>
  Buffer.concat([...entries, cpioEntry('TRAILER!!!', '')])

function padded(parts: readonly (string | Uint8Array)[]): Buffer {
  const bytes = Buffer.concat(parts.map((part) => Buffer.from(part as string)))
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)])
}
