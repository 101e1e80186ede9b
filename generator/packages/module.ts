/* The modules of a kernel: which files of a package they are. */
import { GeneratorError } from '../error.ts'

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
