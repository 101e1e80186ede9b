/*
 * The last look before publishing, with our own reader: a wrong BTF is worse than none. Every type is decoded; the
 * image must be of the kernel that its package claims; what every kernel has must be there.
 */
import { type Btf, BtfError, parseBtf, type Vmlinux } from '../bpf/index.ts'
import type { BtfInfo, KernelName } from '../storage/index.ts'
import { GeneratorError } from './error.ts'

/** No kernel's task_struct was ever smaller or larger, in bytes. */
const TASK_STRUCT = { least: 512, most: 64 * 1024 }

/** Whether the image is of that kernel. Errors: `wrong_kernel`, `no_dwarf`. */
export function checkVmlinux(vmlinux: Vmlinux, kernel: Partial<KernelName>): void {
  if (!vmlinux.hasDwarf) throw new GeneratorError('no_dwarf', 'vmlinux has no .debug_info')
  const differ = (what: string, is?: string, wanted?: string) => {
    if (is !== undefined && wanted !== undefined && is !== wanted) {
      throw new GeneratorError('wrong_kernel', `vmlinux is of ${what} ${is}, not ${wanted}`)
    }
  }
  differ('release', vmlinux.release, kernel.release)
  differ('architecture', vmlinux.arch, kernel.arch)
}

/** What a record keeps of raw BTF, all of it looked at. Errors: `bad_btf`. */
export function checkBtf(raw: Uint8Array, vmlinux: Vmlinux): Omit<BtfInfo, 'sha256'> {
  try {
    const btf = parseBtf(raw)
    for (const _ of btf.types());
    if (btf.byteOrder !== vmlinux.byteOrder)
      throw notKernel(`it is ${btf.byteOrder}-endian, vmlinux is not`)
    if (btf.pointerSize !== vmlinux.pointerSize)
      throw notKernel(`its pointers have ${btf.pointerSize} bytes`)
    checkTask(btf)
    const { typeCount: types, byteOrder, pointerSize } = btf
    return { size: raw.length, types, kinds: btf.kinds(), byteOrder, pointerSize }
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('bad_btf', `pahole's BTF does not read: ${cause.message}`, { cause })
  }
}

function checkTask(btf: Btf): void {
  const id = btf.find('task_struct', 'STRUCT')
  const task = id === undefined ? undefined : btf.type(id)
  if (task?.kind !== 'STRUCT') throw notKernel('it has no struct task_struct')
  if (task.size < TASK_STRUCT.least || task.size > TASK_STRUCT.most)
    throw notKernel(`task_struct has ${task.size} bytes`)
  for (const name of ['pid', 'tgid']) {
    if (!task.members.some((member) => member.name === name))
      throw notKernel(`task_struct has no ${name}`)
  }
}

function notKernel(why: string): GeneratorError {
  return new GeneratorError('bad_btf', `the BTF is not a kernel's: ${why}`)
}
