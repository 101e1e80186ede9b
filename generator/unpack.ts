/*
 * vmlinux out of a package, in one pass over its bytes: ar, decompressor, tar, file. Nothing else is written, and
 * nothing is read past vmlinux. Layouts move between releases, so a source names several paths; the first regular
 * file among them is taken, since symlinks to it come later still, or not at all.
 */
import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { extract } from 'tar-stream'
import { matchGlob } from '../storage/index.ts'
import { type ArMember, readAr } from './ar.ts'
import { compressionOf, decompress } from './decompress.ts'
import { GeneratorError } from './error.ts'

/** In bytes. */
export interface UnpackLimits {
  /** of vmlinux; the largest of a distribution have 1 GB */
  vmlinux: number
  /** of all that is unpacked on the way to it; Debian's largest packages have 5 GB */
  unpacked: number
}

const UNPACK_LIMITS: UnpackLimits = { vmlinux: 4 * 1024 ** 3, unpacked: 32 * 1024 ** 3 }

/**
 * Reads a .deb or .ddeb until vmlinux is whole and writes it to `target`; `paths` are globs. Errors: `no_vmlinux`, which says what was
 * looked for, `corrupt_package`, `truncated`, `unsupported_package`, `too_large`, `no_space`; then there is no file.
 */
export async function unpackVmlinux(
  source: AsyncIterable<Uint8Array>,
  paths: readonly string[],
  target: string,
  limits: UnpackLimits = UNPACK_LIMITS,
): Promise<void> {
  for await (const member of readAr(source)) {
    if (/^data\.tar(\.|$)/.test(member.name)) return await fromTar(member, paths, target, limits)
  }
  throw new GeneratorError('corrupt_package', 'the package has no data.tar')
}

async function fromTar(
  member: ArMember,
  paths: readonly string[],
  target: string,
  limits: UnpackLimits,
): Promise<void> {
  const plain = decompress(member.body, compressionOf(member.name))
  const tar = plain.pipe(extract())
  let unpacked = 0
  plain.once('error', (error) => tar.destroy(error))
  plain.on('data', (piece: Buffer) => {
    unpacked += piece.length
    if (unpacked > limits.unpacked) plain.destroy(tooLarge('the package', limits.unpacked))
  })
  try {
    for await (const entry of tar) {
      const name = normalize(entry.header.name)
      if (entry.header.type === 'file' && paths.some((path) => matchGlob(path, name))) {
        // streamx's types do not say that its streams can be iterated
        const bytes = entry as unknown as AsyncIterable<Uint8Array>
        return await writeVmlinux(bytes, entry.header.size, target, limits.vmlinux)
      }
      entry.resume()
    }
  } catch (cause) {
    if (cause instanceof GeneratorError) throw cause
    throw new GeneratorError(
      'corrupt_package',
      `its tar does not read: ${(cause as Error).message}`,
      { cause },
    )
  } finally {
    plain.destroy()
  }
  throw new GeneratorError('no_vmlinux', `the package has none of ${paths.join(', ')}`)
}

async function writeVmlinux(
  entry: AsyncIterable<Uint8Array>,
  size: number,
  target: string,
  limit: number,
): Promise<void> {
  if (size > limit) throw tooLarge('vmlinux', limit)
  try {
    await pipeline(entry, createWriteStream(target, { flags: 'wx', highWaterMark: 1024 * 1024 }))
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

/** Without the `./` that dpkg writes. */
const normalize = (name: string): string => name.replace(/^(\.?\/)+/, '')

const tooLarge = (what: string, limit: number): GeneratorError =>
  new GeneratorError('too_large', `${what} has more than ${limit} bytes`)
