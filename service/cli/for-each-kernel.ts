/*
 * A task for each of the kernels that a command was told, on all processors: to decompress and to hash a kernel's BTF
 * takes longer than what is done with it. The results come in the order of the kernels.
 */
import { availableParallelism } from 'node:os'
import { mapOrdered } from '../concurrency.ts'
import { Pool } from '../threads/pool.ts'
import type { BtfInput, Tasks } from '../threads/worker.ts'
import { type ChosenKernel, type KernelError, kernelErrorOf } from './input.ts'

/** All threads. */
export const ALL = availableParallelism()
/** Milliseconds and megabytes for what one's own objects ask of one kernel. */
const LIMITS = { threads: ALL, time: 120_000, memory: 2048 }
/** Kernels that are read while as many as there are threads are worked on. */
const AHEAD = 1

/** What a task came to for a kernel, of whose BTF there are `of` bytes. */
export type Swept<T> = { kernel: ChosenKernel } & (
  | { of: number; value: T }
  | { error: KernelError }
)

/** Does work in a pool. So many threads start at once: they take as long as the catalog to load. */
export async function withPool<T>(ready: number, work: (pool: Pool) => Promise<T>): Promise<T> {
  const pool = new Pool({ ...LIMITS, ready })
  try {
    return await work(pool)
  } finally {
    await pool.close()
  }
}

/** Does a task of `worker.ts` for each kernel. Errors: those that say nothing of one kernel alone. */
export function sweep<K extends 'minimize' | 'check'>(
  pool: Pool,
  name: K,
  kernels: readonly ChosenKernel[],
  objects: readonly Uint8Array[],
): AsyncGenerator<Swept<ReturnType<Tasks[K]>>> {
  return mapOrdered(kernels, pool.threads + AHEAD, async (kernel) => {
    try {
      const btf = await kernel.read()
      const of = 'frame' in btf ? btf.size : btf.length
      const value = await pool.run(name, { objects, btf }, undefined, wholeBuffers(btf))
      return { kernel, of, value }
    } catch (cause) {
      return { kernel, error: kernelErrorOf(cause) }
    }
  })
}

/** The buffer of a frame that nobody else has: that of a small one may be a piece of Node's. */
function wholeBuffers(btf: BtfInput): ArrayBuffer[] {
  const bytes = 'frame' in btf ? btf.frame : btf
  const { buffer, byteLength } = bytes
  return buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? [buffer] : []
}
