/*
 * Decompression of a stream: xz by its own program, which decodes the blocks of Debian's packages on all cores, gzip
 * and zstd in process. Ending early is usual: whoever has what it wants destroys the result.
 */
import { spawn } from 'node:child_process'
import { type Duplex, PassThrough, pipeline, Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { keepEnd } from './child.ts'
import { GeneratorError } from './error.ts'

export const COMPRESSIONS = ['none', 'gz', 'xz', 'lzma', 'zst'] as const
export type Compression = (typeof COMPRESSIONS)[number]

/** zstd's default of 64 KiB makes it four times slower. */
const CHUNK = { chunkSize: 256 * 1024 }

/** Bytes that xz may take: a file names its dictionary's size, up to 4 GiB, and Debian's take 65 MiB a thread. */
const XZ_MEMORY = 1024 ** 3

/** The compression that a file name's ending names. Errors: `unsupported_package`. */
export function compressionOf(name: string): Compression {
  const ending = /\.(\w+)$/.exec(name)?.[1] ?? ''
  const compression = COMPRESSIONS.find((known) => known === ending)
  if (compression) return compression
  if (ending === 'tar') return 'none'
  throw new GeneratorError('unsupported_package', `no compression we read: ${name}`)
}

/**
 * The decompressed bytes. The stream fails with `corrupt_package`, with `too_large` where xz would take too much
 * memory, or as the source does.
 */
export function decompress(source: AsyncIterable<Uint8Array>, compression: Compression): Readable {
  const input = Readable.from(source, { objectMode: false })
  switch (compression) {
    case 'none':
      return input
    case 'gz':
      return through(input, createGunzip(CHUNK))
    case 'zst':
      return through(input, createZstdDecompress(CHUNK))
    case 'xz':
    case 'lzma':
      return xz(input)
    default:
      return compression satisfies never
  }
}

function through(input: Readable, decoder: Duplex): Readable {
  let failure: Error | undefined
  input.once('error', (error) => {
    failure = error
  })
  pipeline(input, decoder, () => {}) // whoever reads the decoder hears of it
  const explained = async function* () {
    try {
      yield* decoder
    } catch (error) {
      // what destroys the result comes by here, too
      if (error instanceof GeneratorError) throw error
      throw failure ?? corrupt((error as Error).message, error as Error)
    }
  }
  return Readable.from(explained(), { objectMode: false, highWaterMark: CHUNK.chunkSize })
}

function xz(input: Readable): Readable {
  const memory = `--memlimit-decompress=${XZ_MEMORY}`
  const child = spawn('xz', ['--decompress', '--stdout', '--threads=0', '--quiet', memory])
  const stderr = keepEnd(child)
  const output = new PassThrough({ highWaterMark: CHUNK.chunkSize })
  let failure: Error | undefined
  output.once('close', () => {
    input.destroy()
    child.kill('SIGKILL')
  })
  input.once('error', (error) => {
    failure = error
    child.kill('SIGKILL')
  })
  child.stdin.on('error', () => {}) // EPIPE: its exit status says why
  input.pipe(child.stdin)
  child.stdout.pipe(output, { end: false })
  child.once('error', (cause) => {
    failure = new GeneratorError('unsupported_package', 'xz is not installed', { cause })
    output.destroy(failure)
  })
  child.once('close', (status) => {
    if (failure) output.destroy(failure)
    else if (status === 0) output.end()
    else output.destroy(refusal(stderr() || `xz ended with ${status}`))
  })
  return output
}

/** What xz says, as an error. */
function refusal(log: string): GeneratorError {
  return /memory usage limit/i.test(log) ? new GeneratorError('too_large', log) : corrupt(log)
}

const corrupt = (message: string, cause?: Error): GeneratorError =>
  new GeneratorError('corrupt_package', `it does not decompress: ${message}`, { cause })
