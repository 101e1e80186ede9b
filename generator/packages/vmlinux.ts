/*
 * The description of a kernel image on disk. Of a vmlinux, only the headers, notes and banner are read. A boot image is
 * unpacked first.
 */
import { createHash } from 'node:crypto'
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

/**
 * Describes a vmlinux or a boot image. `given` is the BTF of its module btf_vmlinux, which counts where the image has
 * none. Errors: `invalid_elf`; `no_btf` for a flat image without BTF; `kernel_mismatch` if the image says that its BTF is
 * another; `too_large`.
 */
export async function readVmlinux(path: string, given?: Uint8Array): Promise<Vmlinux> {
  const found = await describe(path, given)
  if (found.ownBtf || !given) return found
  if (found.btfLink && !isLinked(found.btfLink, given))
    throw new GeneratorError(
      'kernel_mismatch',
      'the module btf_vmlinux has other BTF than the image says: it is of another build',
    )
  return { ...found, ownBtf: given }
}

/** True if the SHA-256 of some BTF is in a kernel's `.BTF.link`: it is the BTF that the kernel's build made. */
export function isLinked(link: Uint8Array, btf: Uint8Array): boolean {
  return Buffer.from(link.buffer, link.byteOffset, link.length).includes(digestOf(btf))
}

const digestOf = (btf: Uint8Array): Buffer => createHash('sha256').update(btf).digest()

async function describe(path: string, given: Uint8Array | undefined): Promise<Vmlinux> {
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
    : asInvalidElf(() => describeImage(kernel, given))
  if (!found) throw new GeneratorError('no_btf', 'the kernel was built without BTF of its own')
  const { ownBtf } = found
  // a flat image has no sections: the digest is somewhere in it
  const btfLink = found.btfLink ?? (given && isLinked(kernel, given) ? digestOf(given) : undefined)
  return {
    ...found,
    // copies, so that the image can be freed
    ...(ownBtf && { ownBtf: Buffer.from(ownBtf) }),
    ...(btfLink && { btfLink: Buffer.from(btfLink) }),
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
