/*
 * A tree of BTF that somebody else made, a directory or a tar of one: btfhub-archive's, or a bundle. Nothing is
 * unpacked to disk; what is no regular file is not followed.
 */
import { createReadStream } from 'node:fs'
import { open, readdir, readFile, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { extract } from 'tar-stream'
import { type Compression, decompress } from './decompress.ts'
import { GeneratorError } from './error.ts'

/** Bytes of one file in a tree. */
const MAX_FILE = 256 * 1024 * 1024

/** The first bytes of what a tar may be compressed with. */
const MAGIC: Readonly<Record<string, Compression>> = {
  '1f8b': 'gz',
  fd377a585a00: 'xz',
  '28b52ffd': 'zst',
}

export interface TreeFile {
  /** below the tree's root, without a leading `./` */
  path: string
  /** undefined for what is no regular file, or too large */
  bytes: Buffer | undefined
}

/** The files of a tree whose path is wanted. Errors: the system's, `corrupt_package`. */
export async function* readTree(
  root: string,
  wanted: (path: string) => boolean,
): AsyncGenerator<TreeFile> {
  if ((await stat(root)).isDirectory()) yield* readDirectory(root, wanted)
  else yield* readTar(root, wanted)
}

async function* readDirectory(
  root: string,
  wanted: (path: string) => boolean,
): AsyncGenerator<TreeFile> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  const found = entries
    .map((entry) => ({ entry, path: relative(root, join(entry.parentPath, entry.name)) }))
    .filter(({ entry, path }) => !entry.isDirectory() && wanted(path))
    .sort((a, b) => (a.path < b.path ? -1 : 1))
  for (const { entry, path } of found) {
    const at = join(root, path)
    const plain = entry.isFile() && (await stat(at)).size <= MAX_FILE
    yield { path, bytes: plain ? await readFile(at) : undefined }
  }
}

async function* readTar(file: string, wanted: (path: string) => boolean): AsyncGenerator<TreeFile> {
  const tar = extract()
  const feeding = pipeline(decompress(createReadStream(file), await compressionIn(file)), tar)
  feeding.catch(() => {}) // whoever reads the entries hears of it
  try {
    for await (const entry of tar) {
      const path = entry.header.name.replace(/^(\.\/)+/, '')
      const plain = entry.header.type === 'file' && (entry.header.size ?? 0) <= MAX_FILE
      if (entry.header.type !== 'directory' && wanted(path)) {
        yield { path, bytes: plain ? await buffer(entry) : undefined }
      }
      entry.resume()
    }
    await feeding
  } catch (cause) {
    if (cause instanceof GeneratorError) throw cause
    const message = `${file} is not a tar: ${(cause as Error).message}`
    throw new GeneratorError('corrupt_package', message, { cause })
  }
}

async function compressionIn(file: string): Promise<Compression> {
  const handle = await open(file)
  try {
    const { buffer: bytes, bytesRead } = await handle.read(Buffer.alloc(8), 0, 8, 0)
    const start = bytes.subarray(0, bytesRead).toString('hex')
    const [, compression = 'none'] =
      Object.entries(MAGIC).find(([magic]) => start.startsWith(magic)) ?? []
    return compression
  } finally {
    await handle.close()
  }
}
