/*
 * Tells whether BTF is that of a whole kernel. Every type is decoded, and there must be a plausible task_struct, as every
 * kernel has. Where a name has several layouts, libbpf takes all of them for candidates and may refuse to load a program as
 * ambiguous. Every kernel has such names; for the structs that most programs read it is an error.
 *
 * BTF has no release in it. Its byte order, its size of pointers and the registers of `pt_regs` tell the architecture.
 */
import { ambiguousStructs } from './ambiguity.ts'
import { type Btf, parseBtf } from './btf.ts'
import type { ByteOrder } from './bytes.ts'
import { constantsOf } from './constant.ts'
import { BtfError } from './error.ts'
import { memberBits, sizeOf } from './layout.ts'
import type { Member, StructType } from './type.ts'

/** The size of task_struct in bytes: no kernel has had a smaller or larger one. */
const TASK_STRUCT = { min: 512, max: 64 * 1024 }

/** Structs that most programs read. The kernel's source has one definition of each. */
const CORE_STRUCTS = [
  ...['cred', 'dentry', 'file', 'inode', 'linux_binprm', 'mm_struct', 'net_device', 'nsproxy'],
  ...['pid', 'signal_struct', 'sk_buff', 'sock', 'super_block', 'task_struct'],
]

/** The number of ambiguous names that are listed. */
const MAX_AMBIGUOUS = 16

/** The share of task_struct that its members must cover; the rest is padding. Minimised BTF keeps few members. */
const MIN_COVERAGE = 0.5

/** A description of a kernel's BTF, without its bytes. */
export interface KernelBtf {
  /** raw bytes */
  size: number
  /** number of types, without void */
  types: number
  /** the kinds that occur, as UAPI names without `BTF_KIND_`, in the order of their numbers */
  kinds: string[]
  byteOrder: ByteOrder
  pointerSize: 4 | 8
  /** names of several structs or unions with different layouts, and the first of them; absent if there are none */
  ambiguous?: { count: number; names: string[] }
}

/**
 * Checks raw BTF of a kernel, and describes it. With `arch`, a name of `uname -m`, it must be of that architecture; names
 * that the table lacks are not compared. `isPartial` allows BTF made from headers. Errors: those of `parseBtf`;
 * `not_kernel`, `ambiguous_types`.
 */
export function describeKernelBtf(
  raw: Uint8Array,
  arch?: string,
  { isPartial = false } = {},
): KernelBtf {
  const btf = parseBtf(raw)
  for (const _ of btf.types());
  checkTask(btf)
  if (!isPartial) checkWhole(btf)
  const ambiguous = checkAmbiguity(btf)
  if (arch !== undefined) checkArch(btf, arch)
  const { typeCount: types, byteOrder, pointerSize } = btf
  const described = { size: raw.length, types, kinds: btf.kinds(), byteOrder, pointerSize }
  return ambiguous ? { ...described, ambiguous } : described
}

function checkAmbiguity(btf: Btf): KernelBtf['ambiguous'] {
  const names = ambiguousStructs(btf)
  const core = names.filter((name) => CORE_STRUCTS.includes(name))
  if (core.length > 0)
    throw new BtfError(
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

/**
 * Refuses BTF made from headers, in which much is only declared. Since Linux 3.10, task_struct points to a sched_class, which
 * kernel/sched/sched.h defines: it is in every kernel's BTF, and in no header of a package.
 */
function checkWhole(btf: Btf): void {
  if (btf.find('sched_class', 'STRUCT') === undefined && btf.find('sched_class', 'FWD'))
    throw notKernel('struct sched_class is only declared, as in partial BTF made from headers')
}

function bytesOf(btf: Btf, struct: StructType, member: Member): number {
  const { size: bits } = memberBits(btf, struct, member)
  return bits > 0 ? bits / 8 : (sizeOf(btf, member.type) ?? 0)
}

interface ArchTraits {
  readonly byteOrder: ByteOrder
  readonly pointerSize: 4 | 8
  /** a register that only this architecture's `struct pt_regs` has (arch/*\/include/asm/ptrace.h) */
  readonly register: string
}

const little = (pointerSize: 4 | 8, register: string): ArchTraits => ({
  byteOrder: 'little',
  pointerSize,
  register,
})

/** By `uname -m` name. */
const ARCHITECTURES: Readonly<Record<string, ArchTraits>> = {
  x86_64: little(8, 'r15'),
  i686: little(4, 'orig_ax'),
  aarch64: little(8, 'pstate'),
  armv7l: little(4, 'uregs'),
  armv5tel: little(4, 'uregs'),
  ppc64le: little(8, 'nip'),
  s390x: { byteOrder: 'big', pointerSize: 8, register: 'gprs' },
  riscv64: little(8, 'epc'),
  loongarch64: little(8, 'csr_era'),
}

function checkArch(btf: Btf, arch: string): void {
  const expected = Object.hasOwn(ARCHITECTURES, arch) ? ARCHITECTURES[arch]! : undefined
  if (!expected) return
  const { byteOrder, pointerSize, register } = expected
  if (btf.byteOrder !== byteOrder)
    throw otherArch(arch, `it is ${btf.byteOrder}-endian, not ${byteOrder}-endian`)
  if (btf.pointerSize !== pointerSize)
    throw otherArch(arch, `its pointers have ${btf.pointerSize} bytes, not ${pointerSize}`)
  const [whole, member] = constantsOf(btf, ['struct pt_regs', `struct pt_regs.${register}`])
  // minimised kernels of tests have no pt_regs
  if (whole!.kind === 'size' && member!.kind === 'missing')
    throw otherArch(arch, `struct pt_regs has no ${register}`)
}

const otherArch = (arch: string, why: string): BtfError =>
  notKernel(`it is not one of ${arch}: ${why}`)

const notKernel = (why: string): BtfError =>
  new BtfError('not_kernel', `the BTF is not a kernel's: ${why}`)
