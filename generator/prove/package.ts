/*
 * Debian packages by their names, for what a guest needs besides its kernel. They are found in signed indexes, their
 * digests are checked, and only their regular files are unpacked.
 */
import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import { Readable } from 'node:stream'
import { compareVersions, type KernelName, matchGlob } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { readPackages } from '../indexes/apt.ts'
import { baseOf, indexTargetsOf, nameOfTarget, packageOf, suiteOf } from '../indexes/discover.ts'
import { readDeb } from '../packages/deb.ts'
import { downloadAll } from '../packages/download.ts'
import { UNPACK_LIMITS, writeFile } from '../packages/unpack.ts'
import { findMirror } from '../sources/mirror.ts'
import { sourcesFor } from '../sources/sources.ts'

export type DebianPackage = ReturnType<typeof packageOf>

interface PackageOptions {
  /** URL of the main archive, `http://host/debian` */
  mirror?: string | undefined
  signal?: AbortSignal | undefined
}

/**
 * Finds a distribution's packages for an architecture (`uname -m`) by name, newest first. Skips suites that do not
 * authenticate now, as on a mirror during its update, and backports, whose packages depend on other backports. Rejects
 * with the errors of all suites if none has a matching package.
 */
export async function findDebianPackages(
  kernel: Pick<KernelName, 'distro' | 'version' | 'arch'>,
  wanted: (name: string) => boolean,
  { mirror: given, signal }: PackageOptions = {},
): Promise<DebianPackage[]> {
  const mirror = await findMirror(given)
  const shelves = sourcesFor(kernel)
    .flatMap((source) => (source.protocol === 'apt' ? indexTargetsOf(source, kernel) : []))
    .filter((shelf) => !nameOfTarget(shelf).endsWith('-backports'))
  const read = await Promise.allSettled(
    shelves.map(async (shelf) => {
      const suite = suiteOf(shelf, baseOf(shelf, mirror))
      const stanzas = await readPackages(suite, wanted, { ...(signal && { signal }) })
      return stanzas.map((stanza) => packageOf(stanza, suite.base))
    }),
  )
  signal?.throwIfAborted()
  const found = read.flatMap((suite) => (suite.status === 'fulfilled' ? suite.value : []))
  if (found.length > 0) return found.sort((a, b) => compareVersions(b.version, a.version))
  const reasons = read.flatMap((suite) => (suite.status === 'rejected' ? [suite.reason] : []))
  const [first] = reasons
  if (first instanceof GeneratorError) throw first
  throw new AggregateError(
    reasons,
    `no suite of ${kernel.distro} ${kernel.version} has these packages for ${kernel.arch}`,
  )
}

/**
 * Downloads a package and unpacks its regular files into a directory; with `patterns`, only those whose paths match one.
 * Errors: `digest_mismatch`; those of `downloadAll`, `readDeb` and `writeFile`.
 */
export async function unpackDebianPackage(
  { url, size, sha256 }: DebianPackage,
  into: string,
  patterns: readonly string[] = ['*'],
  signal?: AbortSignal,
): Promise<void> {
  const bytes = await downloadAll(url, size, { signal })
  if (createHash('sha256').update(bytes).digest('hex') !== sha256)
    throw new GeneratorError('digest_mismatch', `${url}: the digest differs from the signed index`)
  for await (const { name, regular, body } of readDeb(
    Readable.from([bytes]),
    UNPACK_LIMITS.unpacked,
  )) {
    signal?.throwIfAborted()
    const path = normalize(`/${name}`)
    if (!regular || !patterns.some((pattern) => matchGlob(pattern, path.slice(1)))) continue
    const target = join(into, path)
    await mkdir(dirname(target), { recursive: true })
    await writeFile(body, target)
  }
}
