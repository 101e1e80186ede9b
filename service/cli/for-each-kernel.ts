/*
 * Runs a task for each kernel of a command, on all processors: to decompress and hash a kernel's BTF takes longer than
 * the task itself. The results come in the order of the kernels.
 */

import { availableParallelism } from 'node:os'
import type { Dialect, KernelConstant } from '../../bpf/index.ts'
import { isDamagedObject, mapOrdered } from '../../storage/index.ts'
import type { KernelFacts } from '../kernel/lookup.ts'
import { modulesFor } from '../threads/modules.ts'
import { Pool } from '../threads/pool.ts'
import type { BtfInput, Tasks } from '../threads/worker.ts'
import { type ChosenKernel, type KernelError, kernelErrorOf } from './input.ts'

/** The number of threads that keeps all processors busy. */
export const ALL = availableParallelism()
/** Limits for one kernel, in milliseconds and megabytes: generous, since the objects are the user's own. */
const LIMITS = { threads: ALL, time: 120_000, memory: 2048 }
/** Kernels to read ahead while every thread works on one. */
const AHEAD = 1

/** A kernel by its names. */
export type SweptKernel = Pick<ChosenKernel, 'name' | 'kernel' | 'build'>

/** The result of a task for a kernel, whose BTF has `of` bytes. */
export type Swept<T> = { kernel: SweptKernel } & ({ of: number; value: T } | { error: KernelError })

/** Calls `work` with a pool, then closes the pool. `ready` threads start at once: they load while the catalog does. */
export async function withPool<T>(ready: number, work: (pool: Pool) => Promise<T>): Promise<T> {
  const pool = new Pool({ ...LIMITS, minThreads: ready })
  try {
    return await work(pool)
  } finally {
    await pool.close()
  }
}

/** Runs a task of `worker.ts` with objects for each kernel. Errors: those that do not concern one kernel alone. */
export function sweep<K extends 'minimize' | 'check'>(
  pool: Pool,
  name: K,
  kernels: readonly ChosenKernel[],
  objects: readonly Uint8Array[],
  more: KernelFacts = {},
  dialect?: Dialect,
): AsyncGenerator<Swept<ReturnType<Tasks[K]>>> {
  let asked: Promise<boolean> | undefined
  const asks = (): Promise<boolean> => {
    asked ??= pool.run('open', { objects }).then((all) => all.some((one) => one.usesFunctions))
    return asked
  }
  return forEachKernel(pool, kernels, async (kernel, btf) => {
    const readers = (await kernel.modules?.()) ?? []
    const modules = await modulesFor(
      pool,
      { objects, btf, symbols: name === 'check' },
      readers,
      (read) => read(),
    )
    const named = name === 'check' && kernel.functions && (await asks())
    const functions = named ? await kernel.functions?.() : undefined
    const facts = { ...(await kernel.facts?.()), ...more }
    const task = { objects, btf, modules, functions, facts, dialect }
    return await pool.run(name, task, undefined, [btf, ...modules].flatMap(wholeBuffers))
  })
}

/** Looks up the constants of a list for each kernel. Errors: those that do not concern one kernel alone. */
export const sweepConstants = (
  pool: Pool,
  kernels: readonly ChosenKernel[],
  entries: readonly (readonly string[])[],
): AsyncGenerator<Swept<KernelConstant[]>> =>
  forEachKernel(pool, kernels, (_, btf) =>
    pool.run('constants', { btf, entries }, undefined, wholeBuffers(btf)),
  )

/** Calls `work` for each kernel, ahead of the reader of the results. */
function forEachKernel<T>(
  pool: Pool,
  kernels: readonly ChosenKernel[],
  work: (kernel: ChosenKernel, btf: BtfInput) => Promise<T>,
): AsyncGenerator<Swept<T>> {
  const workOn = async (kernel: ChosenKernel) => {
    const btf = await kernel.read()
    const of = btf instanceof Uint8Array ? btf.length : btf.size
    return { of, value: await work(kernel, btf) }
  }
  return mapOrdered(kernels, pool.threads + AHEAD, async (kernel): Promise<Swept<T>> => {
    try {
      return await workOn(kernel)
        .catch((error: unknown) => {
          if (!kernel.checked || !isDamagedObject(error)) throw error
          return workOn({ ...kernel, ...kernel.checked }) // another pack may have it
        })
        .then((done) => ({ kernel, ...done }))
    } catch (cause) {
      return { kernel, error: kernelErrorOf(cause) }
    }
  })
}

/** The buffers of BTF in which nothing else lies: small buffers are slices of Node's pool. */
function wholeBuffers(btf: BtfInput): ArrayBuffer[] {
  return partsOf(btf).flatMap(({ buffer, byteLength }) =>
    buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? [buffer] : [],
  )
}

function partsOf(btf: BtfInput): Uint8Array[] {
  if (btf instanceof Uint8Array) return [btf]
  return 'frame' in btf ? [btf.frame] : btf.steps.map(({ frame }) => frame)
}
