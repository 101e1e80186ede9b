/*
 * The tree of headers that is compiled: one directory with regular files only. Packages split a kernel's headers (Debian
 * into those of the flavour and the common ones, Ubuntu into those of the version); together they are one tree, as in
 * the kernel's source. All paths come from outside: a path that leaves the tree is refused, a link is not written, and
 * the number and the size of files are bounded.
 */
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { GeneratorError } from '../error.ts'
import type { ArchiveEntry } from '../packages/archive-entry.ts'
import type { SizeLimit } from '../packages/unpack.ts'

/** Debian's largest have 28,000 files and 140 MB. */
export const TREE_LIMITS = {
  files: 120_000,
  /** bytes of all files */
  bytes: 1024 ** 3,
  /** bytes of one file; Module.symvers has 2 MB */
  file: 64 * 1024 ** 2,
} as const
export interface TreeLimits {
  files: number
  bytes: number
  file: number
}

/** Where packages have the tree: `usr/src/NAME/`, `usr/src/kernels/NAME/`, `lib/modules/RELEASE/build/`, or at the top. */
const ROOT =
  /^(?:(?:usr\/src\/(?:kernels\/)?|(?:usr\/)?lib\/modules\/)[^/]{1,255}\/(?:(?:build|source)\/)?)?/
/** Files beside the headers that tell how the kernel was built. */
const FACTS = new Set([
  'Module.symvers',
  'include/config/auto.conf',
  'include/config/kernel.release',
])
const ARCH = /^arch\/([a-z0-9_]{1,32})\/include\//

/** Empty files for make, one for each option. */
const LEFT_OUT = ['include/config/']

export class HeaderTree {
  readonly directory: string
  readonly #limits: TreeLimits
  /** the folder below `arch/` that is wanted; undefined for all */
  readonly #arch: string | undefined
  readonly #paths = new Set<string>()
  readonly #folders = new Set<string>()
  #bytes = 0

  constructor(directory: string, arch?: string, limits: TreeLimits = TREE_LIMITS) {
    this.directory = directory
    this.#arch = arch
    this.#limits = limits
  }

  /** Paths of all files that were added, relative to the tree. */
  get paths(): ReadonlySet<string> {
    return this.#paths
  }

  /**
   * Writes a file of a package into the tree, if it belongs there. Of two files with one path the first counts. Errors:
   * `invalid_headers` for a path that leaves the tree, `too_large`; those of `writeFile`.
   */
  async add({ name, regular, size, body }: ArchiveEntry): Promise<void> {
    const path = treePathOf(name)
    if (path === undefined || !regular || !this.#wants(path) || this.#paths.has(path)) return
    const { files, bytes, file } = this.#limits
    if (this.#paths.size >= files) throw tooLarge(`more than ${files} files`)
    this.#paths.add(path)
    const room = (written: number) => {
      if (written > file) throw tooLarge(`a file with more than ${file} bytes`)
      if (this.#bytes + written > bytes) throw tooLarge(`more than ${bytes} bytes`)
    }
    room(size)
    const target = join(this.directory, path)
    const parent = dirname(target)
    if (!this.#folders.has(parent)) await mkdir(parent, { recursive: true }).catch(notADirectory)
    this.#folders.add(parent)
    const written = await readAll(body, room)
    this.#bytes += written.length
    await writeFile(target, written, { flag: 'wx' }).catch(notADirectory)
  }

  /** The text of a file of at most `limit` bytes; undefined if the tree has no such file. Errors: `too_large`. */
  async read(path: string, limit: number): Promise<string | undefined> {
    if (!this.#paths.has(path)) return undefined
    const file = join(this.directory, path)
    const { size } = await stat(file)
    if (size > limit) throw tooLarge(`a ${path} with more than ${limit} bytes`)
    return await readFile(file, 'latin1')
  }

  #wants(path: string): boolean {
    if (FACTS.has(path)) return true
    const [, arch] = ARCH.exec(path) ?? []
    if (arch !== undefined) return this.#arch === undefined || arch === this.#arch
    return path.startsWith('include/') && !LEFT_OUT.some((folder) => path.startsWith(folder))
  }
}

/**
 * The path of a package's file in the tree, for a file below the root of a tree; otherwise undefined. Errors:
 * `invalid_headers` for a path with `..`.
 */
export function treePathOf(name: string): string | undefined {
  const path = name.replace(/^(\.?\/)+/, '')
  const segments = path.split('/')
  if (segments.includes('..') || path.includes('\0'))
    throw new GeneratorError(
      'invalid_headers',
      `the package has a path that leaves it: ${JSON.stringify(name.slice(0, 100))}`,
    )
  const rest = path.slice(ROOT.exec(path)![0].length)
  const isClean = rest.split('/').every((segment) => segment !== '' && segment !== '.')
  return isClean && segments.every((segment) => segment.length <= 255) ? rest : undefined
}

/** Reads the bytes of a file as far as `room` allows. */
async function readAll(body: AsyncIterable<Uint8Array>, room: SizeLimit): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  let size = 0
  for await (const piece of body) {
    size += piece.length
    room(size)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

const tooLarge = (what: string): GeneratorError =>
  new GeneratorError('too_large', `the headers have ${what}`)

/** For `catch`: a package may have a file where another one has a directory. */
function notADirectory(cause: unknown): never {
  const { code } = cause as NodeJS.ErrnoException
  if (code !== 'ENOTDIR' && code !== 'EEXIST') throw cause
  const message = 'the headers have a file and a directory of one name'
  throw new GeneratorError('invalid_headers', message, { cause })
}
