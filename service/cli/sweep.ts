/* Runs a task for each kernel of a command: here for those of a store, and on a service for those that it has. */
import type { Dialect } from '../../bpf/index.ts'
import type { StoreError } from '../../storage/index.ts'
import type { FormFile } from '../client/remote.ts'
import type { KernelFacts } from '../kernel/lookup.ts'
import type { Pool } from '../threads/pool.ts'
import type { Tasks } from '../threads/worker.ts'
import { alikeIn } from './alike.ts'
import { ALL, type Swept, sweep } from './for-each-kernel.ts'
import {
  chosenKernels,
  type FilterOptions,
  filterOf,
  type KernelFlags,
  openSource,
  type SourceOptions,
  serverOf,
} from './input.ts'

/** The options of a command that runs a task for each of its kernels. */
export type SweepOptions = SourceOptions & FilterOptions & KernelFlags & { dialect?: Dialect }

/** The threads to start at once: one kernel needs one, and so do the objects that a service works on. */
export const threadsFor = ({ btf, server }: SweepOptions): number =>
  btf === undefined && !server ? ALL : 1

/**
 * Runs a task for each kernel of a command: here, or on the service that has the kernels. Invalid records go to
 * `onInvalid`. Errors: those of `chosenKernels`, `sweep` and `sweepOn`.
 */
export async function* sweepChosen<K extends 'minimize' | 'check'>(
  pool: Pool,
  name: K,
  objects: readonly FormFile[],
  options: SweepOptions,
  onInvalid: (error: StoreError) => void,
  more: KernelFacts = {},
): AsyncGenerator<Swept<ReturnType<Tasks[K]>>> {
  const server = options.btf === undefined ? await serverOf(options) : undefined
  if (server) {
    const { sweepOn } = await import('./sweep-on.ts') // a command over a store does not load it
    yield* sweepOn(server, name, objects, options, more)
  } else {
    const kernels = await chosenKernels(options, filterOf(options), onInvalid)
    const files = objects.map(({ bytes }) => bytes)
    const { dialect } = options
    const findAlike = kernels.length > 1 ? await alikeIn(await openSource(options)) : undefined
    yield* sweep(pool, name, kernels, files, { more, dialect, findAlike })
  }
}
