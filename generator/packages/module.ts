/* The modules of a kernel: tells which files of a package they are. */
import { GeneratorError } from '../error.ts'

/** Stands for all modules in a list of names. */
export const ALL_MODULES = '*'
/** Maximum modules of a package. Debian's largest packages have 4 500; a record has room for this many. */
const MAX_MODULES = 6000

/** `…/lib/modules/RELEASE/…/NAME.ko`; `.ko.debug` in RPM distributions; compressed in some images. */
const MODULE_PATH =
  /(?:^|\/)lib\/modules\/([^/]+)\/(?:.*\/)?([\w-]{1,64})\.ko(?:\.debug)?(?:\.(?:xz|zst|gz))?$/

/** A module's name in the kernel's spelling: with underscores instead of dashes. */
export const moduleName = (name: string): string => name.replaceAll('-', '_')

/** The file of a module on disk. */
export interface ModuleFile {
  name: string
  path: string
}

/** The module that has the kernel's own BTF, not over any other (CONFIG_DEBUG_INFO_BTF=m, from 7.4 on). */
export const BTF_MODULE = 'btf_vmlinux'

/** The wanted modules of a package, and those that were found. */
export class ModuleSet {
  readonly #names: ReadonlySet<string>
  readonly #release: string | undefined
  readonly #found = new Set<string>()
  readonly #spare: string | undefined
  #awaitsSpare = false

  /**
   * `names`: wanted modules, or `ALL_MODULES`. `release`: the kernel's, if known; other kernels' modules are ignored.
   * `spare`: a module that is taken, too, if it comes by, but for which nothing waits before `awaitSpare`.
   */
  constructor(names: readonly string[], release: string | undefined, spare?: string) {
    this.#spare = spare
    this.#names = new Set(names.map(moduleName))
    this.#release = release
  }

  /** Returns the module's name if the file is a wanted module that was not found before; otherwise undefined. */
  take(path: string): string | undefined {
    const [, release, file] = MODULE_PATH.exec(path) ?? []
    if (!file || (this.#release !== undefined && release !== this.#release)) return undefined
    const name = moduleName(file)
    if (this.#found.has(name) || !(this.#all || this.#isWanted(name))) return undefined
    if (this.#found.size === MAX_MODULES)
      throw new GeneratorError('too_large', `the package has more than ${MAX_MODULES} modules`)
    this.#found.add(name)
    return name
  }

  /** Tells whether all wanted modules were found. */
  get isComplete(): boolean {
    const lacksSpare = this.#awaitsSpare && !this.#found.has(this.#spare ?? '')
    return !this.#all && this.missing.length === 0 && !lacksSpare
  }

  /** From now on the set is complete only with the spare module. */
  awaitSpare(): void {
    this.#awaitsSpare = true
  }

  #isWanted(name: string): boolean {
    return this.#names.has(name) || name === this.#spare
  }

  /** The wanted names that were not found; `ALL_MODULES` if none at all was. */
  get missing(): string[] {
    const isFound = (name: string) =>
      name === ALL_MODULES ? this.#found.size > 0 : this.#found.has(name)
    return [...this.#names].filter((name) => !isFound(name))
  }

  get #all(): boolean {
    return this.#names.has(ALL_MODULES)
  }
}
