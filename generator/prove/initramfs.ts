/*
 * An initramfs: a cpio archive in the newc form (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst)
 * that the kernel unpacks into its first root directory and whose /init it runs.
 */
import { writeFile } from 'node:fs/promises'

/** The files of an initramfs by their paths without a leading slash; all may be executed. */
export type InitramfsFiles = ReadonlyMap<string, Uint8Array>

const DIRECTORY = 0o040755
const FILE = 0o100755
const TRAILER = 'TRAILER!!!'

/** Writes an initramfs with these empty directories and files. Directories that files lie in are added. */
export async function writeInitramfs(
  path: string,
  directories: readonly string[],
  files: InitramfsFiles,
): Promise<void> {
  const above = [...files.keys()].map((file) => file.split('/').slice(0, -1).join('/'))
  const folders = new Set([...directories, ...above].flatMap(withParents))
  const entries = [
    ...[...folders].sort().map((name) => ({ name, mode: DIRECTORY, body: new Uint8Array() })),
    ...[...files].map(([name, body]) => ({ name, mode: FILE, body })),
    { name: TRAILER, mode: 0, body: new Uint8Array() },
  ]
  const pieces = entries.flatMap(({ name, mode, body }, at) => {
    const links = mode === DIRECTORY ? 2 : 1
    const nameBytes = Buffer.from(`${name}\0`)
    const fields = [at + 1, mode, 0, 0, links, 0, body.length, 0, 0, 0, 0, nameBytes.length, 0]
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`
    return [padded(Buffer.concat([Buffer.from(header), nameBytes])), padded(body)]
  })
  await writeFile(path, pieces)
}

/** A directory after those that it lies in. */
function withParents(path: string): string[] {
  const parts = path.split('/').filter((part) => part !== '')
  return parts.map((_, at) => parts.slice(0, at + 1).join('/'))
}

const padded = (bytes: Uint8Array): Uint8Array =>
  Buffer.concat([bytes], Math.ceil(bytes.length / 4) * 4)
