/*
 * The user's own loader: a static program, or a dynamic one whose libraries are on this machine. A dynamic one must be of
 * this machine's architecture, because ldd runs its dynamic linker.
 */
import { readFile } from 'node:fs/promises'
import { isElf } from '../../bpf/index.ts'
import { GeneratorError } from '../error.ts'
import { runChild } from '../subprocess.ts'
import type { InitramfsFiles } from './initramfs.ts'
import type { Machine } from './machine.ts'

const PT_INTERP = 3
const LDD_SECONDS = 10

/**
 * Reads a loader and its libraries, as files of an initramfs: the loader has the path `at`, the libraries have their own.
 * Errors: `invalid_loader`, with the reason; the system's for a file that cannot be read.
 */
export async function readUserLoader(
  path: string,
  { runs }: Machine,
  arch: string,
  at: string,
  signal?: AbortSignal,
): Promise<InitramfsFiles> {
  const refuse = (why: string) =>
    new GeneratorError('invalid_loader', `invalid loader ${path}: ${why}`)
  const bytes = await readFile(path)
  if (!isElf(bytes) || bytes.length < 64)
    throw refuse('expected an ELF program; scripts have no interpreter in the guest')
  const header = headerOf(bytes)
  if (!runs.includes(header.machine))
    throw refuse(`kernels of ${arch} do not run programs of ELF machine ${header.machine}`)
  const files = new Map<string, Uint8Array>([[at, bytes]])
  if (!header.isDynamic) return files
  const { status, stdout } = await runChild('ldd', [path], {
    seconds: LDD_SECONDS,
    ...(signal && { signal }),
  })
  if (status !== 0)
    throw refuse('ldd does not find its libraries on this machine; link it statically')
  const text = stdout.toString()
  const [, missing] = /^\s*(\S+) => not found/m.exec(text) ?? []
  if (missing !== undefined) throw refuse(`its library ${missing} is not on this machine`)
  for (const [, library] of text.matchAll(/^(?:\s*\S+ =>)?\s*(\/\S+) \(0x/gm))
    files.set(library!.slice(1), await readFile(library!))
  return files
}

/** The machine of an ELF file, and whether it has an interpreter, which is the dynamic linker. */
function headerOf(bytes: Buffer): { machine: number; isDynamic: boolean } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const [is64, little] = [bytes[4] === 2, bytes[5] === 1]
  const start = is64 ? Number(view.getBigUint64(32, little)) : view.getUint32(28, little)
  const [size, count] = [54, 56].map((offset) =>
    view.getUint16(is64 ? offset : offset - 12, little),
  )
  const types = Array.from({ length: count! }, (_, n) => start + n * size!)
    .filter((offset) => offset + 4 <= bytes.length)
    .map((offset) => view.getUint32(offset, little))
  return { machine: view.getUint16(18, little), isDynamic: types.includes(PT_INTERP) }
}
