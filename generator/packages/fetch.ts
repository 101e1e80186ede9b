/*
 * A package on its way in: one pass over its bytes, which are hashed from the first to the last and unpacked as far
 * as vmlinux and the modules that are wanted. Who waits for vmlinux has it while the rest is still being hashed.
 */
import { createHash } from 'node:crypto'
import { PassThrough, type Readable } from 'node:stream'
import { GeneratorError } from '../error.ts'
import type { Checksum } from '../sources/source.ts'
import { type DownloadOptions, download } from './download.ts'
import type { ModuleFile } from './module.ts'
import { type OpenPackage, openPackage, type PackageFile } from './package-format.ts'
import type { Destination } from './unpack.ts'

/** Most that is read of a file whose size no index tells, in bytes; Debian's largest packages have 1 GB. */
const MAX_FILE = 16 * 1024 ** 3

export interface Fetched {
  /** resolves when vmlinux is whole; rejects as `Container.unpack` does */
  vmlinux: Promise<void>
  /** resolves when all that is wanted is; rejects as `Container.unpack` does */
  modules: Promise<ModuleFile[]>
  /**
   * Resolves when the package is: `whole` when every byte was read and is what the index promised, `prefix` when
   * reading ended early as asked. Errors: `digest_mismatch`, `truncated`, `too_large`, those of `download`, and those of
   * `openContainer`.
   */
  done: Promise<PackageReceipt>
}

export interface PackageReceipt {
  /** bytes of the package */
  read: number
  sha256?: string
  authenticated: 'whole' | 'prefix'
  /** by one of the job's keys */
  signed: boolean
}

export interface PackageFetchOptions extends DownloadOptions {
  /** end the download when what is wanted is whole */
  earlyStop: boolean
  onProgress(read: number): void
}

/** Starts reading a job's package and writing what is wanted of it. Errors: those of `download`. */
export async function fetchVmlinux(
  file: PackageFile,
  to: Omit<Destination, 'whole'>,
  options: PackageFetchOptions,
): Promise<Fetched> {
  const { body, size } = await download(file.package.url, options)
  const bytes = new PackageStream(file, body, size, options.onProgress)
  const opening = openPackage(file, bytes, options.signal)
  const feed = new PassThrough({ highWaterMark: 256 * 1024 })
  const vmlinux = Promise.withResolvers<void>()
  const modules = opening
    .then(({ unpack }) => unpack(feed, { ...to, whole: vmlinux.resolve }))
    .finally(() => {
      feed.destroy()
    })
  modules.catch(vmlinux.reject)
  const done = readAll(bytes, opening, feed, modules, options).finally(() => body.destroy())
  vmlinux.promise.catch(() => {}) // whoever asks for one of them hears of it
  done.catch(() => {})
  return { vmlinux: vmlinux.promise, modules, done }
}

/** A package's bytes as they come in: counted, hashed, and at their end compared with what was promised of them. */
class PackageStream {
  read = 0
  /** of all bytes, when they have been read and are what they should be */
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

  /** What has not been read yet, whoever read the rest. */
  [Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    return this.#pieces
  }

  async *#receive(
    body: Readable,
    { size, announced, checksum }: Promised,
    onProgress: (read: number) => void,
  ): AsyncGenerator<Buffer> {
    const hash = createHash('sha256')
    const other =
      checksum && checksum.algorithm !== 'sha256' ? createHash(checksum.algorithm) : undefined
    for await (const piece of body as AsyncIterable<Buffer>) {
      this.read += piece.length
      if (this.read > (size ?? MAX_FILE)) throw tooLong(size)
      hash.update(piece)
      other?.update(piece)
      onProgress(this.read)
      yield piece
    }
    const wanted = size ?? announced
    if (wanted !== undefined && this.read < wanted) {
      const says = `the package ends after ${this.read} of ${wanted} bytes`
      throw new GeneratorError('truncated', says)
    }
    const sha256 = hash.digest('hex')
    const found = checksum?.algorithm === 'sha256' ? sha256 : other?.digest('hex')
    if (found !== checksum?.hex) {
      const name = checksum?.algorithm.replace('sha', 'SHA-')
      const says = `the package has ${name} ${found}, the index says ${checksum?.hex}`
      throw new GeneratorError('digest_mismatch', says)
    }
    this.sha256 = sha256
  }
}

/** What is said of a package before it comes. */
interface Promised {
  /** bytes, as the index has them, and as its server announces them */
  size: number | undefined
  announced: number | undefined
  checksum: Checksum | undefined
}

/** Reads a package to its end: one that does not open or unpack, too, since its digest tells whose fault that is. */
async function readAll(
  bytes: PackageStream,
  opening: Promise<OpenPackage>,
  feed: PassThrough,
  unpacking: Promise<unknown>,
  { earlyStop }: PackageFetchOptions,
): Promise<PackageReceipt> {
  const container = await opening.catch(() => undefined)
  const signed = container?.signed ?? false
  let unpacked = false
  unpacking.then(
    () => {
      unpacked = true
    },
    () => {},
  )
  try {
    for await (const piece of container?.rest ?? bytes) {
      if (unpacked && earlyStop) return { read: bytes.read, authenticated: 'prefix', signed }
      await write(feed, piece)
    }
  } catch (error) {
    feed.destroy(error as Error)
    throw error
  }
  feed.end()
  const { read, sha256 } = bytes
  if (sha256 === undefined) throw await opening.catch((error) => error) // opening it met their error
  return { read, sha256, authenticated: 'whole', signed }
}

/** A body longer than it may be: reading on would tell nothing more, and may never end. */
function tooLong(promised: number | undefined): GeneratorError {
  return promised === undefined
    ? new GeneratorError('too_large', `the file has more than ${MAX_FILE} bytes`)
    : new GeneratorError('digest_mismatch', `the package has more than ${promised} bytes`)
}

/** Writes with back-pressure; to a feed that nobody reads any more it writes nothing. */
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
