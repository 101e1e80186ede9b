/*
 * Compressing a bundle: one compressor over everything, with a window so long that it still sees the kernels before.
 * gzip and zstd in process, xz by its own program. The bytes depend on the input alone. The first piece is compressed
 * and let go by itself, so that whoever waits knows that something comes.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Readable, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { constants, createGzip, createZstdCompress } from 'node:zlib'
import { ServiceError } from '../error.ts'
import type { BundleCompression } from './profile.ts'

const MIB = 1024 ** 2

/** What every reader of a profile takes: Datadog's agent no more than 64 MiB, `zstd -d` no more than 128. */
const MAX_WINDOW = { xz: 64 * MIB, zstd: 128 * MIB }
/** xz takes 11 times its dictionary. */
const MIN_WINDOW = MIB

/** zlib's own default is a quarter of the speed. */
const CHUNK = 256 * 1024

/**
 * The compressed bytes. `size` is about how many will come, by which the window is chosen. Ending early ends the
 * compressor. Errors: the source's; `internal` where xz fails or is not installed.
 */
export function compress(
  source: AsyncIterable<Uint8Array>,
  compression: BundleCompression,
  size: number,
): AsyncIterable<Uint8Array> {
  switch (compression) {
    case 'none':
      return source
    case 'gz':
      return through(source, createGzip({ level: 9, chunkSize: CHUNK }))
    case 'zstd':
      return through(source, createZstdCompress({ params: zstdParams(size), chunkSize: CHUNK }))
    case 'xz':
      return xz(source, windowFor(size, MAX_WINDOW.xz))
    default:
      return compression satisfies never
  }
}

/** A power of two, no larger than what is to come. */
function windowFor(size: number, most: number): number {
  let window = MIN_WINDOW
  while (window < size && window < most) window *= 2
  return window
}

function zstdParams(size: number): Record<number, number> {
  return {
    [constants.ZSTD_c_compressionLevel]: 19,
    [constants.ZSTD_c_windowLog]: Math.log2(windowFor(size, MAX_WINDOW.zstd)),
    [constants.ZSTD_c_enableLongDistanceMatching]: 1,
    [constants.ZSTD_c_checksumFlag]: 1,
    // the level's own tables would take half a gigabyte
    [constants.ZSTD_c_chainLog]: 22,
    [constants.ZSTD_c_hashLog]: 22,
  }
}

interface Flushing extends Transform {
  flush(done: () => void): void
}

async function* through(
  source: AsyncIterable<Uint8Array>,
  compressor: Flushing,
): AsyncGenerator<Uint8Array> {
  const feeding = pipeline(async function* () {
    let first = true
    for await (const piece of source) {
      yield piece
      if (first) await new Promise<void>((done) => compressor.flush(done))
      first = false
    }
  }, compressor)
  feeding.catch(() => {}) // whoever reads the compressor hears of it
  yield* compressor
  await feeding
}

/** The first piece is an .xz stream of its own: xz has no other way to let it go, and a file may have several. */
async function* xz(source: AsyncIterable<Uint8Array>, window: number): AsyncGenerator<Uint8Array> {
  const pieces = source[Symbol.asyncIterator]()
  try {
    const first = await pieces.next()
    if (!first.done) yield* runXz([first.value], MIN_WINDOW)
    yield* runXz({ [Symbol.asyncIterator]: () => pieces }, window)
  } finally {
    await pieces.return?.()
  }
}

/** `preset` says how hard it looks; `dict` how far back. */
async function* runXz(
  source: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  window: number,
): AsyncGenerator<Uint8Array> {
  const args = ['--stdout', '--threads=1', '--check=crc64', `--lzma2=preset=6,dict=${window}`]
  const child = spawn('xz', args, { stdio: ['pipe', 'pipe', 'ignore'] })
  const ended = once(child, 'close')
  ended.catch(() => {}) // told below
  const feeding = pipeline(Readable.from(source, { objectMode: false }), child.stdin)
  feeding.catch(() => {}) // either the source failed, which is told below, or xz did
  try {
    yield* child.stdout
    const [status] = await ended
    await feeding
    if (status !== 0) throw new ServiceError('internal', `xz ended with ${status}`)
  } finally {
    child.kill('SIGKILL')
  }
}
