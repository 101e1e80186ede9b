/*
 * BTF at the path where programs look for it that take no option. Each file is named after a kernel's release, so it is
 * never taken for another kernel. All files are ELF: every version of the loaders below takes it, and its `.comment` tells
 * our files from those of others, which are neither replaced nor removed.
 */
import { chmod, lstat, readFile, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isWrapped, parseBtf, wrapInElf } from '../../bpf/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { type Loader, PLACES, type Place } from './place.ts'
import { FetchError } from './request.ts'

/** The largest file that is looked at, in bytes: a file of ours has no more. */
const MAX_FILE = 65 * 1024 * 1024

export interface InstallOptions {
  loader: Loader
  /** `uname -r` of the kernel */
  release: string
  /** the root directory of the machine (default: /) */
  root?: string | undefined
}

export interface InstalledBtf {
  path: string
  /** files that exist and that the loader reads before it */
  before: string[]
}

/**
 * Writes BTF where a loader looks, in one step. Errors: `foreign_file` if a file that btfmill did not write is there,
 * `not_writable`; those of `parseBtf` for bytes that are not BTF.
 */
export async function installBtf(raw: Uint8Array, options: InstallOptions): Promise<InstalledBtf> {
  const { path, before } = pathsOf(options)
  const { byteOrder, pointerSize } = parseBtf(raw)
  const file = wrapInElf(raw, { byteOrder, pointerSize })
  await requireOwn(path)
  await changing(path, async () => {
    await writeWhole(path, file)
    await chmod(path, 0o644) // programs without privileges read it, too
  })
  const exist = await Promise.all(before.map(isThere))
  return { path, before: before.filter((_, at) => exist[at]) }
}

/** Removes what `installBtf` wrote. Returns its path, or undefined if there is none. Errors: those of `installBtf`. */
export async function uninstallBtf(options: InstallOptions): Promise<string | undefined> {
  const { path } = pathsOf(options)
  if (!(await requireOwn(path))) return undefined
  await changing(path, () => rm(path))
  await rmdir(dirname(path)).catch(() => {}) // it has other files
  return path
}

function pathsOf({ loader, release, root = '/' }: InstallOptions) {
  if (!/^[\w+~][\w.+~-]*$/.test(release))
    throw new FetchError(
      'invalid_options',
      `invalid release "${release}": expected letters, digits and ._+~-, not a dot first`,
    )
  const { path, before }: Place = PLACES[loader]
  const below = (of: (release: string) => string) => join(root, of(release))
  return { path: below(path), before: before.map(below) }
}

const isThere = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  )

/** Tells whether a file of ours is there. Errors: `foreign_file`, `not_writable`. */
async function requireOwn(path: string): Promise<boolean> {
  const stat = await changing(path, () =>
    lstat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    }),
  )
  if (!stat) return false
  if (
    stat.isFile() &&
    stat.size <= MAX_FILE &&
    isWrapped(await changing(path, () => readFile(path)))
  )
    return true
  throw new FetchError('foreign_file', `${path} was not written by btfmill: expected no such file`)
}

async function changing<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    throw new FetchError('not_writable', `${path}: ${(cause as Error).message}`, { cause })
  }
}
