/*
 * The description of a kernel image on disk. Of a vmlinux, only the headers, notes and banner are read. A boot image is
 * unpacked first.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import {
  BtfError,
  type ByteSource,
  describeImage,
  describeVmlinux,
  type FunctionList,
  isElf,
  memorySource,
  readFunctions,
  readInlinedCalls,
  type Vmlinux,
} from '../../bpf/index.ts'
import { GeneratorError } from '../error.ts'
import { unpackVmlinuz } from './vmlinuz.ts'

/** Maximum bytes of a boot image. The largest of distributions are uncompressed and have 60 MB. */
const MAX_BOOT_IMAGE = 256 * 1024 ** 2

/** Describes a vmlinux or a boot image. Errors: `invalid_elf`, `no_btf` for a flat image without BTF, `too_large`. */
export async function readVmlinux(path: string): Promise<Vmlinux> {
  const { size, vmlinux } = readElf(path)
  if (vmlinux && (vmlinux.release || vmlinux.hasDwarf || vmlinux.ownBtf)) return vmlinux
  if (size > MAX_BOOT_IMAGE)
    throw new GeneratorError(
      'invalid_elf',
      'vmlinux is neither the ELF file of a kernel nor a boot image',
    )
  const kernel = await unpackVmlinuz(await readFile(path))
  const found = isElf(kernel)
    ? asInvalidElf(() => describeVmlinux(memorySource(kernel)))
    : describeImage(kernel)
  if (!found) throw new GeneratorError('no_btf', 'the kernel was built without BTF of its own')
  const { ownBtf } = found
  return {
    ...found,
    ...(ownBtf && { ownBtf: Buffer.from(ownBtf) }), // a copy, so that the image can be freed
    hasDwarf: false, // pahole cannot read a boot image
  }
}

/** The functions in the symbol table of a vmlinux; undefined without one, as in boot images. Errors: `invalid_elf`. */
export function readFunctionsOf(path: string): FunctionList | undefined {
  return openFile(path, (source) =>
    isElf(magicOf(source)) ? asInvalidElf(() => readFunctions(source)) : undefined,
  )
}

/** The functions of a vmlinux of which some calls are inlined. Errors: `invalid_elf`. */
export function readInlinedCallsOf(path: string): Set<string> {
  return openFile(path, (source) => asInvalidElf(() => readInlinedCalls(source)))
}

/** Describes a module's file. Errors: `invalid_elf`. */
export function readModule(path: string): Pick<Vmlinux, 'ownBtf' | 'distilledBase' | 'hasDwarf'> {
  const { vmlinux } = readElf(path)
  if (!vmlinux) throw new GeneratorError('invalid_elf', 'the module is not an ELF file')
  return vmlinux
}

/** The size of a file, and its description if it is an ELF file. */
function readElf(path: string): { size: number; vmlinux: Vmlinux | undefined } {
  return openFile(path, (source) => {
    const found = isElf(magicOf(source)) ? asInvalidElf(() => describeVmlinux(source)) : undefined
    return { size: source.size, vmlinux: found }
  })
}

const magicOf = (source: ByteSource): Uint8Array => source.read(0, Math.min(4, source.size))

function openFile<T>(path: string, read: (source: ByteSource) => T): T {
  const fd = openSync(path, 'r')
  try {
    return read(fileSource(fd))
  } finally {
    closeSync(fd)
  }
}

function asInvalidElf<T>(describe: () => T): T {
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
