// The lower bound of minimizing BTF from a store: decompress the zstd of all kernels and read each word once, in as many
// threads, and nothing more.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { zstdDecompressSync } from 'node:zlib'

export interface Frame {
  frame: Uint8Array
  /** size of the raw BTF in bytes */
  size: number
}

/** Returns the seconds that each pass over all frames takes. */
export async function floor(
  frames: readonly Frame[],
  threads: number,
  passes: number,
): Promise<number[]> {
  const shares = Array.from({ length: threads }, (_, n) =>
    frames.filter((_, i) => i % threads === n),
  )
  const workers = shares.map((share) => new Worker(import.meta.filename, { workerData: share }))
  const done = () =>
    workers.map((worker) => new Promise((resolve) => worker.once('message', resolve)))
  const times: number[] = []
  for (let pass = 0; pass < passes; pass++) {
    const started = performance.now()
    for (const worker of workers) worker.postMessage('go')
    await Promise.all(done())
    times.push((performance.now() - started) / 1000)
  }
  await Promise.all(workers.map((worker) => worker.terminate()))
  return times
}

/** Reads each word once. */
export function touch(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let sum = 0
  for (let at = 0; at + 4 <= bytes.length; at += 4) sum ^= view.getUint32(at, true)
  return sum
}

if (!isMainThread)
  parentPort!.on('message', () => {
    let sum = 0
    for (const { frame, size } of workerData as Frame[]) {
      const raw = zstdDecompressSync(frame, { maxOutputLength: size, chunkSize: size + 64 })
      sum ^= touch(raw)
      raw.buffer.transfer(0)
    }
    parentPort!.postMessage(sum)
  })
