/*
 * The functions of which some calls are inlined. `pfunct` of pahole's package knows them too, but keeps the debug info of
 * all units in memory: for Debian's amd64 kernel it takes 37 s of CPU time and 4.2 GB, our own reader 3 s and 140 MB.
 */
import { extname, join } from 'node:path'
import { GeneratorError } from '../error.ts'
import { runChild } from '../subprocess.ts'
import type { PaholeLimits } from './pahole.ts'

/** The published package is compiled, and has no `.ts` files. */
const PROGRAM = join(
  import.meta.dirname,
  `../packages/inlined-names${extname(import.meta.filename)}`,
)

/** Reads the names from the DWARF of a vmlinux, or from its `.BTF.inline`. Errors: `invalid_elf`, `too_large`; the signal's reason. */
export async function findInlined(
  vmlinux: string,
  { memory, seconds, room = () => true }: Omit<PaholeLimits, 'output'>,
  signal?: AbortSignal,
): Promise<Set<string>> {
  const { ended, status, stdout, stderr } = await runChild(process.execPath, [PROGRAM, vmlinux], {
    memory: (bytes) => bytes <= memory && room(bytes),
    seconds,
    ...(signal && { signal }),
  })
  if (status === 0) return new Set(stdout.toString('latin1').split('\n').filter(Boolean))
  if (ended === 'status' && status === 1 && !stderr.includes('\n'))
    throw new GeneratorError('invalid_elf', `the inlined calls cannot be read: ${stderr}`)
  const limit = { memory: `${Math.round(memory / 1024 ** 2)} MiB`, time: `${seconds} s` }
  if (ended === 'memory' || ended === 'time')
    throw new GeneratorError('too_large', `reading the inlined calls takes over ${limit[ended]}`)
  throw new GeneratorError('internal', 'reading the inlined calls failed', { log: stderr })
}
