/*
 * Modules of a kernel: which files of a package they are, and the split BTF of each over the kernel's. A module that
 * fails is no reason to withhold the others; what became of it is recorded.
 */
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Btf, parseBtf } from '../../bpf/index.ts'
import type { ModuleFailure, ModuleInfo, Tool } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { checkModuleBtf } from '../jobs/check.ts'
import { encodeBtf, type PaholeLimits } from '../jobs/pahole.ts'
import { readModule } from './vmlinux.ts'

/** What stands for all modules. */
export const ALL_MODULES = '*'
/** How many modules a package has at most; Debian's largest have 4 500, and a record has room for these. */
const MAX_MODULES = 6000

/** `…/lib/modules/RELEASE/…/NAME.ko`; RPM distributions say `.ko.debug`, images may pack them. */
const PATH =
  /(?:^|\/)lib\/modules\/([^/]+)\/(?:.*\/)?([\w-]{1,64})\.ko(?:\.debug)?(?:\.(?:xz|zst|gz))?$/

/** A module's name as the kernel has it, which knows no dashes. */
export const moduleName = (name: string): string => name.replaceAll('-', '_')

/** A module's file. */
export interface ModuleFile {
  name: string
  path: string
}

/** The modules that are wanted of a package. */
export class ModuleSet {
  readonly #names: ReadonlySet<string>
  readonly #release: string | undefined
  readonly #taken = new Set<string>()

  /** `names` are those wanted, or `ALL_MODULES`; of `release`, where that is known. */
  constructor(names: readonly string[], release: string | undefined) {
    this.#names = new Set(names.map(moduleName))
    this.#release = release
  }

  /** The name of the module that a file of the package is, the first time that it comes; undefined for all others. */
  take(path: string): string | undefined {
    const [, release, file] = PATH.exec(path) ?? []
    if (!file || (this.#release !== undefined && release !== this.#release)) return undefined
    const name = moduleName(file)
    if (this.#taken.has(name) || !(this.#all || this.#names.has(name))) return undefined
    if (this.#taken.size === MAX_MODULES)
      throw new GeneratorError('too_large', `the package has more than ${MAX_MODULES} modules`)
    this.#taken.add(name)
    return name
  }

  /** Whether there can be no other one. */
  get isComplete(): boolean {
    return !this.#all && this.missing.length === 0
  }

  /** Names that are wanted and did not come; `ALL_MODULES` where none did. */
  get missing(): string[] {
    const came = (name: string) =>
      name === ALL_MODULES ? this.#taken.size > 0 : this.#taken.has(name)
    return [...this.#names].filter((name) => !came(name))
  }

  get #all(): boolean {
    return this.#names.has(ALL_MODULES)
  }
}

/** What modules came to. */
export interface Modules {
  made: (ModuleFile & { info: Omit<ModuleInfo, 'sha256'> })[]
  failed: Record<string, ModuleFailure>
}

export interface ModuleOptions {
  /** the pahole to use */
  tool: Tool
  /** the kernel's BTF */
  base: Uint8Array
  /** modules may have BTF over that base, as the kernel's own build made it */
  embedded: boolean
  /** where there is room for theirs */
  directory: string
  limits: PaholeLimits
  signal: AbortSignal
}

/**
 * Makes the split BTF of each module over the kernel's, removes the modules, and leaves their BTF. Errors: none of
 * theirs, but those that all would have: `pahole_missing`, `no_space`, the signal's reason.
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
      modules.failed[file.name] = { code: error.code, message: error.message }
    }
    await rm(file.path)
  }
  return modules
}

/** What is no module's own fault. */
const COMMON: ReadonlySet<string> = new Set(['pahole_missing', 'no_space'])

async function encodeModule(
  { name, path }: ModuleFile,
  base: string,
  opened: Btf,
  { tool, embedded, directory, limits, signal }: ModuleOptions,
): Promise<Modules['made'][number]> {
  const { ownBtf, hasDwarf } = readModule(path)
  const target = join(directory, `${name}.btf`)
  if (embedded && ownBtf) {
    await writeFile(target, ownBtf)
  } else if (hasDwarf) {
    const over = { ...tool, options: [...tool.options, `--btf_base=${base}`] }
    await encodeBtf(over, path, target, limits, signal)
  } else {
    throw new GeneratorError('no_dwarf', "the module has no debug info, nor BTF over the kernel's")
  }
  return { name, path: target, info: checkModuleBtf(await readFile(target), opened) }
}
