/*
 * The checks before publishing, with our own BTF reader, since wrong BTF is worse than none. vmlinux must be of the
 * kernel that its package names. The BTF must be that of a whole kernel; names with several layouts are recorded.
 */
import { type Btf, BtfError, describeKernelBtf, parseBtf, type Vmlinux } from '../../bpf/index.ts'
import type { BtfInfo, KernelName, ModuleInfo } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { Job } from './job.ts'

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
 * Checks a kernel's raw BTF, against its image if given. Returns the record's part about it. `isPartial` allows BTF made
 * from headers. Errors: `invalid_btf`, `ambiguous_types`.
 */
export function checkBtf(
  raw: Uint8Array,
  vmlinux?: Pick<Vmlinux, 'byteOrder' | 'pointerSize'>,
  { isPartial = false } = {},
): Omit<BtfInfo, 'sha256'> {
  try {
    const found = describeKernelBtf(raw, undefined, { isPartial })
    if (vmlinux && found.byteOrder !== vmlinux.byteOrder)
      throw notKernel(`it is ${found.byteOrder}-endian, vmlinux is ${vmlinux.byteOrder}-endian`)
    if (vmlinux && found.pointerSize !== vmlinux.pointerSize)
      throw notKernel(
        `its pointers have ${found.pointerSize} bytes, those of vmlinux ${vmlinux.pointerSize}`,
      )
    return found
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    const { code, message } = cause
    if (code === 'ambiguous_types') throw new GeneratorError(code, message, { cause })
    const said = code === 'not_kernel' ? message : `the BTF is invalid: ${message}`
    throw new GeneratorError('invalid_btf', said, { cause })
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

function notKernel(why: string): GeneratorError {
  return new GeneratorError('invalid_btf', `the BTF is not a kernel's: ${why}`)
}
