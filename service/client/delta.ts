/*
 * BTF as the difference from BTF that the cache has. The client names digests in `have`, those of its kernel's series
 * first, and a service that has one of them may answer with a delta, a few kilobytes in place of a megabyte. The result is
 * compared with its digest like any other BTF. Whatever is wrong with a delta, the client asks again without `have`.
 */
import { type Dirent, constants as fs } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import type { IncomingHttpHeaders } from 'node:http'
import { join } from 'node:path'
import { applyDelta } from '../../bpf/index.ts'
import {
  compareVersions,
  encodeName,
  flavourOf,
  type KernelName,
  sha256Of,
} from '../../storage/index.ts'
import { type CheckedBytes, decompressFrame, MAX_BTF } from './body.ts'

/** The media type of a delta: bpf/delta.md in one zstd frame. */
export const DELTA_TYPE = 'application/vnd.btfmill.delta+zstd'
/** Headers of a delta: the SHA-256 of the BTF that it continues, and of the result. */
export const DELTA_PARENT = 'btfmill-delta-parent'
export const DELTA_RESULT = 'btfmill-delta-result'
/** The most digests that a client names: of its series, and of other kernels of its distribution. */
export const MAX_HAVE = 8
const MAX_SERIES = 5
/** Directories of the cache that are looked at. */
const MAX_RELEASES = 2000

/** A file of the cache that is named after the SHA-256 of its BTF. */
export interface CachedBtf {
  sha256: string
  path: string
}

/** The BTF in a cache that is nearest to a kernel's, the nearest first. */
export async function cachedNear(root: string, kernel: KernelName): Promise<CachedBtf[]> {
  const { distro, version, arch, release } = kernel
  const directory = join(root, ...[distro, version, arch].map(encodeName))
  const names = (await entriesOf(directory)).slice(0, MAX_RELEASES).map(({ name }) => name)
  const [own = [], others = []] = [true, false].map((isOwn) =>
    nearest(names, encodeName(release)).filter(
      (name) => (flavourOf(name) === flavourOf(release)) === isOwn,
    ),
  )
  const found: CachedBtf[] = []
  for (const [names, limit] of [
    [own, MAX_SERIES],
    [others, MAX_HAVE],
  ] as const)
    for (const name of names) {
      if (found.length >= limit) break
      const [first] = await filesBelow(join(directory, name))
      if (first && !found.some(({ sha256 }) => sha256 === first.sha256)) found.push(first)
    }
  return found
}

/** Names in the order of their distance from one, by the order of versions. */
function nearest(names: readonly string[], wanted: string): string[] {
  const sorted = [...new Set([...names, wanted])].sort(compareVersions)
  const at = sorted.indexOf(wanted)
  const order = new Map(sorted.map((name, n) => [name, Math.abs(n - at)]))
  return [...names].sort((a, b) => order.get(a)! - order.get(b)!)
}

/**
 * The files with BTF of one kernel: in a directory for each build, and below it for each public key; other directories have
 * BTF in dialects.
 */
async function filesBelow(directory: string, isKernel = true): Promise<CachedBtf[]> {
  const found: CachedBtf[] = []
  for (const entry of (await entriesOf(directory)).slice(0, MAX_HAVE)) {
    const path = join(directory, entry.name)
    const [, sha256] = /^([0-9a-f]{64})\.btf$/.exec(entry.name) ?? []
    if (sha256 !== undefined && entry.isFile()) found.push({ sha256, path })
    else if (entry.isDirectory() && (isKernel || entry.name.startsWith('by-')))
      found.push(...(await filesBelow(path, false)))
  }
  return found
}

const entriesOf = async (directory: string): Promise<Dirent[]> =>
  await readdir(directory, { withFileTypes: true }).catch(() => [])

/** Tells whether a response is a delta. */
export const isDelta = (headers: IncomingHttpHeaders): boolean =>
  headers['content-type'] === DELTA_TYPE

/** The BTF that a delta makes of a file of the cache; undefined if it does not make what its header names. */
export async function readDelta(
  frame: Buffer,
  headers: IncomingHttpHeaders,
  have: readonly CachedBtf[],
): Promise<CheckedBytes | undefined> {
  const parent = have.find(({ sha256 }) => sha256 === headers[DELTA_PARENT])
  if (!parent) return undefined
  try {
    const before = await readRegular(parent.path)
    if (sha256Of(before) !== parent.sha256) return undefined
    const delta = await decompressFrame(frame)
    const made = applyDelta(delta, before, { maxSize: MAX_BTF })
    const raw = Buffer.from(made.buffer, made.byteOffset, made.length)
    const sha256 = sha256Of(raw)
    return sha256 === headers[DELTA_RESULT] ? { raw, sha256 } : undefined
  } catch {
    return undefined // the file is gone, or the delta is not one
  }
}

/** Reads a file, but no link, pipe or device, and no more than `MAX_BTF` bytes. Errors: the system's; `RangeError`. */
export async function readRegular(path: string): Promise<Buffer> {
  const file = await open(path, fs.O_RDONLY | fs.O_NOFOLLOW | fs.O_NONBLOCK)
  try {
    const stat = await file.stat()
    if (!stat.isFile() || stat.size > MAX_BTF) throw new RangeError(`${path} is not BTF`)
    return await file.readFile()
  } finally {
    await file.close()
  }
}
