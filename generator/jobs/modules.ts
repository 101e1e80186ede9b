/*
 * Makes the split BTF of a kernel's modules over the kernel's BTF. A module that fails does not stop the others: its
 * failure is recorded.
 */
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Btf, BtfError, parseBtf, relocateBase } from '../../bpf/index.ts'
import type { ModuleFailure, ModuleInfo, Tool } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { messageOf } from '../failure.ts'
import type { ModuleFile } from '../packages/module.ts'
import { readModule } from '../packages/vmlinux.ts'
import { checkModuleBtf } from './check.ts'
import { encodeBtf, type PaholeLimits } from './pahole.ts'

/** The results of encoding modules, by success and failure. */
export interface Modules {
  made: (ModuleFile & { info: Omit<ModuleInfo, 'sha256'> })[]
  failed: Record<string, ModuleFailure>
}

export interface ModuleOptions {
  /** the pahole to use */
  tool: Tool
  /** the kernel's BTF */
  base: Uint8Array
  /** whether `base` is the kernel's own BTF; then BTF that modules carry is used */
  embedded: boolean
  /** where their BTF is written */
  directory: string
  limits: PaholeLimits
  signal: AbortSignal
}

/**
 * Writes the split BTF of each module over the kernel's to a file, and removes the module. Errors, since they would hit
 * every module: `pahole_missing`, `no_space`, the signal's reason; all others are in the result.
 */
export async function encodeModules(
  files: readonly ModuleFile[],
  options: ModuleOptions,
): Promise<Modules> {
  const modules: Modules = { made: [], failed: {} }
  const base = join(options.directory, 'base.btf')
  await writeFile(base, options.base)
  const opened = parseBtf(options.base)
  for (const file of files) {
    try {
      modules.made.push(await encodeModule(file, base, opened, options))
    } catch (error) {
      options.signal.throwIfAborted()
      if (!(error instanceof GeneratorError) || COMMON.has(error.code)) throw error
      modules.failed[file.name] = { code: error.code, message: messageOf(error) }
    }
    await rm(file.path)
  }
  return modules
}

/** The failures that would hit every module. */
const COMMON: ReadonlySet<string> = new Set(['pahole_missing', 'no_space'])

async function encodeModule(
  { name, path }: ModuleFile,
  base: string,
  opened: Btf,
  { tool, embedded, directory, limits, signal }: ModuleOptions,
): Promise<Modules['made'][number]> {
  const { ownBtf, distilledBase, hasDwarf } = readModule(path)
  const target = join(directory, `${name}.btf`)
  // a distilled base fits any BTF of the kernel; otherwise the ids are those of the kernel's own
  if (ownBtf && (embedded || (distilledBase && !hasDwarf))) {
    await writeFile(target, distilledBase ? relocated(ownBtf, distilledBase, opened) : ownBtf)
  } else if (hasDwarf) {
    const over = { ...tool, options: [...tool.options, `--btf_base=${base}`] }
    await encodeBtf(over, path, target, limits, signal)
  } else {
    throw new GeneratorError(
      'no_dwarf',
      "the module has neither debug info nor BTF over the kernel's own",
    )
  }
  return { name, path: target, info: checkModuleBtf(await readFile(target), opened) }
}

/** The BTF of a module over the kernel's instead of its distilled base. Errors: `kernel_mismatch`, `invalid_btf`. */
function relocated(own: Uint8Array, distilledBase: Uint8Array, kernel: Btf): Uint8Array {
  try {
    return relocateBase(parseBtf(own, { base: parseBtf(distilledBase) }), kernel)
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    const code = cause.code === 'base_mismatch' ? 'kernel_mismatch' : 'invalid_btf'
    throw new GeneratorError(code, `the module's BTF does not fit: ${cause.message}`, { cause })
  }
}
