/*
 * The last look before publishing, with our own reader: a wrong BTF is worse than none. Every type is decoded; the
 * image must be of the kernel that its package claims; what every kernel has must be there.
 */
import {
  type Btf,
  BtfError,
  type Member,
  memberBits,
  parseBtf,
  type StructType,
  sizeOf,
  type Vmlinux,
} from '../../bpf/index.ts'
import type { BtfInfo, KernelName, ModuleInfo } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'

/** No kernel's task_struct was ever smaller or larger, in bytes. */
const TASK_STRUCT = { least: 512, most: 64 * 1024 }

/** The part of task_struct that its members take at least; the rest are holes. Minimised BTF keeps few of them. */
const COVERED = 0.5

/**
 * Where an image's BTF comes from: what it has of its own where that is wanted or there is nothing else, else pahole.
 * Errors: `no_btf`, `no_dwarf`.
 */
export function originOf(
  { ownBtf, hasDwarf }: Vmlinux,
  wanted: 'pahole' | 'embedded',
): 'pahole' | 'embedded' {
  if (ownBtf && (wanted === 'embedded' || !hasDwarf)) return 'embedded'
  if (hasDwarf) return 'pahole'
  if (wanted === 'embedded')
    throw new GeneratorError('no_btf', 'the kernel was built without BTF of its own')
  throw new GeneratorError('no_dwarf', 'vmlinux has no .debug_info')
}

/** Whether the image is of that kernel. Errors: `kernel_mismatch`. */
export function checkVmlinux(vmlinux: Vmlinux, kernel: Partial<KernelName>): void {
  const differ = (what: string, is?: string, wanted?: string) => {
    if (is !== undefined && wanted !== undefined && is !== wanted) {
      throw new GeneratorError('kernel_mismatch', `vmlinux is of ${what} ${is}, not ${wanted}`)
    }
  }
  differ('release', vmlinux.release, kernel.release)
  differ('architecture', vmlinux.arch, kernel.arch)
}

/** What a record keeps of raw BTF, all of it looked at; of this image, where it is at hand. Errors: `invalid_btf`. */
export function checkBtf(
  raw: Uint8Array,
  vmlinux?: Pick<Vmlinux, 'byteOrder' | 'pointerSize'>,
): Omit<BtfInfo, 'sha256'> {
  try {
    const btf = parseBtf(raw)
    for (const _ of btf.types());
    if (vmlinux && btf.byteOrder !== vmlinux.byteOrder)
      throw notKernel(`it is ${btf.byteOrder}-endian, vmlinux is not`)
    if (vmlinux && btf.pointerSize !== vmlinux.pointerSize)
      throw notKernel(`its pointers have ${btf.pointerSize} bytes`)
    checkTask(btf)
    const { typeCount: types, byteOrder, pointerSize } = btf
    return { size: raw.length, types, kinds: btf.kinds(), byteOrder, pointerSize }
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('invalid_btf', `the BTF does not read: ${cause.message}`, { cause })
  }
}

/** What a record keeps of a module's split BTF over the kernel's, all of it looked at. Errors: `invalid_btf`. */
export function checkModuleBtf(raw: Uint8Array, base: Btf): Omit<ModuleInfo, 'sha256'> {
  try {
    const btf = parseBtf(raw, { base })
    for (const _ of btf.types());
    if (btf.byteOrder !== base.byteOrder)
      throw new GeneratorError(
        'invalid_btf',
        "the module's BTF has another byte order than the kernel's",
      )
    if (btf.typeCount === 0)
      throw new GeneratorError('invalid_btf', "the module's BTF has no types")
    return { size: raw.length, types: btf.typeCount }
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('invalid_btf', `the module's BTF does not read: ${cause.message}`, {
      cause,
    })
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
  const covered = task.members.reduce((sum, member) => sum + bytesOf(btf, task, member), 0)
  if (covered < task.size * COVERED)
    throw notKernel(
      `task_struct's members are ${covered} of its ${task.size} bytes: it was minimised`,
    )
}

function bytesOf(btf: Btf, struct: StructType, member: Member): number {
  const { size: bits } = memberBits(btf, struct, member)
  return bits > 0 ? bits / 8 : (sizeOf(btf, member.type) ?? 0)
}

function notKernel(why: string): GeneratorError {
  return new GeneratorError('invalid_btf', `the BTF is not a kernel's: ${why}`)
}
