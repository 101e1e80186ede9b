// Packages of a target's distribution, for the guest. The generator's own code finds them in the signed index and checks
// their digests; dpkg-deb and tar unpack them.
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
 * Finds a distribution's packages for an architecture (`uname -m`) by name, newest first. Skips suites that do not
 * authenticate now, as on a mirror during its update, and backports, whose packages depend on other backports. Rejects
 * if no suite has a matching package.
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
    `no suite of ${kernel.distro} ${kernel.version} has these packages for ${kernel.arch}`,
  )
}

/** Downloads a package and unpacks it into a directory; with `patterns`, only the members that match for tar. */
export async function unpackPackage(
  pkg: Package,
  into: string,
  patterns: readonly string[] = [],
): Promise<void> {
  const bytes = await downloadAll(pkg.url, pkg.size)
  if (createHash('sha256').update(bytes).digest('hex') !== pkg.sha256)
    throw new Error(`${pkg.url}: the digest differs from the signed index`)
  const deb = spawn('dpkg-deb', ['--fsys-tarfile', '-'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const tar = spawn('tar', ['--extract', '--directory', into, '--wildcards', ...patterns], {
    stdio: ['pipe', 'inherit', 'inherit'],
  })
  // tar may close its pipe early; the exit statuses tell whether it succeeded
  for (const pipe of [deb.stdin, tar.stdin]) pipe.on('error', () => {})
  deb.stdin.end(bytes)
  deb.stdout.pipe(tar.stdin)
  for (const [status] of await Promise.all([once(deb, 'close'), once(tar, 'close')])) {
    if (status !== 0) throw new Error(`${pkg.name}: unpacking failed with status ${status}`)
  }
}
