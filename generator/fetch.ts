/*
 * A package on its way in: one pass over its bytes, which are hashed from the first to the last and unpacked as far
 * as vmlinux. Who waits for vmlinux has it while the rest is still being hashed.
 */
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { PassThrough, type Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type DownloadOptions, download } from './download.ts'
import { GeneratorError } from './error.ts'
import type { Job } from './job.ts'
import { unpackVmlinux } from './unpack.ts'

/** Most that is read of a file whose size no index tells, in bytes; Debian's largest packages have 1 GB. */
const MAX_FILE = 16 * 1024 ** 3

export interface Fetched {
  /** resolves when `target` is whole; rejects as `unpackVmlinux` does */
  vmlinux: Promise<void>
  /**
   * Resolves when the package is: `whole` when every byte was read and is what the index promised, `prefix` when
   * reading ended early as asked. Errors: `digest_mismatch`, `truncated`, `too_large`, those of `download`.
   */
  done: Promise<{ read: number; sha256?: string; authenticated: 'whole' | 'prefix' }>
}

export interface FetchOptions extends DownloadOptions {
  /** end the download when vmlinux is whole */
  earlyStop: boolean
  onProgress(read: number): void
}

/** Starts reading a job's package and writing its vmlinux to `target`. Errors: those of `download`. */
export async function fetchVmlinux(
  job: Job,
  target: string,
  options: FetchOptions,
): Promise<Fetched> {
  const { body, size } = await download(job.package.url, options)
  const feed = new PassThrough({ highWaterMark: 256 * 1024 })
  const vmlinux = consume(job, feed, target).finally(() => feed.destroy())
  const done = readAll(job, body, size, feed, vmlinux, options).finally(() => body.destroy())
  vmlinux.catch(() => {}) // whoever asks for either hears of it
  done.catch(() => {})
  return { vmlinux, done }
}

async function consume(job: Job, feed: Readable, target: string): Promise<void> {
  if (job.format === 'deb') await unpackVmlinux(feed, job.vmlinux, target)
  else await pipeline(feed, createWriteStream(target, { flags: 'wx' }))
}

async function readAll(
  { package: { size: promised }, checksum }: Job,
  body: Readable,
  announced: number | undefined,
  feed: PassThrough,
  vmlinux: Promise<void>,
  { earlyStop, onProgress }: FetchOptions,
): ReturnType<() => Fetched['done']> {
  const hash = createHash('sha256')
  const other =
    checksum && checksum.algorithm !== 'sha256' ? createHash(checksum.algorithm) : undefined
  let read = 0
  let unpacked = false
  vmlinux.then(
    () => {
      unpacked = true
    },
    () => {}, // a package that does not unpack is read to its end: its digest tells whose fault that is
  )
  try {
    for await (const piece of body as AsyncIterable<Buffer>) {
      read += piece.length
      if (read > (promised ?? MAX_FILE)) throw tooLong(promised)
      hash.update(piece)
      other?.update(piece)
      onProgress(read)
      if (unpacked && earlyStop) return { read, authenticated: 'prefix' }
      await write(feed, piece)
    }
  } catch (error) {
    feed.destroy(error as Error)
    throw error
  }
  feed.end()
  const wanted = promised ?? announced
  if (wanted !== undefined && read < wanted) {
    const error = new GeneratorError(
      'truncated',
      `the package ends after ${read} of ${wanted} bytes`,
    )
    feed.destroy(error)
    throw error
  }
  const sha256 = hash.digest('hex')
  const found = checksum?.algorithm === 'sha256' ? sha256 : other?.digest('hex')
  if (found !== checksum?.hex) {
    const name = checksum?.algorithm.replace('sha', 'SHA-')
    const says = `the package has ${name} ${found}, the index says ${checksum?.hex}`
    throw new GeneratorError('digest_mismatch', says)
  }
  return { read, sha256, authenticated: 'whole' }
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
