/*
 * Decompression of a stream: xz by its own program, which decodes the blocks of Debian's packages on all cores that are
 * free, what is rare by its own, too, gzip and zstd in process. Ending early is usual: whoever has what it wants
 * destroys the result.
 */
import { type Duplex, PassThrough, pipeline, Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { GeneratorError } from '../error.ts'
import { keepEnd, spareCores, start } from '../subprocess.ts'

export const COMPRESSIONS = ['none', 'gz', 'xz', 'lzma', 'zst', 'bz2', 'lz4', 'lzo'] as const
export type Compression = (typeof COMPRESSIONS)[number]

/**
 * The first bytes of each, in hex; an .lzma begins with the properties that its encoder writes, an .lz4 as the kernel's
 * build makes it, in the older form.
 */
const MAGIC: Readonly<Record<string, Compression>> = {
  '1f8b': 'gz',
  fd377a585a00: 'xz',
  '5d0000': 'lzma',
  '28b52ffd': 'zst',
  '425a68': 'bz2',
  '02214c18': 'lz4',
  '894c5a4f000d': 'lzo',
}
/** How many bytes tell a compression. */
export const MAGIC_SIZE = 6

/** zstd's default of 64 KiB makes it four times slower. */
const CHUNK = { chunkSize: 256 * 1024 }

/**
 * Bytes that a decompressor may take. A file names its dictionary's size, up to 4 GiB; Debian's take 65 MiB a thread, so
 * that this is good for three or four threads, and those give more than tar's reader takes.
 */
export const DECOMPRESSOR_MEMORY = 256 * 1024 ** 2

/** The compression that a file name's ending names. Errors: `unsupported_package`. */
export function compressionOf(name: string): Compression {
  const ending = /\.(\w+)$/.exec(name)?.[1] ?? ''
  const compression = COMPRESSIONS.find((known) => known === ending)
  if (compression) return compression
  if (ending === 'tar') return 'none'
  throw new GeneratorError('unsupported_package', `no compression we read: ${name}`)
}

/** The compression that the first bytes (`MAGIC_SIZE` of them) tell: `none` where it is none that we know. */
export function compressionIn(start: Uint8Array): Compression {
  const hex = Buffer.from(start).toString('hex')
  const [, compression = 'none'] =
    Object.entries(MAGIC).find(([magic]) => hex.startsWith(magic)) ?? []
  return compression
}

/** How to decompress. */
interface DecompressOptions {
  /** only the first stream, whatever follows it: of xz, since the others stop there by themselves */
  first?: boolean
}

/**
 * The decompressed bytes. The stream fails with `invalid_package`, with `aborted` where somebody ends the program, with
 * `too_large` where xz would take too much memory, or as the source does.
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
      return through(input, createGunzip(CHUNK))
    case 'zst':
      return through(input, createZstdDecompress(CHUNK))
    case 'xz':
    case 'lzma':
      return byProgram(input, 'xz', [
        `--threads=${spareCores()}`,
        `--memlimit-decompress=${DECOMPRESSOR_MEMORY}`,
        `--memlimit-mt-decompress=${DECOMPRESSOR_MEMORY}`,
        ...(first ? ['--single-stream'] : []),
      ])
    case 'bz2':
      return byProgram(input, 'bzip2', [])
    case 'lz4':
      return byProgram(input, 'lz4', [])
    case 'lzo':
      return byProgram(input, 'lzop', [])
    default:
      return compression satisfies never
  }
}

/** The bytes, and `too_large` where they are more than `limit`; `what` names them. */
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

function byProgram(input: Readable, program: string, options: readonly string[]): Readable {
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
  child.stdin.on('error', () => {}) // EPIPE: its exit status says why
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
    else output.destroy(refusal(stderr() || `${program} ended with ${status}`))
  })
  return output
}

/** Sent by others, such as a terminal or the kernel that needs memory: the package is not to blame. */
const STOPPING: ReadonlySet<NodeJS.Signals> = new Set(['SIGHUP', 'SIGINT', 'SIGKILL', 'SIGTERM'])

/** What a program says, as an error. */
function refusal(log: string): GeneratorError {
  return /memory usage limit/i.test(log) ? new GeneratorError('too_large', log) : corrupt(log)
}

const corrupt = (message: string, cause?: Error): GeneratorError =>
  new GeneratorError('invalid_package', `it does not decompress: ${message}`, { cause })
