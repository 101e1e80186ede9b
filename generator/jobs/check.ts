/*
 * The checks before publishing, with our own BTF reader, since wrong BTF is worse than none. Every type is decoded.
 * vmlinux must be of the kernel that its package names. The BTF must have a plausible task_struct, as every kernel has.
 * Where a name has several layouts, libbpf takes all of them for candidates and may refuse to load a program as
 * ambiguous. Every kernel has such names; they are recorded. For the structs that most programs read it is a failure.
 */
import {
  ambiguousStructs,
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
import type { Job } from './job.ts'

/** The size of task_struct in bytes: no kernel has had a smaller or larger one. */
const TASK_STRUCT = { min: 512, max: 64 * 1024 }

/** Structs that most programs read. The kernel's source has one definition of each. */
const CORE_STRUCTS = [
  ...['cred', 'dentry', 'file', 'inode', 'linux_binprm', 'mm_struct', 'net_device', 'nsproxy'],
  ...['pid', 'signal_struct', 'sk_buff', 'sock', 'super_block', 'task_struct'],
]

/** The number of ambiguous names that a record lists. */
const MAX_AMBIGUOUS = 16

/** The share of task_struct that its members must cover; the rest is padding. Minimised BTF keeps few members. */
const MIN_COVERAGE = 0.5

/**
 * Decides where the BTF of an image comes from: its own if it has any, otherwise pahole; `from` allows only one of
 * them. Errors: `no_dwarf`; `no_btf` if there is neither, but only the kernel's own was to be expected.
 */
export function originOf(
  { ownBtf, hasDwarf }: Vmlinux,
  { from, role = 'debug' }: Pick<Job, 'from' | 'role'> = {},
): 'pahole' | 'embedded' {
  if (ownBtf && from !== 'debug') return 'embedded'
  if (hasDwarf && from !== 'embedded') return 'pahole'
  if (role === 'debug' && from !== 'embedded')
    throw new GeneratorError('no_dwarf', 'vmlinux has no .debug_info')
  throw new GeneratorError(
    'no_btf',
    'vmlinux has no .BTF: the kernel was built without CONFIG_DEBUG_INFO_BTF',
  )
}

/** Checks that an image is of a kernel, as far as its name is known. Errors: `kernel_mismatch`. */
export function checkVmlinux(vmlinux: Vmlinux, kernel: Partial<KernelName>): void {
  const compare = (part: string, found?: string, wanted?: string) => {
    if (found !== undefined && wanted !== undefined && found !== wanted)
      throw new GeneratorError('kernel_mismatch', `vmlinux has ${part} ${found}, not ${wanted}`)
  }
  compare('release', vmlinux.release, kernel.release)
  compare('architecture', vmlinux.arch, kernel.arch)
}

/**
 * Checks a kernel's raw BTF, against its image if given. Returns the record's part about it. Errors: `invalid_btf`,
 * `ambiguous_types`.
 */
export function checkBtf(
  raw: Uint8Array,
  vmlinux?: Pick<Vmlinux, 'byteOrder' | 'pointerSize'>,
): Omit<BtfInfo, 'sha256'> {
  try {
    const btf = parseBtf(raw)
    for (const _ of btf.types());
    if (vmlinux && btf.byteOrder !== vmlinux.byteOrder)
      throw notKernel(`it is ${btf.byteOrder}-endian, vmlinux is ${vmlinux.byteOrder}-endian`)
    if (vmlinux && btf.pointerSize !== vmlinux.pointerSize)
      throw notKernel(
        `its pointers have ${btf.pointerSize} bytes, those of vmlinux ${vmlinux.pointerSize}`,
      )
    checkTask(btf)
    const ambiguous = checkAmbiguity(btf)
    const { typeCount: types, byteOrder, pointerSize } = btf
    const info = { size: raw.length, types, kinds: btf.kinds(), byteOrder, pointerSize }
    return ambiguous ? { ...info, ambiguous } : info
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('invalid_btf', `the BTF is invalid: ${cause.message}`, { cause })
  }
}

/**
 * Checks a module's split BTF over the kernel's; it may have no types of its own. Returns the record's part about it.
 * Errors: `invalid_btf`.
 */
export function checkModuleBtf(raw: Uint8Array, base: Btf): Omit<ModuleInfo, 'sha256'> {
  try {
    const btf = parseBtf(raw, { base })
    for (const _ of btf.types());
    if (btf.byteOrder !== base.byteOrder)
      throw new GeneratorError(
        'invalid_btf',
        `the module's BTF is ${btf.byteOrder}-endian, the kernel's is ${base.byteOrder}-endian`,
      )
    return { size: raw.length, types: btf.typeCount }
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('invalid_btf', `the module's BTF is invalid: ${cause.message}`, {
      cause,
    })
  }
}

function checkAmbiguity(btf: Btf): BtfInfo['ambiguous'] {
  const names = ambiguousStructs(btf)
  const core = names.filter((name) => CORE_STRUCTS.includes(name))
  if (core.length > 0)
    throw new GeneratorError(
      'ambiguous_types',
      `the BTF has structs of one name with different layouts, which libbpf refuses as ambiguous: ${core.join(', ')}`,
    )
  if (names.length === 0) return undefined
  return { count: names.length, names: names.slice(0, MAX_AMBIGUOUS) }
}

function checkTask(btf: Btf): void {
  const id = btf.find('task_struct', 'STRUCT')
  const task = id === undefined ? undefined : btf.type(id)
  if (task?.kind !== 'STRUCT') throw notKernel('it has no struct task_struct')
  if (task.size < TASK_STRUCT.min || task.size > TASK_STRUCT.max)
    throw notKernel(
      `task_struct has ${task.size} bytes, not ${TASK_STRUCT.min} to ${TASK_STRUCT.max}`,
    )
  for (const name of ['pid', 'tgid']) {
    if (!task.members.some((member) => member.name === name))
      throw notKernel(`task_struct has no ${name}`)
  }
  const covered = task.members.reduce((sum, member) => sum + bytesOf(btf, task, member), 0)
  if (covered < task.size * MIN_COVERAGE)
    throw notKernel(
      `the members of task_struct cover ${covered} of its ${task.size} bytes, as in minimised BTF`,
    )
}

function bytesOf(btf: Btf, struct: StructType, member: Member): number {
  const { size: bits } = memberBits(btf, struct, member)
  return bits > 0 ? bits / 8 : (sizeOf(btf, member.type) ?? 0)
}

function notKernel(why: string): GeneratorError {
  return new GeneratorError('invalid_btf', `the BTF is not a kernel's: ${why}`)
}
