/*
 * The formats that a kernel comes in: deb, rpm, or a bare vmlinux. All bytes of a package are read, and its own digests
 * are checked at the end. The files in it are read only until all wanted ones are found.
 */

import { GeneratorError } from '../error.ts'
import type { Checksum } from '../sources/source.ts'
import { ByteReader } from './bytes.ts'
import { readDeb } from './deb.ts'
import { compressionIn, decompress, MAGIC_SIZE } from './decompress.ts'
import type { ModuleFile } from './module.ts'
import { openRpm } from './rpm.ts'
import { type Destination, UNPACK_LIMITS, unpackFiles, writeFile } from './unpack.ts'

/** A package as its reader needs to know it. */
export interface PackageFile {
  package: {
    url: string
    /** bytes, if an index has them */
    size?: number | undefined
  }
  /** digest from an index */
  checksum?: Checksum | undefined
  format: 'deb' | 'rpm' | 'vmlinux' | 'tar' | 'folder'
  /** paths of OpenPGP keys; one of them must have signed the header of an rpm */
  keys?: readonly string[] | undefined
  /** globs for the path of vmlinux in the package */
  vmlinux: readonly string[]
}

export interface OpenPackage {
  /** the remaining bytes; fails at their end if they do not match the digests in the file itself */
  rest: AsyncIterable<Buffer>
  /** Writes the vmlinux and modules among those bytes to new files. Errors: those of `unpackFiles`. */
  unpack(rest: AsyncIterable<Uint8Array>, to: Destination): Promise<ModuleFile[]>
  /** one of the job's keys signed the file */
  signed: boolean
}

/** Opens a package: reads its headers. Errors: those of `openRpm`. */
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
      return { rest: bytes, unpack: unpackVmlinux, signed: false }
    case 'tar':
    case 'folder':
      throw new GeneratorError('no_vmlinux', 'kernel headers have no vmlinux: use --from headers')
    default:
      return format satisfies never
  }
}

/** Writes a bare vmlinux, compressed or not. */
async function unpackVmlinux(
  bytes: AsyncIterable<Uint8Array>,
  { vmlinux, room, onVmlinux }: Destination,
): Promise<ModuleFile[]> {
  const reader = new ByteReader(bytes, () => new GeneratorError('truncated', 'vmlinux is empty'))
  const compression = compressionIn(await reader.peek(MAGIC_SIZE))
  const plain = decompress(reader.remaining(), compression)
  try {
    await writeFile(plain, vmlinux, room)
    await onVmlinux?.()
    return []
  } finally {
    plain.destroy()
  }
}
