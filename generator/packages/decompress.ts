/*
 * Decompression of streams: gzip and zstd in process, other formats by their programs. xz as a program decodes the
 * blocks of Debian's packages on all free cores. Ending early is normal: a reader that has what it wants destroys the
 * result.
 */
import { type Duplex, PassThrough, pipeline, Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { GeneratorError } from '../error.ts'
import { keepEnd, spareCores, start } from '../subprocess.ts'

export const COMPRESSIONS = ['none', 'gz', 'xz', 'lzma', 'zst', 'bz2', 'lz4', 'lzo'] as const
export type Compression = (typeof COMPRESSIONS)[number]

/**
 * The first bytes of each format in hex. For .lzma these are the usual properties of its encoder. lz4 has two: of the
 * legacy format, which the kernel's build uses, and of the frame format, which the program writes by default.
 */
const MAGIC: Readonly<Record<string, Compression>> = {
  '1f8b': 'gz',
  fd377a585a00: 'xz',
  '5d0000': 'lzma',
  '28b52ffd': 'zst',
  '425a68': 'bz2',
  '02214c18': 'lz4',
  '04224d18': 'lz4',
  '894c5a4f000d': 'lzo',
}
/** The number of first bytes that identify a compression. */
export const MAGIC_SIZE = 6

/** With zstd's default of 64 KiB, decompression is four times slower. */
const CHUNK = { chunkSize: 256 * 1024 }

/**
 * Bytes of memory that a decompressor may use. A file sets the size of its dictionary, up to 4 GiB. Debian's packages
 * take 65 MiB per thread, so the limit allows three or four threads, which are faster than the tar reader.
 */
export const DECOMPRESSOR_MEMORY = 256 * 1024 ** 2

/** The compression that a file name's extension stands for. Errors: `unsupported_package`. */
export function compressionOf(name: string): Compression {
  const extension = /\.(\w+)$/.exec(name)?.[1] ?? ''
  const compression = COMPRESSIONS.find((known) => known === extension)
  if (compression) return compression
  if (extension === 'tar') return 'none'
  throw new GeneratorError(
    'unsupported_package',
    `${name}: unsupported compression: expected one of ${COMPRESSIONS.join(', ')}`,
  )
}

/** The compression that the first `MAGIC_SIZE` bytes identify; `none` if they match no known format. */
export function compressionIn(start: Uint8Array): Compression {
  const hex = Buffer.from(start).toString('hex')
  const [, compression = 'none'] =
    Object.entries(MAGIC).find(([magic]) => hex.startsWith(magic)) ?? []
  return compression
}

interface DecompressOptions {
  /**
   * decompress the first stream only, and ignore what follows; needed for xz, since other programs stop there anyway
   */
  first?: boolean
}

/**
 * Decompresses a stream. Errors of the result: `invalid_package`, `unsupported_package` if the program is not
 * installed, `aborted` if a signal ends the program, `too_large` if xz would need too much memory; those of the source.
 */
export function decompress(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  compression: Compression,
  { first = false }: DecompressOptions = {},
): Readable {
  const input = Readable.from(source, { objectMode: false })
  switch (compression) {
    case 'none':
      return input
    case 'gz':
      return throughDecoder(input, createGunzip(CHUNK))
    case 'zst':
      return throughDecoder(input, createZstdDecompress(CHUNK))
    case 'xz':
    case 'lzma':
      return throughProgram(input, 'xz', [
        `--threads=${spareCores()}`,
        `--memlimit-decompress=${DECOMPRESSOR_MEMORY}`,
        `--memlimit-mt-decompress=${DECOMPRESSOR_MEMORY}`,
        ...(first ? ['--single-stream'] : []),
      ])
    case 'bz2':
      return throughProgram(input, 'bzip2', [])
    case 'lz4':
      return throughProgram(input, 'lz4', [])
    case 'lzo':
      return throughProgram(input, 'lzop', [])
    default:
      return compression satisfies never
  }
}

/** Passes bytes on, and fails with `too_large` after `limit` bytes; `what` is their name in the message. */
export async function* capped(
  source: AsyncIterable<Uint8Array>,
  limit: number,
  what: string,
): AsyncGenerator<Uint8Array> {
  let size = 0
  for await (const piece of source) {
    size += piece.length
    if (size > limit) throw new GeneratorError('too_large', `${what} has more than ${limit} bytes`)
    yield piece
  }
}

function throughDecoder(input: Readable, decoder: Duplex): Readable {
  let failure: Error | undefined
  input.once('error', (error) => {
    failure = error
  })
  pipeline(input, decoder, () => {}) // the reader of the decoder sees the error
  const decoded = async function* () {
    try {
      yield* decoder
    } catch (error) {
      // An error that destroys the result arrives here, too.
      if (error instanceof GeneratorError) throw error
      throw failure ?? invalidData((error as Error).message, error as Error)
    }
  }
  return Readable.from(decoded(), { objectMode: false, highWaterMark: CHUNK.chunkSize })
}

function throughProgram(input: Readable, program: string, options: readonly string[]): Readable {
  const child = start(program, ['--decompress', '--stdout', '--quiet', ...options])
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
  child.stdin.on('error', () => {}) // EPIPE; the exit status has the reason
  input.pipe(child.stdin)
  child.stdout.pipe(output, { end: false })
  child.once('error', (cause) => {
    failure = new GeneratorError('unsupported_package', `${program} is not installed`, { cause })
    output.destroy(failure)
  })
  child.once('close', (status, signal) => {
    if (failure) output.destroy(failure)
    else if (status === 0) output.end()
    else if (signal && STOPPING.has(signal))
      output.destroy(new GeneratorError('aborted', `${program} was ended by ${signal}`))
    else output.destroy(programError(stderr() || `${program} ended with status ${status}`))
  })
  return output
}

/** Signals from outside, such as a terminal or the kernel's OOM killer: the package is not at fault. */
const STOPPING: ReadonlySet<NodeJS.Signals> = new Set(['SIGHUP', 'SIGINT', 'SIGKILL', 'SIGTERM'])

/** Turns the standard error of a program into an error. */
function programError(log: string): GeneratorError {
  return /memory usage limit/i.test(log) ? new GeneratorError('too_large', log) : invalidData(log)
}

const invalidData = (message: string, cause?: Error): GeneratorError =>
  new GeneratorError('invalid_package', `the data does not decompress: ${message}`, { cause })
