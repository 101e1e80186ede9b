/* Small kernels in series, as C: what the index of declarations is tested with. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readBtf } from '../../bpf/index.ts'
import type { CatalogKernel } from '../../service/declarations/writer.ts'
import type { KernelName } from '../../storage/index.ts'
import { sha256Of } from '../../storage/index.ts'

/** What every small kernel has. */
const COMMON = `
  enum bpf_map_type { BPF_MAP_TYPE_UNSPEC, BPF_MAP_TYPE_HASH } map_type;
  enum bpf_func_id { BPF_FUNC_unspec, BPF_FUNC_map_lookup_elem, __BPF_FUNC_MAX_ID } func_id;
  typedef void (*btf_trace_sched_switch)(void *__data, int preempt, struct task_struct *prev);
  btf_trace_sched_switch trace;
`

/** BTF that clang makes of C, without DATASEC's neighbours: raw, as a kernel has it. */
export function compileBtf(folder: string, source: string, target = 'bpfel'): Buffer {
  const object = join(folder, 'source.o')
  const args = [`--target=${target}`, '-g', '-O2', '-x', 'c', '-c', '-o', object, '-']
  execFileSync('clang-19', args, { input: source, stdio: ['pipe', 'ignore', 'pipe'] })
  return Buffer.from(readBtf(readFileSync(object)).bytes)
}

/** The releases of a series, oldest first, with the C of each. */
export const SMALL_KERNELS: readonly (readonly [release: string, source: string])[] = [
  [
    '6.1.0-1-amd64',
    `struct task_struct { int pid; long state; struct task_struct *next; } task; ${COMMON}
     enum mode { MODE_A, MODE_B } mode;
     int vfs_read(int fd, char *to) { return fd + task.pid + mode + map_type + func_id + (trace != 0) + *to; }`,
  ],
  [
    '6.1.0-2-amd64',
    `struct task_struct { int flags, pid; long state; struct task_struct *next; } task; ${COMMON}
     enum mode { MODE_A, MODE_B } mode;
     int vfs_read(int fd, char *to) { return fd + task.pid + mode + map_type + func_id + (trace != 0) + *to; }`,
  ],
  [
    '6.1.0-10-amd64',
    `struct task_struct { int flags, pid; unsigned __state; struct task_struct *next; } task; ${COMMON}
     enum mode { MODE_A, MODE_C, MODE_B } mode; struct fresh { struct task_struct *task; } fresh;
     long vfs_read(int fd, char *to, long at) { return fd + task.pid + mode + map_type + func_id + (trace != 0) + *to + (fresh.task != 0); }`,
  ],
]

/** A kernel for the index, named by its release. */
export const kernelWith = (raw: Uint8Array, kernel: Partial<KernelName> = {}): CatalogKernel => {
  const name = {
    distro: 'debian',
    version: '12',
    arch: 'x86_64',
    release: '6.1.0-1-amd64',
    ...kernel,
  }
  return {
    key: `kernels/${Object.values(name).join('/')}/${sha256Of(raw).slice(0, 8)}.json`,
    kernel: name,
    build: null,
    packageVersion: '1',
    sha256: sha256Of(raw),
  }
}
