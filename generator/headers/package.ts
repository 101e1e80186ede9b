/*
 * Adds the headers of packages to a tree. A package is written to a file and its digest compared before anything in it is
 * read: header packages are small.
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { GeneratorError } from '../error.ts'
import type { ArchiveEntry } from '../packages/archive-entry.ts'
import { readDeb } from '../packages/deb.ts'
import { capped, compressionIn, decompress, MAGIC_SIZE } from '../packages/decompress.ts'
import { type DownloadOptions, download } from '../packages/download.ts'
import { openRpm } from '../packages/rpm.ts'
import { readTar } from '../packages/tar.ts'
import type { Checksum } from '../sources/source.ts'
import { readFolder } from './folder.ts'
import type { HeaderTree } from './tree.ts'

/** Bytes of a package; Fedora's kernel-devel has 25 MB, a vmlinux with BTF in it some more. */
const MAX_PACKAGE = 512 * 1024 ** 2
/** Bytes of all files in it, also of those that are not written. */
const MAX_UNPACKED = 4 * 1024 ** 3

export interface HeaderPackage {
  url: string
  format: 'deb' | 'rpm' | 'tar' | 'folder'
  /** bytes, if an index has them */
  size?: number | undefined
  checksum?: Checksum | undefined
  /** paths of OpenPGP keys; one of them must have signed an rpm's header */
  keys?: readonly string[] | undefined
}

export interface HeaderPackageReceipt {
  /** hex; undefined for a folder */
  sha256: string | undefined
  /** bytes */
  read: number
  /** one of the keys signed it */
  signed: boolean
}

/**
 * Adds a package to a tree; `file`: path where it is kept meanwhile. Errors: `digest_mismatch`, `truncated`, `too_large`;
 * those of `download`, of the package's format, and of `HeaderTree.add`.
 */
export async function addPackage(
  tree: HeaderTree,
  from: HeaderPackage,
  file: string,
  options: DownloadOptions,
): Promise<HeaderPackageReceipt> {
  const { signal } = options
  if (from.format === 'folder') {
    for await (const entry of readFolder(pathOf(from.url))) {
      signal?.throwIfAborted()
      await tree.add(entry)
    }
    return { sha256: undefined, read: 0, signed: false }
  }
  try {
    const { sha256, read } = await fetchFile(from, file, options)
    const signed = await addEntries(tree, from, file, signal)
    return { sha256, read, signed }
  } finally {
    await rm(file, { force: true })
  }
}

const pathOf = (url: string): string => (url.startsWith('file:') ? fileURLToPath(url) : url)

async function fetchFile(
  { url, size, checksum }: HeaderPackage,
  file: string,
  options: DownloadOptions,
): Promise<{ sha256: string; read: number }> {
  const { body } = await download(url, options)
  const hash = createHash('sha256')
  const other =
    checksum && checksum.algorithm !== 'sha256' ? createHash(checksum.algorithm) : undefined
  let read = 0
  const limit = size ?? MAX_PACKAGE
  await pipeline(
    body,
    async function* (pieces: AsyncIterable<Buffer>) {
      for await (const piece of pieces) {
        read += piece.length
        if (read > limit || read > MAX_PACKAGE)
          throw new GeneratorError('too_large', `${url}: the package has more than ${limit} bytes`)
        hash.update(piece)
        other?.update(piece)
        yield piece
      }
    },
    createWriteStream(file, { flags: 'wx' }),
    { ...(options.signal && { signal: options.signal }) },
  )
  if (size !== undefined && read < size)
    throw new GeneratorError('truncated', `the package ends after ${read} of ${size} bytes`)
  const sha256 = hash.digest('hex')
  const found = checksum?.algorithm === 'sha256' ? sha256 : other?.digest('hex')
  if (checksum && found !== checksum.hex)
    throw new GeneratorError(
      'digest_mismatch',
      `the package has ${checksum.algorithm} ${found}, the index says ${checksum.hex}`,
    )
  return { sha256, read }
}

/** Adds the files of a package; returns whether it is signed. */
async function addEntries(
  tree: HeaderTree,
  { format, keys }: HeaderPackage,
  file: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const bytes = createReadStream(file, { highWaterMark: 256 * 1024 })
  const add = async (entries: AsyncIterable<ArchiveEntry>) => {
    for await (const entry of entries) {
      signal?.throwIfAborted()
      await tree.add(entry)
    }
  }
  try {
    if (format === 'rpm') {
      const { payload, files, signed } = await openRpm(bytes, { keys, signal })
      await add(files(payload, MAX_UNPACKED))
      return signed
    }
    await add(format === 'deb' ? readDeb(bytes, MAX_UNPACKED) : readTarball(file))
    return false
  } finally {
    bytes.destroy()
  }
}

/** The files of a tar in any compression. */
async function* readTarball(file: string): AsyncGenerator<ArchiveEntry> {
  const start = await firstBytes(file)
  const plain = decompress(createReadStream(file), compressionIn(start))
  try {
    yield* readTar(capped(plain, MAX_UNPACKED, 'the headers'))
  } finally {
    plain.destroy()
  }
}

async function firstBytes(file: string): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of createReadStream(file, { end: MAGIC_SIZE - 1 })) pieces.push(piece)
  return Buffer.concat(pieces)
}

/** The paths of the directories that one kernel's headers need, below a scratch directory. */
export const headerDirectories = (scratch: string) => ({
  headers: join(scratch, 'headers'),
  work: join(scratch, 'work'),
  root: join(scratch, 'root'),
})
