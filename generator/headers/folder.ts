/*
 * Headers in a folder of this machine: `/lib/modules/RELEASE/build`, `/usr/src/linux-headers-…`, or unpacked packages. The
 * folder of a flavour leads to the common headers beside it, by links (Ubuntu) or by its Makefile (Debian). Nothing else
 * outside of the folder is read, wherever a link leads.
 */
import { createReadStream } from 'node:fs'
import { lstat, open, readdir, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, sep } from 'node:path'
import { GeneratorError } from '../error.ts'
import type { ArchiveEntry } from '../packages/archive-entry.ts'
import { TREE_LIMITS } from './tree.ts'

/** Folders within each other; links may form a circle. */
const MAX_DEPTH = 40
/** Names of folders beside each other that have parts of one kernel's headers. */
const BESIDE = /^(?:linux|kernel|proxmox|pve)[A-Za-z0-9._+~-]{0,200}$/
/** Bytes of a Makefile that are read. */
const MAKEFILE = 4096

/** Yields the files of a folder and of the common headers beside it. Errors: `invalid_headers`, `too_large`. */
export async function* readFolder(folder: string): AsyncGenerator<ArchiveEntry> {
  const root = await rootOf(folder)
  yield* walk(root, '', root, { left: TREE_LIMITS.files * 4 }, 0)
  const common = await commonOf(root)
  if (common !== undefined) yield* walk(common, '', common, { left: TREE_LIMITS.files * 4 }, 0)
}

/** The folder itself without links; of a folder of modules the one with the headers. */
async function rootOf(folder: string): Promise<string> {
  try {
    const build = await realpath(join(folder, 'build')).catch(() => undefined)
    return build ?? (await realpath(folder))
  } catch (cause) {
    throw new GeneratorError('invalid_headers', `${folder}: no such folder`, { cause })
  }
}

/** The folder that a Makefile of one line includes (`include /usr/src/linux-headers-6.1.0-57-common/Makefile`). */
async function commonOf(root: string): Promise<string | undefined> {
  const file = await open(join(root, 'Makefile')).catch(() => undefined)
  if (!file) return undefined
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(MAKEFILE), 0, MAKEFILE, 0)
    const text = buffer.toString('latin1', 0, bytesRead)
    const [, path] = /^include (\/[^\s]{1,1024})\/Makefile$/m.exec(text) ?? []
    if (path === undefined) return undefined
    // unpacked packages have it beside them, not where they say
    const beside = join(dirname(root), basename(path))
    const found = await realpath(beside).catch(() => undefined)
    return found !== undefined && isBeside(found, root) ? found : undefined
  } finally {
    await file.close()
  }
}

const isBeside = (path: string, root: string): boolean =>
  dirname(path) === dirname(root) && BESIDE.test(basename(path))

/** Tells whether the target of a link is in the folder, or in the headers of a folder beside it. */
function mayRead(target: string, root: string): boolean {
  if (target === root || target.startsWith(root + sep)) return true
  const parent = dirname(root) + sep
  if (!target.startsWith(parent)) return false
  const [name = '', part = ''] = target.slice(parent.length).split(sep)
  return BESIDE.test(name) && (part === 'include' || part === 'arch')
}

async function* walk(
  directory: string,
  path: string,
  root: string,
  budget: { left: number },
  depth: number,
): AsyncGenerator<ArchiveEntry> {
  if (depth > MAX_DEPTH) return
  const names = await readdir(directory).catch(() => [])
  for (const name of names.sort()) {
    if (budget.left-- <= 0) throw new GeneratorError('too_large', 'the folder has too many files')
    const file = join(directory, name)
    const own = await lstat(file).catch(() => undefined)
    if (!own) continue
    const target = own.isSymbolicLink() ? await realpath(file).catch(() => undefined) : file
    if (target === undefined || !(own.isSymbolicLink() ? mayRead(target, root) : true)) continue
    const found = own.isSymbolicLink() ? await stat(target).catch(() => undefined) : own
    const inside = path === '' ? name : `${path}/${name}`
    if (found?.isDirectory()) {
      if (isWorth(inside)) yield* walk(target, inside, root, budget, depth + 1)
    } else if (found?.isFile())
      yield { name: inside, regular: true, size: found.size, body: bytesOf(target) }
  }
}

/** Tells whether a folder may have headers of a tree, so that sources beside them are not walked. */
const isWorth = (path: string): boolean =>
  /^(?:include|arch)(?:$|\/)/.test(path)
    ? !path.startsWith('include/config/')
    : /^(?:usr|lib)(?:$|\/)/.test(path)

/** The bytes of a file, which is opened when they are read. */
async function* bytesOf(file: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(file, { highWaterMark: 1024 * 1024 })
}
