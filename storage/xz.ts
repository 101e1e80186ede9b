/* xz, by the system's program: no library for Node is both fast and well maintained. */
import { execFile } from 'node:child_process'
import { boundToParent } from './child.ts'
import { StoreError } from './error.ts'

/** In seconds. */
const TIMEOUT = 120

/**
 * Compresses bytes to at most `maxSize` bytes. One thread and a fixed level make equal input give equal bytes. Errors:
 * `digest_mismatch`; `unsupported` if xz is not installed.
 */
export const compressXz = (bytes: Uint8Array, maxSize: number, signal?: AbortSignal) =>
  run(['--compress', '-6', '--threads=1', '--check=crc64'], bytes, maxSize, signal)

/**
 * Decompresses bytes. Errors: `digest_mismatch` if they do not decode, or to more than `maxSize` bytes; `unsupported`
 * if xz is not installed.
 */
export const decompressXz = (bytes: Uint8Array, maxSize: number, signal?: AbortSignal) =>
  run(['--decompress', '--memlimit=256MiB'], bytes, maxSize, signal)

/**
 * The first line of `xz --version`; compressed bytes depend on the version. Errors: `unsupported` if xz is not
 * installed.
 */
export async function xzVersion(): Promise<string> {
  const output = await run(['--version'], Buffer.alloc(0), 1024, undefined)
  return output.toString('utf8').split('\n', 1)[0]!
}

function run(
  args: readonly string[],
  bytes: Uint8Array,
  maxSize: number,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      ...boundToParent('xz', ['--stdout', ...args]),
      {
        encoding: 'buffer',
        maxBuffer: maxSize,
        timeout: TIMEOUT * 1000,
        killSignal: 'SIGKILL',
        ...(signal && { signal }),
      },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout)
        if (signal?.aborted) return reject(signal.reason)
        const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
        const reason = missing
          ? 'is not installed'
          : stderr.toString('utf8').trim() || error.message
        reject(
          new StoreError(
            missing ? 'unsupported' : 'digest_mismatch',
            `xz: ${reason.slice(0, 200)}`,
          ),
        )
      },
    )
    child.stdin?.on('error', () => {}) // xz ended early; its exit status is reported above
    child.stdin?.end(bytes)
  })
}
