/*
 * Fetching a package: one pass over its bytes, which hashes all of them and unpacks vmlinux and the wanted modules.
 * vmlinux is available while the rest is still being hashed.
 */
import { createHash } from 'node:crypto'
import { PassThrough, type Readable } from 'node:stream'
import { GeneratorError } from '../error.ts'
import type { Checksum } from '../sources/source.ts'
import { type DownloadOptions, download } from './download.ts'
import type { ModuleFile } from './module.ts'
import { type OpenPackage, openPackage, type PackageFile } from './package-format.ts'
import type { Destination } from './unpack.ts'

/** Maximum bytes of a file whose size is not in an index. Debian's largest packages have 1 GB. */
const MAX_FILE = 16 * 1024 ** 3

export interface Fetched {
  /** resolves when vmlinux is written; rejects like `OpenPackage.unpack` */
  vmlinux: Promise<void>
  /** resolves when all wanted files are written; rejects like `OpenPackage.unpack` */
  modules: Promise<ModuleFile[]>
  /**
   * Resolves at the end of the package: `whole` if every byte was read and matches the index, `prefix` if reading ended
   * early on request. Errors: `digest_mismatch`, `truncated`, `too_large`; those of `download` and `openPackage`.
   */
  done: Promise<PackageReceipt>
}

export interface PackageReceipt {
  /** bytes of the package that were read */
  read: number
  sha256?: string
  authenticated: 'whole' | 'prefix'
  /** one of the job's keys signed the package */
  signed: boolean
}

export interface PackageFetchOptions extends DownloadOptions {
  /** end the download when all wanted files are written */
  earlyStop: boolean
  onProgress(read: number): void
}

/** Starts to download a package and to write its wanted files. Errors: those of `download`. */
export async function fetchVmlinux(
  file: PackageFile,
  to: Destination,
  options: PackageFetchOptions,
): Promise<Fetched> {
  const { body, size } = await download(file.package.url, options)
  const bytes = new PackageStream(file, body, size, options.onProgress)
  const opening = openPackage(file, bytes, options.signal)
  const feed = new PassThrough({ highWaterMark: 256 * 1024 })
  const vmlinux = Promise.withResolvers<void>()
  const onVmlinux = async () => {
    await to.onVmlinux?.()
    vmlinux.resolve()
  }
  const modules = opening
    .then(({ unpack }) => unpack(feed, { ...to, onVmlinux }))
    .finally(() => {
      feed.destroy()
    })
  modules.catch(vmlinux.reject)
  const done = readAll(bytes, opening, feed, modules, options).finally(() => body.destroy())
  vmlinux.promise.catch(() => {}) // the caller may await only one of the promises
  done.catch(() => {})
  return { vmlinux: vmlinux.promise, modules, done }
}

/** The bytes of a package as they arrive: counted, hashed, and at their end compared with the index. */
class PackageStream {
  read = 0
  /** of all bytes; set at their end, if they match */
  sha256: string | undefined
  readonly #pieces: AsyncGenerator<Buffer>

  constructor(
    { package: { size }, checksum }: PackageFile,
    body: Readable,
    announced: number | undefined,
    onProgress: (read: number) => void,
  ) {
    this.#pieces = this.#receive(body, { size, announced, checksum }, onProgress)
  }

  /** The bytes that no reader has read yet. */
  [Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    return this.#pieces
  }

  async *#receive(
    body: Readable,
    { size, announced, checksum }: ExpectedPackage,
    onProgress: (read: number) => void,
  ): AsyncGenerator<Buffer> {
    const hash = createHash('sha256')
    const other =
      checksum && checksum.algorithm !== 'sha256' ? createHash(checksum.algorithm) : undefined
    for await (const piece of body as AsyncIterable<Buffer>) {
      this.read += piece.length
      if (this.read > (size ?? MAX_FILE)) throw oversizeError(size)
      hash.update(piece)
      other?.update(piece)
      onProgress(this.read)
      yield piece
    }
    const expected = size ?? announced
    if (expected !== undefined && this.read < expected) {
      const message = `the package ends after ${this.read} of ${expected} bytes`
      throw new GeneratorError('truncated', message)
    }
    const sha256 = hash.digest('hex')
    const found = checksum?.algorithm === 'sha256' ? sha256 : other?.digest('hex')
    if (found !== checksum?.hex) {
      const name = checksum?.algorithm.replace('sha', 'SHA-')
      const message = `the package has ${name} ${found}, the index says ${checksum?.hex}`
      throw new GeneratorError('digest_mismatch', message)
    }
    this.sha256 = sha256
  }
}

/** What is known about a package before it arrives. */
interface ExpectedPackage {
  /** bytes, from the index */
  size: number | undefined
  /** bytes, from the server's headers */
  announced: number | undefined
  checksum: Checksum | undefined
}

/**
 * Reads a package to its end, even if it cannot be opened or unpacked: its digest tells whether the server is at fault.
 */
async function readAll(
  bytes: PackageStream,
  opening: Promise<OpenPackage>,
  feed: PassThrough,
  unpacking: Promise<unknown>,
  { earlyStop }: PackageFetchOptions,
): Promise<PackageReceipt> {
  const opened = await opening.catch(() => undefined)
  const signed = opened?.signed ?? false
  let unpacked = false
  unpacking.then(
    () => {
      unpacked = true
    },
    () => {},
  )
  try {
    for await (const piece of opened?.rest ?? bytes) {
      if (unpacked && earlyStop) return { read: bytes.read, authenticated: 'prefix', signed }
      await write(feed, piece)
    }
  } catch (error) {
    feed.destroy(error as Error)
    throw error
  }
  feed.end()
  const { read, sha256 } = bytes
  if (sha256 === undefined) throw await opening.catch((error) => error) // opening the package met the error of the bytes
  return { read, sha256, authenticated: 'whole', signed }
}

/** The error for a package that is too long. It is not read further, since it may have no end. */
function oversizeError(size: number | undefined): GeneratorError {
  return size === undefined
    ? new GeneratorError('too_large', `the file has more than ${MAX_FILE} bytes`)
    : new GeneratorError('digest_mismatch', `the package has more than ${size} bytes`)
}

/** Writes with back-pressure. Without a reader, nothing is written. */
async function write(feed: PassThrough, piece: Buffer): Promise<void> {
  if (feed.destroyed || feed.write(piece)) return
  await new Promise<void>((resolve) => {
    const done = () => {
      feed.off('drain', done).off('close', done)
      resolve()
    }
    feed.on('drain', done).on('close', done)
  })
}
