/*
 * vmlinux out of a package's files, in one pass over them: nothing else is written, and nothing is read past vmlinux.
 * Layouts move between releases, so a source names several paths; the first regular file among them is taken, since
 * symlinks to it come later still, or not at all.
 */
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { matchGlob } from '../storage/index.ts'
import type { Digest, Entry } from './entry.ts'
import { GeneratorError } from './error.ts'

/** In bytes. */
export interface UnpackLimits {
  /** of vmlinux; the largest of a distribution have 1 GB */
  vmlinux: number
  /** of all that is unpacked on the way to it; Debian's largest packages have 5 GB */
  unpacked: number
}

export const UNPACK_LIMITS: UnpackLimits = { vmlinux: 4 * 1024 ** 3, unpacked: 32 * 1024 ** 3 }

/** Throws where vmlinux may not have so many bytes. */
export type Room = (bytes: number) => void

/** Errors: `too_large`. */
export function atMost(limit: number): Room {
  return (bytes) => {
    if (bytes > limit) throw new GeneratorError('too_large', `vmlinux has more than ${limit} bytes`)
  }
}

/**
 * Reads a package's files until vmlinux is whole and writes it to `target`; `paths` are globs. Errors: `no_vmlinux`,
 * which says what was looked for, `too_large`, `no_space`, `digest_mismatch`, and those of the files; then there is no
 * file.
 */
export async function unpackVmlinux(
  files: AsyncIterable<Entry>,
  paths: readonly string[],
  target: string,
  room: Room = atMost(UNPACK_LIMITS.vmlinux),
): Promise<void> {
  for await (const { name, regular, size, body, digest } of files) {
    const path = normalize(name)
    if (!regular || !paths.some((wanted) => matchGlob(wanted, path))) continue
    room(size)
    return await writeVmlinux(digest ? compared(body, digest) : body, target, room)
  }
  throw new GeneratorError('no_vmlinux', `the package has none of ${paths.join(', ')}`)
}

/** Writes vmlinux to a new file. Errors: `too_large`, `no_space`, those of the bytes; then there is no file. */
export async function writeVmlinux(
  bytes: AsyncIterable<Uint8Array>,
  target: string,
  room: Room = atMost(UNPACK_LIMITS.vmlinux),
): Promise<void> {
  const file = createWriteStream(target, { flags: 'wx', highWaterMark: 1024 * 1024 })
  try {
    await pipeline(metered(bytes, room), file)
  } catch (cause) {
    await rm(target, { force: true })
    if (cause instanceof GeneratorError) throw cause
    const { code, message } = cause as NodeJS.ErrnoException
    const full = code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG'
    throw new GeneratorError(full ? 'no_space' : 'corrupt_package', `vmlinux: ${message}`, {
      cause,
    })
  }
}

async function* metered(bytes: AsyncIterable<Uint8Array>, room: Room): AsyncGenerator<Uint8Array> {
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
): AsyncGenerator<Uint8Array> {
  const hash = createHash(algorithm)
  for await (const piece of bytes) {
    hash.update(piece)
    yield piece
  }
  if (hash.digest('hex') !== hex)
    throw new GeneratorError('digest_mismatch', 'vmlinux is not the file that the package lists')
}

/** Without the `./` that dpkg and rpm write. */
const normalize = (name: string): string => name.replace(/^(\.?\/)+/, '')
