// The package that benchmarks work on: the newest of Debian 12's kernels without BTF, downloaded once and kept.
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream, existsSync, mkdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { download } from '../../generator/index.ts'
import { matchGlob } from '../../storage/index.ts'
import { findPackages } from '../e2e/package.ts'

const NAME = 'linux-image-6.1.0-*[0-9]-686-pae-dbg'

/** Path of the package below `directory`, whole and with the digest that the signed index names. */
export async function newestPackage(directory: string): Promise<string> {
  const kernel = { distro: 'debian', version: '12', arch: 'i686' }
  const [pkg] = await findPackages(kernel, (name) => matchGlob(NAME, name))
  if (!pkg) throw new Error(`there is no ${NAME}`)
  const path = join(directory, `${pkg.name}_${pkg.version}_i386.deb`)
  if (!existsSync(path)) {
    console.error(`downloading ${pkg.name}, ${Math.round(pkg.size / 1e6)} MB`)
    mkdirSync(directory, { recursive: true })
    await pipeline((await download(pkg.url)).body, createWriteStream(`${path}.part`))
    const hash = createHash('sha256')
    await pipeline(createReadStream(`${path}.part`), hash)
    if (hash.digest('hex') !== pkg.sha256) throw new Error(`${pkg.url} is not what the index names`)
    renameSync(`${path}.part`, path)
  }
  return path
}
