/*
 * A tree of BTF files from elsewhere: a directory or a tar of one, such as btfhub-archive or a bundle. Nothing is
 * unpacked to disk, and links are not followed.
 */
import { createReadStream } from 'node:fs'
import { open, readdir, readFile, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { type Compression, compressionIn, decompress, MAGIC_SIZE } from './decompress.ts'
import { readTar } from './tar.ts'

/** Maximum bytes of one file. */
const MAX_FILE = 256 * 1024 * 1024

export interface TreeFile {
  /** relative to the tree's root, without a leading `./` */
  path: string
  /** undefined if it is not a regular file, or too large */
  bytes: Buffer | undefined
  /** for a hard link: the path of the earlier file */
  link?: string
}

/** Reads the files of a tree whose path `wanted` accepts. Errors: `invalid_package`; those of the file system. */
export async function* readTree(
  root: string,
  wanted: (path: string) => boolean,
): AsyncGenerator<TreeFile> {
  if ((await stat(root)).isDirectory()) yield* readDirectory(root, wanted)
  else yield* readTarFile(root, wanted)
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
    const file = join(root, path)
    const isReadable = entry.isFile() && (await stat(file)).size <= MAX_FILE
    yield { path, bytes: isReadable ? await readFile(file) : undefined }
  }
}

async function* readTarFile(
  file: string,
  wanted: (path: string) => boolean,
): AsyncGenerator<TreeFile> {
  const plain = decompress(createReadStream(file), await compressionOfFile(file))
  try {
    for await (const { name, regular, size, body, link } of readTar(plain)) {
      const path = withoutDot(name)
      if (path.endsWith('/') || !wanted(path)) continue
      const bytes = regular && size <= MAX_FILE ? await buffer(body) : undefined
      yield { path, bytes, ...(link && { link: withoutDot(link) }) }
    }
  } finally {
    plain.destroy()
  }
}

const withoutDot = (name: string): string => name.replace(/^(\.\/)+/, '')

async function compressionOfFile(file: string): Promise<Compression> {
  const handle = await open(file)
  try {
    const { buffer: bytes, bytesRead } = await handle.read(Buffer.alloc(MAGIC_SIZE))
    return compressionIn(bytes.subarray(0, bytesRead))
  } finally {
    await handle.close()
  }
}
