/*
 * The BTF of a kernel's modules for tasks with BPF objects. It is read only if an object needs a type that vmlinux lacks,
 * as libbpf does (src/libbpf.c `bpf_core_find_cands`): a kernel may have thousands of modules.
 */
import { mapOrdered } from '../../storage/index.ts'
import type { Pool } from './pool.ts'
import type { BtfInput, ModuleQuery } from './worker.ts'

/** Modules that are read at a time. */
const READS = 8

/** Reads the modules if the objects need any of their types. Errors: those of `Pool.run` and of `read`. */
export async function modulesFor<T>(
  pool: Pool,
  task: ModuleQuery,
  modules: readonly T[],
  read: (module: T) => Promise<BtfInput>,
  signal?: AbortSignal,
): Promise<BtfInput[]> {
  if (modules.length === 0 || !(await pool.run('modulesNeeded', task, signal))) return []
  return await readModules(modules, read)
}

/** Reads all modules. Errors: those of `read`. */
export async function readModules<T>(
  modules: readonly T[],
  read: (module: T) => Promise<BtfInput>,
): Promise<BtfInput[]> {
  return await Array.fromAsync(mapOrdered(modules, READS, read))
}
