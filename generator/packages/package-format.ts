/*
 * The kinds of file that a kernel comes in. Each has bytes to be read from the first to the last, where its own
 * digests are compared, and files in them, which are read only as far as something is wanted of them.
 */

import { GeneratorError } from '../error.ts'
import type { Checksum } from '../sources/source.ts'
import { ByteReader } from './bytes.ts'
import { readDeb } from './deb.ts'
import { compressionIn, decompress, MAGIC_SIZE } from './decompress.ts'
import type { ModuleFile } from './module.ts'
import { openRpm } from './rpm.ts'
import { type Destination, UNPACK_LIMITS, unpackFiles, writeFile } from './unpack.ts'

/** A file that a kernel comes in, as its reader has to know it. */
export interface PackageFile {
  package: {
    url: string
    /** bytes, where an index promises them */
    size?: number | undefined
  }
  /** digest that an index promises */
  checksum?: Checksum | undefined
  format: 'deb' | 'rpm' | 'vmlinux'
  /** paths of OpenPGP keys, one of which must have signed the header of an .rpm */
  keys?: readonly string[] | undefined
  /** globs of the paths that vmlinux may have in the package */
  vmlinux: readonly string[]
}

export interface OpenPackage {
  /** all bytes that are still to be read; fails at their end where they are not what the file itself says */
  rest: AsyncIterable<Buffer>
  /** Writes the vmlinux and modules among those bytes to new files. Errors: those of `unpackFiles`. */
  unpack(rest: AsyncIterable<Uint8Array>, to: Destination): Promise<ModuleFile[]>
  /** the file vouches for itself: one of the job's keys signed it */
  signed: boolean
}

/** Begins to read a job's file. Errors: those of `openRpm`. */
export async function openPackage(
  { format, keys, vmlinux }: PackageFile,
  bytes: AsyncIterable<Buffer>,
  signal?: AbortSignal,
): Promise<OpenPackage> {
  const limit = UNPACK_LIMITS.unpacked
  switch (format) {
    case 'deb':
      return {
        rest: bytes,
        unpack: (rest, to) => unpackFiles(readDeb(rest, limit), vmlinux, to),
        signed: false,
      }
    case 'rpm': {
      const { payload, files, signed } = await openRpm(bytes, { keys, signal })
      return {
        rest: payload,
        unpack: (rest, to) => unpackFiles(files(rest, limit), vmlinux, to),
        signed,
      }
    }
    case 'vmlinux':
      return { rest: bytes, unpack: unpackBare, signed: false }
    default:
      return format satisfies never
  }
}

/** A vmlinux by itself, compressed or not. */
async function unpackBare(
  bytes: AsyncIterable<Uint8Array>,
  { vmlinux, room, whole }: Destination,
): Promise<ModuleFile[]> {
  const reader = new ByteReader(bytes, () => new GeneratorError('truncated', 'vmlinux is empty'))
  const compression = compressionIn(await reader.peek(MAGIC_SIZE))
  const plain = decompress(reader.remaining(), compression)
  try {
    await writeFile(plain, vmlinux, room)
    whole?.()
    return []
  } finally {
    plain.destroy()
  }
}
