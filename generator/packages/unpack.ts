/*
 * Unpacking: writes vmlinux and the other wanted files of a package in one pass. No other file is written, and nothing
 * is read after the last of them. Layouts change between releases, so a source names several paths of
 * vmlinux. The first regular file among them is taken; symlinks to it come later, or never.
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
import { MAX_VERSION_FILE, type VersionFiles } from './kernel-version.ts'
import type { ModuleFile, ModuleSet } from './module.ts'

/** In bytes. */
export interface UnpackLimits {
  /** of vmlinux; the largest of distributions have 1 GB */
  vmlinux: number
  /** of all unpacked files; Debian's largest packages have 5 GB */
  unpacked: number
}

export const UNPACK_LIMITS: UnpackLimits = { vmlinux: 4 * 1024 ** 3, unpacked: 32 * 1024 ** 3 }

/** Throws if a file may not have this many bytes. */
export type SizeLimit = (bytes: number) => void

/** A fixed limit; `what` is its subject in the message. Errors of the result: `too_large`. */
export function atMost(limit: number, what = 'vmlinux'): SizeLimit {
  return (bytes) => {
    if (bytes > limit) throw new GeneratorError('too_large', `${what} has more than ${limit} bytes`)
  }
}

/** The destination of the wanted files of a package. */
export interface Destination {
  /** path of vmlinux */
  vmlinux: string
  room?: SizeLimit
  modules?: ModuleDestination
  /** the files with the kernel's version that a package with kernel headers has */
  versionFiles?: VersionFiles
  /** called when vmlinux is written, before the next file is read; modules may follow */
  onVmlinux?: () => void | Promise<void>
}

export interface ModuleDestination {
  set: ModuleSet
  /** directory for their files */
  directory: string
  /** for all modules together */
  room?: SizeLimit
}

/**
 * Reads a package's files until vmlinux and all other wanted files are written; `paths` are globs for the path of vmlinux.
 * Returns the modules. An incomplete file is removed. Errors: `no_vmlinux`, `too_large`, `no_space`, `digest_mismatch`;
 * those of the files.
 */
export async function unpackFiles(
  files: AsyncIterable<ArchiveEntry>,
  paths: readonly string[],
  { vmlinux: target, room, modules, versionFiles, onVmlinux }: Destination,
): Promise<ModuleFile[]> {
  const found: ModuleFile[] = []
  const writeModule = modules && moduleWriter(modules)
  let hasVmlinux = false
  for await (const { name, regular, size, body, digest } of files) {
    if (!regular) continue
    const path = normalize(name)
    const bytes = digest ? withDigest(body, digest, path) : body
    if (!hasVmlinux && paths.some((wanted) => matchGlob(wanted, path))) {
      room?.(size)
      await writeFile(bytes, target, room)
      hasVmlinux = true
      await onVmlinux?.()
    } else {
      const text = versionFiles?.take(path)
      if (text) await writeFile(bytes, text, atMost(MAX_VERSION_FILE, basename(text)))
      const module = text ? undefined : await writeModule?.(path, bytes)
      if (module) found.push(module)
    }
    const isComplete = (modules?.set.isComplete ?? true) && (versionFiles?.isComplete ?? true)
    if (hasVmlinux && isComplete) return found
  }
  if (!hasVmlinux)
    throw new GeneratorError(
      'no_vmlinux',
      `the package has no vmlinux: none of ${paths.join(', ')}`,
    )
  return found
}

/** Returns a function that writes a file, decompressed, if it is a wanted module. */
function moduleWriter({
  set,
  directory,
  room = atMost(UNPACK_LIMITS.unpacked, 'the modules'),
}: ModuleDestination) {
  let written = 0
  return async (
    path: string,
    bytes: AsyncIterable<Uint8Array>,
  ): Promise<ModuleFile | undefined> => {
    const name = set.take(path)
    if (name === undefined) return undefined
    const target = join(directory, `${name}.ko`)
    const [, compression] = /\.(xz|zst|gz)$/.exec(path) ?? []
    const plain = compression ? decompress(bytes, compressionOf(path)) : undefined
    try {
      written += await writeFile(plain ?? bytes, target, (size) => room(written + size))
    } finally {
      plain?.destroy()
    }
    return { name, path: target }
  }
}

/**
 * Writes a new file and returns its size in bytes. An incomplete file is removed. Errors: `no_space`; those of `room`
 * and of the bytes.
 */
export async function writeFile(
  bytes: AsyncIterable<Uint8Array>,
  target: string,
  room: SizeLimit = atMost(UNPACK_LIMITS.vmlinux),
): Promise<number> {
  const file = createWriteStream(target, { flags: 'wx', highWaterMark: 1024 * 1024 })
  try {
    await pipeline(withLimit(bytes, room), file)
    return file.bytesWritten
  } catch (cause) {
    await rm(target, { force: true })
    if (cause instanceof GeneratorError) throw cause
    const { code, message } = cause as NodeJS.ErrnoException
    const isFull = code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG'
    const text = `${basename(target)}: ${message}`
    throw new GeneratorError(isFull ? 'no_space' : 'invalid_package', text, { cause })
  }
}

/** Passes the bytes on as long as `room` allows. */
async function* withLimit(
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

/** Passes the bytes on, and fails at their end if they do not have this digest. */
async function* withDigest(
  bytes: AsyncIterable<Uint8Array>,
  { algorithm, hex }: Digest,
  path: string,
): AsyncGenerator<Uint8Array> {
  const hash = createHash(algorithm)
  for await (const piece of bytes) {
    hash.update(piece)
    yield piece
  }
  const found = hash.digest('hex')
  if (found !== hex) {
    const message = `${path} has ${algorithm} ${found}, the package says ${hex}`
    throw new GeneratorError('digest_mismatch', message)
  }
}

/** Removes the leading `./` or `/` that dpkg and rpm write. */
const normalize = (name: string): string => name.replace(/^(\.?\/)+/, '')
