/*
 * vmlinux, and what modules are wanted, out of a package's files, in one pass over them: nothing else is written, and
 * nothing is read past the last of them. Layouts move between releases, so a source names several paths; the first regular file among them is taken, since
 * symlinks to it come later still, or not at all.
 */
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { matchGlob } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { ArchiveEntry, Digest } from './archive-entry.ts'
import { compressionOf, decompress } from './decompress.ts'
import type { ModuleFile, ModuleSet } from './module.ts'

/** In bytes. */
export interface UnpackLimits {
  /** of vmlinux; the largest of a distribution have 1 GB */
  vmlinux: number
  /** of all that is unpacked on the way to it; Debian's largest packages have 5 GB */
  unpacked: number
}

export const UNPACK_LIMITS: UnpackLimits = { vmlinux: 4 * 1024 ** 3, unpacked: 32 * 1024 ** 3 }

/** Throws where a file may not have so many bytes. */
export type SizeLimit = (bytes: number) => void

/** Errors: `too_large`. */
export function atMost(limit: number, what = 'vmlinux'): SizeLimit {
  return (bytes) => {
    if (bytes > limit) throw new GeneratorError('too_large', `${what} has more than ${limit} bytes`)
  }
}

/** Where what is wanted of a package goes. */
export interface Destination {
  /** path of vmlinux */
  vmlinux: string
  room?: SizeLimit
  modules?: ModuleDestination
  /** called when vmlinux is whole: modules may come yet */
  whole?: () => void
}

export interface ModuleDestination {
  set: ModuleSet
  /** directory of their files */
  directory: string
  /** that they may have together */
  room?: SizeLimit
}

/**
 * Reads a package's files until vmlinux and all modules that are wanted are whole; `paths` are globs of vmlinux's.
 * Returns the modules. Errors: `no_vmlinux`, which says what was looked for, `too_large`, `no_space`,
 * `digest_mismatch`, and those of the files; then what was not whole is not there.
 */
export async function unpackFiles(
  files: AsyncIterable<ArchiveEntry>,
  paths: readonly string[],
  { vmlinux: target, room, modules, whole }: Destination,
): Promise<ModuleFile[]> {
  const found: ModuleFile[] = []
  const store = modules && storeOf(modules)
  let hasVmlinux = false
  for await (const { name, regular, size, body, digest } of files) {
    if (!regular) continue
    const path = normalize(name)
    const bytes = digest ? compared(body, digest, path) : body
    if (!hasVmlinux && paths.some((wanted) => matchGlob(wanted, path))) {
      room?.(size)
      await writeFile(bytes, target, room)
      hasVmlinux = true
      whole?.()
    } else {
      const module = await store?.(path, bytes)
      if (module) found.push(module)
    }
    if (hasVmlinux && (modules?.set.isComplete ?? true)) return found
  }
  if (!hasVmlinux)
    throw new GeneratorError('no_vmlinux', `the package has none of ${paths.join(', ')}`)
  return found
}

/** Writes a file that is a wanted module, unpacked. */
function storeOf({
  set,
  directory,
  room = atMost(UNPACK_LIMITS.unpacked, 'the modules'),
}: ModuleDestination) {
  let taken = 0
  return async (
    path: string,
    bytes: AsyncIterable<Uint8Array>,
  ): Promise<ModuleFile | undefined> => {
    const name = set.take(path)
    if (name === undefined) return undefined
    const target = join(directory, `${name}.ko`)
    const [, packed] = /\.(xz|zst|gz)$/.exec(path) ?? []
    const plain = packed ? decompress(bytes, compressionOf(path)) : undefined
    try {
      taken += await writeFile(plain ?? bytes, target, (size) => room(taken + size))
    } finally {
      plain?.destroy()
    }
    return { name, path: target }
  }
}

/**
 * Writes a new file, and returns how many bytes it has. Errors: what `room` throws, `no_space`, those of the bytes;
 * then there is no file.
 */
export async function writeFile(
  bytes: AsyncIterable<Uint8Array>,
  target: string,
  room: SizeLimit = atMost(UNPACK_LIMITS.vmlinux),
): Promise<number> {
  const file = createWriteStream(target, { flags: 'wx', highWaterMark: 1024 * 1024 })
  try {
    await pipeline(metered(bytes, room), file)
    return file.bytesWritten
  } catch (cause) {
    await rm(target, { force: true })
    if (cause instanceof GeneratorError) throw cause
    const { code, message } = cause as NodeJS.ErrnoException
    const full = code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG'
    throw new GeneratorError(
      full ? 'no_space' : 'invalid_package',
      `${basename(target)}: ${message}`,
      {
        cause,
      },
    )
  }
}

async function* metered(
  bytes: AsyncIterable<Uint8Array>,
  room: SizeLimit,
): AsyncGenerator<Uint8Array> {
  let size = 0
  for await (const piece of bytes) {
    size += piece.length
    room(size)
    yield piece
  }
}

/** The bytes, and an error at their end where they have another digest. */
async function* compared(
  bytes: AsyncIterable<Uint8Array>,
  { algorithm, hex }: Digest,
  name: string,
): AsyncGenerator<Uint8Array> {
  const hash = createHash(algorithm)
  for await (const piece of bytes) {
    hash.update(piece)
    yield piece
  }
  if (hash.digest('hex') !== hex)
    throw new GeneratorError('digest_mismatch', `${name} is not the file that the package lists`)
}

/** Without the `./` that dpkg and rpm write. */
const normalize = (name: string): string => name.replace(/^(\.?\/)+/, '')
