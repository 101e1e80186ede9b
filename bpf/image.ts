/*
 * A kernel's flat image (arch/arm64/boot/Image and the like): what lies in memory, as `objcopy -O binary` leaves it,
 * without section or symbol tables. Its BTF, banner and build-id are found by what they look like, and believed where
 * all of it fits: BTF that parses and has what every kernel has, the notes in front of it, a banner as
 * init/version.c prints it.
 */

import { type Btf, parseBtf } from './btf.ts'
import { findAll, viewOf } from './bytes.ts'
import { BtfError } from './error.ts'
import { parseHeader } from './header.ts'
import { buildIdOf } from './note.ts'
import { findBannerIn, type Vmlinux } from './vmlinux.ts'

/** Magic, version and flags of BTF, in either byte order. */
const BTF_STARTS = [Uint8Array.of(0x9f, 0xeb, 1, 0), Uint8Array.of(0xeb, 0x9f, 1, 0)]
/** Places that are looked at; code has some dozens that begin alike. */
const MAX_PLACES = 65_536

/** How far before BTF its notes may begin, in bytes: `RO_DATA` (include/asm-generic/vmlinux.lds.h) has them side by side. */
const NOTES = 64 * 1024

/** Architectures by the machine of a PE header, with `e_machine` (include/linux/pe.h). */
const PE_MACHINES: Readonly<Record<number, readonly [machine: number, arch: string]>> = {
  20580: [243, 'riscv64'],
  25188: [258, 'loongarch64'],
  34404: [62, 'x86_64'],
  43620: [183, 'aarch64'],
}

/** Whether the bytes are of a kernel that is not packed: somewhere they have its banner. */
export const isKernelImage = (image: Uint8Array): boolean => findBannerIn(image) !== undefined

/**
 * What a flat image tells of itself; undefined where it has no BTF, since then nothing tells how to read the rest.
 * `machine` is 0 where no PE header says it (s390x, arm).
 */
export function describeImage(image: Uint8Array): Vmlinux | undefined {
  const found = findBtf(image)
  if (!found) return undefined
  const { btf, start, end } = found
  const [machine, arch] = PE_MACHINES[peMachine(image) ?? -1] ?? [0]
  const buildId = buildIdBefore(image.subarray(Math.max(0, start - NOTES), start), btf)
  return {
    byteOrder: btf.byteOrder,
    pointerSize: btf.pointerSize,
    machine,
    ...(arch && { arch }),
    ...(buildId && { buildId }),
    ...findBannerIn(image),
    ownBtf: image.subarray(start, end),
    hasDwarf: false,
  }
}

/** The kernel's own BTF: an image holds others, too, of programs that the kernel brings along. */
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

/** How long the BTF is that these bytes begin with, by its header; 0 where it is none. */
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

/** The build-id of the last notes in these bytes: before the kernel's own there may be those of its vDSO. */
function buildIdBefore(bytes: Uint8Array, { byteOrder }: Btf): string | undefined {
  const note = new DataView(new ArrayBuffer(16))
  for (const [at, value] of [4, 20, 3].entries())
    note.setUint32(at * 4, value, byteOrder === 'little')
  note.setUint32(12, 0x474e5500) // "GNU\0"
  const start = [...findAll(bytes, new Uint8Array(note.buffer))].at(-1)
  return start === undefined ? undefined : buildIdOf(bytes.subarray(start, start + 36), byteOrder)
}

/** The machine that a PE header names. */
function peMachine(image: Uint8Array): number | undefined {
  const view = viewOf(image)
  if (image.length < 0x40 || view.getUint16(0) !== 0x4d5a) return undefined
  const at = view.getUint32(0x3c, true)
  if (at + 6 > image.length || view.getUint32(at) !== 0x50450000) return undefined
  return view.getUint16(at + 4, true)
}
