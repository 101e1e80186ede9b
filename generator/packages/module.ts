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

/** The wanted modules of a package, and those that were found. */
export class ModuleSet {
  readonly #names: ReadonlySet<string>
  readonly #release: string | undefined
  readonly #found = new Set<string>()

  /**
   * `names`: wanted modules, or `ALL_MODULES`. `release`: the kernel's, if known; other kernels' modules are ignored.
   */
  constructor(names: readonly string[], release: string | undefined) {
    this.#names = new Set(names.map(moduleName))
    this.#release = release
  }

  /** Returns the module's name if the file is a wanted module that was not found before; otherwise undefined. */
  take(path: string): string | undefined {
    const [, release, file] = MODULE_PATH.exec(path) ?? []
    if (!file || (this.#release !== undefined && release !== this.#release)) return undefined
    const name = moduleName(file)
    if (this.#found.has(name) || !(this.#all || this.#names.has(name))) return undefined
    if (this.#found.size === MAX_MODULES)
      throw new GeneratorError('too_large', `the package has more than ${MAX_MODULES} modules`)
    this.#found.add(name)
    return name
  }

  /** Whether all wanted modules were found. */
  get isComplete(): boolean {
    return !this.#all && this.missing.length === 0
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
