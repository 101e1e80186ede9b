/*
 * The compression of a bundle: one compressor for the whole archive, with a window that still covers the preceding
 * kernels. gzip and zstd run in this process, xz is its own program. The output depends on the input only. The first
 * chunk is flushed at once, so that a client gets its first bytes early.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Readable, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { constants, createGzip, createZstdCompress } from 'node:zlib'
import { boundToParent } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import type { BundleCompression } from './profile.ts'

const MIB = 1024 ** 2

/** The limits of the decoders: 64 MiB in Datadog's agent, 128 MiB in `zstd -d`. */
const MAX_WINDOW = { xz: 64 * MIB, zstd: 128 * MIB }
/** The encoder of xz allocates 11 times its dictionary. */
const MIN_WINDOW = MIB

/** The default of node:zlib, 16 KiB, is four times slower. */
const CHUNK = 256 * 1024

/**
 * Compresses a stream. `size` is an estimate of its bytes, and determines the window, up to `largest`. Closing the result stops the
 * compressor. Errors: those of the source; `internal` if xz fails.
 */
export function compress(
  source: AsyncIterable<Uint8Array>,
  compression: BundleCompression,
  size: number,
  largest: number = MAX_WINDOW.zstd,
): AsyncIterable<Uint8Array> {
  switch (compression) {
    case 'none':
      return source
    case 'gz':
      return through(source, createGzip({ level: 9, chunkSize: CHUNK }))
    case 'zstd':
      return through(
        source,
        createZstdCompress({ params: zstdParams(size, largest), chunkSize: CHUNK }),
      )
    case 'xz':
      return xz(source, windowFor(size, Math.min(MAX_WINDOW.xz, largest)))
    default:
      return compression satisfies never
  }
}

/** The smallest power of two that covers `size`, between `MIN_WINDOW` and `max`; all in bytes. */
function windowFor(size: number, max: number): number {
  let window = MIN_WINDOW
  while (window < size && window < max) window *= 2
  return window
}

function zstdParams(size: number, largest: number): Record<number, number> {
  return {
    [constants.ZSTD_c_compressionLevel]: 19,
    [constants.ZSTD_c_windowLog]: Math.log2(
      windowFor(size, Math.min(MAX_WINDOW.zstd, 2 * largest)),
    ),
    [constants.ZSTD_c_enableLongDistanceMatching]: 1,
    [constants.ZSTD_c_checksumFlag]: 1,
    // the default tables of level 19 take half a gigabyte
    [constants.ZSTD_c_chainLog]: 22,
    [constants.ZSTD_c_hashLog]: 22,
  }
}

interface Compressor extends Transform {
  flush(done: () => void): void
}

async function* through(
  source: AsyncIterable<Uint8Array>,
  compressor: Compressor,
): AsyncGenerator<Uint8Array> {
  const feeding = pipeline(async function* () {
    let first = true
    for await (const chunk of source) {
      yield chunk
      if (first) await new Promise<void>((done) => compressor.flush(done))
      first = false
    }
  }, compressor)
  feeding.catch(() => {}) // reading the compressor throws the same error
  yield* compressor
  await feeding
}

/** Compresses the first chunk as its own .xz stream: xz cannot flush, and an .xz file may have several streams. */
async function* xz(source: AsyncIterable<Uint8Array>, window: number): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]()
  try {
    const first = await iterator.next()
    if (!first.done) yield* runXz([first.value], MIN_WINDOW)
    yield* runXz({ [Symbol.asyncIterator]: () => iterator }, window)
  } finally {
    await iterator.return?.()
  }
}

/** Runs xz with a dictionary of `window` bytes. */
async function* runXz(
  source: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  window: number,
): AsyncGenerator<Uint8Array> {
  const args = ['--stdout', '--threads=1', '--check=crc64', `--lzma2=preset=6,dict=${window}`]
  const child = spawn(...boundToParent('xz', args), { stdio: ['pipe', 'pipe', 'ignore'] })
  const ended = once(child, 'close')
  ended.catch(() => {}) // awaited below
  const feeding = pipeline(Readable.from(source, { objectMode: false }), child.stdin)
  feeding.catch(() => {}) // awaited below
  try {
    yield* child.stdout
    const [status] = await ended
    await feeding
    if (status !== 0) throw new ServiceError('internal', `xz failed with status ${status}`)
  } finally {
    child.kill('SIGKILL')
  }
}
