/*
 * Runs a task for each kernel of a command, on all processors: to decompress and hash a kernel's BTF takes longer than
 * the task itself. The results come in the order of the kernels.
 */

import { availableParallelism } from 'node:os'
import type { Dialect, KernelConstant } from '../../bpf/index.ts'
import { isDamagedObject, mapOrdered } from '../../storage/index.ts'
import { decidingFacts, type KernelFacts } from '../kernel/lookup.ts'
import { modulesFor, readModules } from '../threads/modules.ts'
import { Pool } from '../threads/pool.ts'
import { type FindAlike, SharedAnswers, sharingInputs } from '../threads/shared-answers.ts'
import type { BtfInput, ObjectSummary, Tasks, TracedAnswer } from '../threads/worker.ts'
import { type ChosenKernel, type KernelError, kernelErrorOf } from './input.ts'

/** The number of threads that keeps all processors busy. */
export const ALL = availableParallelism()
/** Limits for one kernel, in milliseconds and megabytes: generous, since the objects are the user's own. */
const LIMITS = { threads: ALL, time: 120_000, memory: 2048 }
/** Bytes of answers that are kept for kernels that share them. */
const SHARED = 64 * 1024 * 1024
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

/** What a task for each kernel gets, besides its objects. */
export interface SweepTask {
  more?: KernelFacts
  dialect?: Dialect | undefined
  /** tells which kernels have the same answer, where the store has an index */
  findAlike?: FindAlike | undefined
}

const TRACED = { minimize: 'tracedMinimize', check: 'tracedCheck' } as const

/** Runs a task of `worker.ts` with objects for each kernel. Errors: those that do not concern one kernel alone. */
export function sweep<K extends 'minimize' | 'check'>(
  pool: Pool,
  name: K,
  kernels: readonly ChosenKernel[],
  objects: readonly Uint8Array[],
  { more = {}, dialect, findAlike }: SweepTask = {},
): AsyncGenerator<Swept<ReturnType<Tasks[K]>>> {
  type Answer = ReturnType<Tasks[K]>
  let summed: Promise<ObjectSummary[]> | undefined
  const some = async (what: 'usesFunctions' | 'usesRelease'): Promise<boolean> => {
    summed ??= pool.run('open', { objects })
    return (await summed).some((one) => one[what])
  }
  const taskFor = async (kernel: ChosenKernel, btf: BtfInput) => {
    const named = name === 'check' && kernel.functions && (await some('usesFunctions'))
    const functions = named ? await kernel.functions?.() : undefined
    return { objects, btf, functions, facts: { ...(await kernel.facts?.()), ...more }, dialect }
  }
  /** `needsModules` is undefined if that is not known */
  const runAlone = async (kernel: ChosenKernel, btf: BtfInput, needsModules?: boolean) => {
    const readers = (await kernel.modules?.()) ?? []
    const query = { objects, btf, symbols: name === 'check' }
    const modules = needsModules
      ? await readModules(readers, (read) => read())
      : await modulesFor(pool, query, readers, (read) => read())
    const task = { ...(await taskFor(kernel, btf)), modules }
    return await pool.run(name, task, undefined, [btf, ...modules].flatMap(wholeBuffers))
  }
  const readers = new Map(kernels.map(({ stored, read }) => [stored?.btf.sha256, read]))
  const shared = findAlike && new SharedAnswers<Answer>(findAlike, SHARED, sizeOf)
  const inputsOf = async (kernel: ChosenKernel) => {
    if (name === 'minimize') return { inputs: '' }
    const all = { ...(await kernel.facts?.()), ...more }
    const { facts, version } = sharingInputs(decidingFacts(all, await some('usesRelease')))
    const symbols = (await some('usesFunctions')) ? kernel.stored?.symbols?.sha256 : undefined
    return { inputs: JSON.stringify([facts, symbols]), version }
  }
  return forEachKernel(pool, kernels, async (kernel) => {
    const { stored } = kernel
    if (!shared || !stored) {
      const btf = await kernel.read()
      return { of: bytesOf(btf), value: (await runAlone(kernel, btf)) as Answer }
    }
    const { btf: info, hasModules } = stored
    const { sha256, size } = info
    const sharing = { sha256, size, hasModules, ...(await inputsOf(kernel)) }
    const value = await shared.answer(sharing, {
      traced: async (of) => {
        const btf = await (of.sha256 === sha256 ? kernel.read : readers.get(of.sha256)!)()
        const task = { ...(await taskFor(kernel, btf)), hasModules }
        const answer = await pool.run(TRACED[name], task, undefined, wholeBuffers(btf))
        return answer as TracedAnswer<Answer>
      },
      withModules: async () => (await runAlone(kernel, await kernel.read(), true)) as Answer,
    })
    return { of: size, value }
  })
}

const sizeOf = (answer: Uint8Array | readonly string[]): number =>
  answer instanceof Uint8Array
    ? answer.length
    : answer.reduce((sum, { length }) => sum + 2 * length, 0)

/** Looks up the constants of a list for each kernel. Errors: those that do not concern one kernel alone. */
export const sweepConstants = (
  pool: Pool,
  kernels: readonly ChosenKernel[],
  entries: readonly (readonly string[])[],
): AsyncGenerator<Swept<KernelConstant[]>> =>
  forEachKernel(pool, kernels, async ({ read }) => {
    const btf = await read()
    const of = bytesOf(btf)
    const value = await pool.run('constants', { btf, entries }, undefined, wholeBuffers(btf))
    return { of, value }
  })

/** Calls `work` for each kernel, ahead of the reader of the results. */
function forEachKernel<T>(
  pool: Pool,
  kernels: readonly ChosenKernel[],
  work: (kernel: ChosenKernel) => Promise<{ of: number; value: T }>,
): AsyncGenerator<Swept<T>> {
  return mapOrdered(kernels, pool.threads + AHEAD, async (kernel): Promise<Swept<T>> => {
    try {
      return await work(kernel)
        .catch((error: unknown) => {
          if (!kernel.checked || !isDamagedObject(error)) throw error
          return work({ ...kernel, ...kernel.checked }) // another pack may have it
        })
        .then((done) => ({ kernel, ...done }))
    } catch (cause) {
      return { kernel, error: kernelErrorOf(cause) }
    }
  })
}

/** The bytes of raw BTF. */
const bytesOf = (btf: BtfInput): number => (btf instanceof Uint8Array ? btf.length : btf.size)

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
