/*
 * The version of a kernel in a package with its headers: `include/generated/utsrelease.h` has `uname -r`,
 * `utsversion.h` has `uname -v` (Makefile and init/Makefile of Linux, since 6.1). The vmlinux of such a package has BTF
 * only.
 */
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { matchGlob } from '../../storage/index.ts'

/** The files, and the macro that each defines. */
const FILES = { 'utsrelease.h': 'UTS_RELEASE', 'utsversion.h': 'UTS_VERSION' } as const

/** Maximum bytes of each. */
export const MAX_VERSION_FILE = 4096

/** The files with the version of a kernel that were found so far in a package. */
export class VersionFiles {
  readonly #directory: string
  readonly #globs: readonly (readonly [glob: string, file: string])[]
  readonly #found = new Set<string>()

  /** `directory`: where the files are written; `vmlinux`: globs for the path of vmlinux, beside which they are. */
  constructor(directory: string, vmlinux: readonly string[]) {
    this.#directory = directory
    this.#globs = vmlinux.flatMap((path) =>
      Object.keys(FILES).map(
        (file) => [`${dirname(path)}/include/generated/${file}`, file] as const,
      ),
    )
  }

  /** Returns where to write the file with a path if it is one of them and was not found before; otherwise undefined. */
  take(path: string): string | undefined {
    const [, file] = this.#globs.find(([glob]) => matchGlob(glob, path)) ?? []
    if (file === undefined || this.#found.has(file)) return undefined
    this.#found.add(file)
    return join(this.#directory, file)
  }

  get isComplete(): boolean {
    return this.#found.size === Object.keys(FILES).length
  }

  /** The version, as far as the package has it. */
  async read(): Promise<{ release?: string; unameVersion?: string }> {
    const [release, unameVersion] = await Promise.all(
      Object.entries(FILES).map(async ([file, macro]) => {
        if (!this.#found.has(file)) return undefined
        const text = await readFile(join(this.#directory, file), 'latin1')
        return new RegExp(`^#define ${macro} "([\\x20-\\x7e]+)"$`, 'm').exec(text)?.[1]
      }),
    )
    return { ...(release && { release }), ...(unameVersion && { unameVersion }) }
  }
}
