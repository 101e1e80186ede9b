// Packages for benchmarks: the newest Debian kernels without BTF, downloaded once and kept.
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream, existsSync, mkdirSync, renameSync } from 'node:fs'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { download, GeneratorError } from '../../generator/index.ts'
import { type DebianPackage, findDebianPackages } from '../../generator/prove/package.ts'
import { type KernelName, matchGlob } from '../../storage/index.ts'

const NEWEST = {
  kernel: { distro: 'debian', version: '12', arch: 'i686' },
  name: 'linux-image-6.1.0-*[0-9]-686-pae-dbg',
}

/** Chooses packages of an index by a glob for their name. */
export interface Wanted {
  kernel: Pick<KernelName, 'distro' | 'version' | 'arch'>
  name: string
}

/** Returns the path of the package that most benchmarks use, below `directory`. */
export async function newestPackage(directory: string): Promise<string> {
  const [path] = await newestPackages(directory, NEWEST, 1)
  return path!
}

/**
 * Returns the paths of the newest `count` packages below `directory`, checked against the signed index. Skips packages
 * that the mirror no longer has.
 */
export async function newestPackages(
  directory: string,
  { kernel, name }: Wanted,
  count: number,
): Promise<string[]> {
  const paths: string[] = []
  for (const found of await findDebianPackages(kernel, (of) => matchGlob(name, of))) {
    if (paths.length === count) break
    const path = await keep(directory, found)
    if (path) paths.push(path)
  }
  if (paths.length < count)
    throw new Error(`the mirror has only ${paths.length} packages ${name}: expected ${count}`)
  return paths
}

async function keep(directory: string, { name, url, size, sha256 }: DebianPackage) {
  const path = join(directory, decodeURIComponent(basename(new URL(url).pathname)))
  if (existsSync(path)) return path
  mkdirSync(directory, { recursive: true })
  try {
    const { body } = await download(url)
    console.error(`downloading ${name}, ${Math.round(size / 1e6)} MB`)
    await pipeline(body, createWriteStream(`${path}.part`))
  } catch (error) {
    if (error instanceof GeneratorError && error.code === 'not_found_upstream') return undefined
    throw error
  }
  const hash = createHash('sha256')
  await pipeline(createReadStream(`${path}.part`), hash)
  if (hash.digest('hex') !== sha256)
    throw new Error(`${url}: the digest differs from the signed index`)
  renameSync(`${path}.part`, path)
  return path
}
