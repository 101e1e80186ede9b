/*
 * Flat kernel images (such as arch/arm64/boot/Image): the memory of the kernel as `objcopy -O binary` writes it, without
 * section or symbol tables. BTF, banner and build-id are found by their form, and accepted under strict conditions: the
 * BTF parses and has a `task_struct`, the notes lie shortly before it, and the banner has the form of init/version.c.
 */

import { type Btf, parseBtf } from './btf.ts'
import { findAll, viewOf } from './bytes.ts'
import { BtfError } from './error.ts'
import { parseHeader } from './header.ts'
import { buildIdOf } from './note.ts'
import { findBannerIn, type Vmlinux } from './vmlinux.ts'

/** Magic, version and flags of BTF, in both byte orders. */
const BTF_STARTS = [Uint8Array.of(0x9f, 0xeb, 1, 0), Uint8Array.of(0xeb, 0x9f, 1, 0)]
/** Candidates that are tried; machine code has some dozens by chance. */
const MAX_PLACES = 65_536

/** Bytes before the BTF in which its notes may begin: `RO_DATA` (include/asm-generic/vmlinux.lds.h) places them together. */
const NOTES = 64 * 1024

/** `e_machine` and architecture, by the machine of a PE header (include/linux/pe.h). */
const PE_MACHINES: Readonly<Record<number, readonly [machine: number, arch: string]>> = {
  20580: [243, 'riscv64'],
  25188: [258, 'loongarch64'],
  34404: [62, 'x86_64'],
  43620: [183, 'aarch64'],
}

/** True if the bytes hold an unpacked kernel: they contain its banner. */
export const isKernelImage = (image: Uint8Array): boolean => findBannerIn(image) !== undefined

/**
 * Describes a flat image. Undefined if it has no BTF, because then its byte order is unknown, unless its BTF is given:
 * that of its module btf_vmlinux. `machine` is 0 for images without a PE header (s390x, arm). Errors: those of `parseBtf`
 * for the given BTF.
 */
export function describeImage(image: Uint8Array, given?: Uint8Array): Vmlinux | undefined {
  const found = findBtf(image)
  if (!found) return given && describeWith(image, given)
  const { btf, start, end } = found
  const buildId = buildIdBefore(image.subarray(Math.max(0, start - NOTES), start), btf)
  return {
    ...partsOf(image, btf),
    ...(buildId && { buildId }),
    ownBtf: image.subarray(start, end),
    hasDwarf: false,
  }
}

function describeWith(image: Uint8Array, ownBtf: Uint8Array): Vmlinux {
  return { ...partsOf(image, parseBtf(ownBtf)), ownBtf, hasDwarf: false }
}

function partsOf(image: Uint8Array, btf: Btf): Omit<Vmlinux, 'hasDwarf'> {
  const [machine, arch] = PE_MACHINES[peMachine(image) ?? -1] ?? [0]
  return {
    byteOrder: btf.byteOrder,
    pointerSize: btf.pointerSize,
    machine,
    ...(arch && { arch }),
    ...findBannerIn(image),
  }
}

/** The kernel's own BTF: an image also holds that of BPF programs which the kernel ships. */
function findBtf(image: Uint8Array): { btf: Btf; start: number; end: number } | undefined {
  let places = 0
  for (const magic of BTF_STARTS) {
    for (const at of findAll(image, magic)) {
      if (++places > MAX_PLACES) return undefined
      const end = at + lengthOfBtf(image.subarray(at))
      const btf = parsed(image.subarray(at, end))
      if (btf?.find('task_struct', 'STRUCT') !== undefined) return { btf, start: at, end }
    }
  }
  return undefined
}

/** Length of the BTF at the start of the bytes, by its header; 0 if the header is invalid. */
function lengthOfBtf(bytes: Uint8Array): number {
  try {
    const { types, layout, strings } = parseHeader(bytes)
    return Math.max(types.end, layout.end, strings.end)
  } catch (error) {
    if (error instanceof BtfError) return 0
    throw error
  }
}

function parsed(bytes: Uint8Array): Btf | undefined {
  try {
    return bytes.length === 0 ? undefined : parseBtf(bytes)
  } catch (error) {
    if (error instanceof BtfError) return undefined
    throw error
  }
}

/** The build-id of the last note in these bytes: that of the vDSO may come before the kernel's own. */
function buildIdBefore(bytes: Uint8Array, { byteOrder }: Btf): string | undefined {
  const note = new DataView(new ArrayBuffer(16))
  for (const [at, value] of [4, 20, 3].entries())
    note.setUint32(at * 4, value, byteOrder === 'little')
  note.setUint32(12, 0x474e5500) // "GNU\0"
  const start = [...findAll(bytes, new Uint8Array(note.buffer))].at(-1)
  return start === undefined ? undefined : buildIdOf(bytes.subarray(start, start + 36), byteOrder)
}

/** The machine in the PE header; undefined without one. */
function peMachine(image: Uint8Array): number | undefined {
  const view = viewOf(image)
  if (image.length < 0x40 || view.getUint16(0) !== 0x4d5a) return undefined
  const at = view.getUint32(0x3c, true)
  if (at + 6 > image.length || view.getUint32(at) !== 0x50450000) return undefined
  return view.getUint16(at + 4, true)
}
