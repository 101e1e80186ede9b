/*
 * A kernel's image on disk, described: a vmlinux without reading more of it than its headers, notes and banner, what boot
 * loaders take when it is unpacked.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import {
  BtfError,
  type ByteSource,
  describeImage,
  describeVmlinux,
  isElf,
  memorySource,
  type Vmlinux,
} from '../../bpf/index.ts'
import { GeneratorError } from '../error.ts'
import { unpackVmlinuz } from './vmlinuz.ts'

/** Bytes of what may be a boot image; the largest of a distribution, flat ones, have 60 MB. */
const MAX_BOOT_IMAGE = 256 * 1024 ** 2

/**
 * What the file tells of itself. Errors: `invalid_elf`, `no_btf` for a flat image without BTF, `too_large`.
 */
export async function readVmlinux(path: string): Promise<Vmlinux> {
  const { size, vmlinux } = readElf(path)
  if (vmlinux && (vmlinux.release || vmlinux.hasDwarf || vmlinux.ownBtf)) return vmlinux
  if (size > MAX_BOOT_IMAGE) throw new GeneratorError('invalid_elf', 'vmlinux is no ELF file')
  const kernel = await unpackVmlinuz(await readFile(path))
  const found = isElf(kernel)
    ? asBadElf(() => describeVmlinux(memorySource(kernel)))
    : describeImage(kernel)
  if (!found) throw new GeneratorError('no_btf', 'the kernel was built without BTF of its own')
  const { ownBtf } = found
  return {
    ...found,
    ...(ownBtf && { ownBtf: Buffer.from(ownBtf) }), // without what was around it
    hasDwarf: false, // pahole would not find it in there
  }
}

/** What a module's file tells of itself. Errors: `invalid_elf`. */
export function readModule(path: string): Pick<Vmlinux, 'ownBtf' | 'hasDwarf'> {
  const { vmlinux } = readElf(path)
  if (!vmlinux) throw new GeneratorError('invalid_elf', 'the module is no ELF file')
  return vmlinux
}

/** What an ELF file tells of itself, and how large any file is. */
function readElf(path: string): { size: number; vmlinux: Vmlinux | undefined } {
  const fd = openSync(path, 'r')
  try {
    const source = fileSource(fd)
    const start = source.read(0, Math.min(4, source.size))
    const vmlinux = isElf(start) ? asBadElf(() => describeVmlinux(source)) : undefined
    return { size: source.size, vmlinux }
  } finally {
    closeSync(fd)
  }
}

function asBadElf<T>(describe: () => T): T {
  try {
    return describe()
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('invalid_elf', `vmlinux: ${cause.message}`, { cause })
  }
}

function fileSource(fd: number): ByteSource {
  return {
    size: fstatSync(fd).size,
    read(offset, length) {
      const bytes = Buffer.alloc(length)
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset))
    },
  }
}
