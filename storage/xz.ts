/* xz, by the system's program: nothing in process is both kept well and fast. */
import { execFile } from 'node:child_process'
import { StoreError } from './error.ts'

const SECONDS = 120

/** One thread and a named level, so that equal input gives equal bytes. Errors: `unsupported` without xz. */
export const compressXz = (bytes: Uint8Array, maxSize: number, signal?: AbortSignal) =>
  run(['--compress', '-6', '--threads=1', '--check=crc64'], bytes, maxSize, signal)

/** Errors: `digest_mismatch` for what does not decode or is larger than `maxSize` bytes; `unsupported` without xz. */
export const decompressXz = (bytes: Uint8Array, maxSize: number, signal?: AbortSignal) =>
  run(['--decompress', '--memlimit=256MiB'], bytes, maxSize, signal)

/** The version of the program, on which the bytes of what it compresses depend. Errors: `unsupported` without xz. */
export async function xzVersion(): Promise<string> {
  const said = await run(['--version'], Buffer.alloc(0), 1024, undefined)
  return said.toString('utf8').split('\n', 1)[0]!
}

function run(
  args: readonly string[],
  bytes: Uint8Array,
  maxSize: number,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      'xz',
      ['--stdout', ...args],
      {
        encoding: 'buffer',
        maxBuffer: maxSize,
        timeout: SECONDS * 1000,
        killSignal: 'SIGKILL',
        ...(signal && { signal }),
      },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout)
        if (signal?.aborted) return reject(signal.reason)
        const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
        const why = missing ? 'is not installed' : stderr.toString('utf8').trim() || error.message
        reject(
          new StoreError(missing ? 'unsupported' : 'digest_mismatch', `xz: ${why.slice(0, 200)}`),
        )
      },
    )
    child.stdin?.on('error', () => {}) // it ended early; how is told above
    child.stdin?.end(bytes)
  })
}
