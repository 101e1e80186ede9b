// Packages of a target's distribution, for the guest: found in the signed index, taken only with the digest that it
// names, by the generator's own code; unpacked by dpkg-deb and tar.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readPackages } from '../../generator/indexes/apt.ts'
import {
  indexTargetsOf,
  nameOfTarget,
  packageOf,
  suiteOf,
} from '../../generator/indexes/discover.ts'
import { downloadAll } from '../../generator/packages/download.ts'
import { findMirror } from '../../generator/sources/mirror.ts'
import { SOURCES } from '../../generator/sources/sources.ts'
import { compareVersions, type KernelName } from '../../storage/index.ts'

export type Package = ReturnType<typeof packageOf>

/**
 * The packages that a distribution has for an architecture (`uname -m`) under the names wanted, newest first. A suite
 * that does not authenticate now, as on a mirror amid its update, offers nothing; backports, whose packages want others
 * of backports, are left out. Rejects where none does.
 */
export async function findPackages(
  kernel: Pick<KernelName, 'distro' | 'version' | 'arch'>,
  wanted: (name: string) => boolean,
): Promise<Package[]> {
  const mirror = await findMirror()
  const shelves = [...SOURCES.values()]
    .flatMap((source) => (source.protocol === 'apt' ? indexTargetsOf(source, kernel) : []))
    .filter((shelf) => !nameOfTarget(shelf).endsWith('-backports'))
  const read = await Promise.allSettled(
    shelves.map(async (shelf) => {
      const suite = suiteOf(shelf, mirror)
      return (await readPackages(suite, wanted)).map((stanza) => packageOf(stanza, suite.base))
    }),
  )
  const found = read.flatMap((suite) => (suite.status === 'fulfilled' ? suite.value : []))
  if (found.length > 0) return found.sort((a, b) => compareVersions(b.version, a.version))
  throw new AggregateError(
    read.flatMap((suite) => (suite.status === 'rejected' ? [suite.reason] : [])),
    `no suite of ${kernel.distro} ${kernel.version} for ${kernel.arch} has what is wanted`,
  )
}

/** Downloads a package and unpacks it, or the members that match tar's `patterns`, into a directory. */
export async function unpackPackage(
  pkg: Package,
  into: string,
  patterns: readonly string[] = [],
): Promise<void> {
  const bytes = await downloadAll(pkg.url, pkg.size)
  if (createHash('sha256').update(bytes).digest('hex') !== pkg.sha256)
    throw new Error(`${pkg.url} is not the package that the signed index names`)
  const deb = spawn('dpkg-deb', ['--fsys-tarfile', '-'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const tar = spawn('tar', ['--extract', '--directory', into, '--wildcards', ...patterns], {
    stdio: ['pipe', 'inherit', 'inherit'],
  })
  // who does not read to the end breaks its pipe; whether all went well the exit statuses tell
  for (const pipe of [deb.stdin, tar.stdin]) pipe.on('error', () => {})
  deb.stdin.end(bytes)
  deb.stdout.pipe(tar.stdin)
  for (const [status] of await Promise.all([once(deb, 'close'), once(tar, 'close')])) {
    if (status !== 0) throw new Error(`${pkg.name} does not unpack`)
  }
}
