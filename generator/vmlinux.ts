/* A vmlinux on disk, described without reading more of it than its headers, notes and banner. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { BtfError, type ByteSource, describeVmlinux, type Vmlinux } from '../bpf/index.ts'
import { GeneratorError } from './error.ts'

/** What the file tells of itself. Errors: `bad_elf`. */
export function readVmlinux(path: string): Vmlinux {
  const fd = openSync(path, 'r')
  try {
    return describeVmlinux(fileSource(fd))
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new GeneratorError('bad_elf', `vmlinux: ${cause.message}`, { cause })
  } finally {
    closeSync(fd)
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
