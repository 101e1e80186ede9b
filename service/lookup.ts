/* Which BTF a kernel gets: exactly one, or the reason why none. A wrong one is worse than none. */
import {
  type BuildRecord,
  type Catalog,
  type KernelName,
  kernelPrefix,
  namesOf,
} from '../storage/index.ts'
import { ServiceError } from './error.ts'

/** What tells builds of one name apart; what is absent does not count. */
export interface BuildChoice {
  /** hex of the build-id note */
  build?: string
  /** `uname -v` */
  unameVersion?: string
}

/** As distribution and version: whatever they are. In a container os-release may be the container's. */
const ANY = 'any'

/**
 * All builds of a kernel under the first of its names that has any, newest first. A kernel that the catalog does not
 * know is looked for in the store once more.
 */
export async function findBuilds(catalog: Catalog, kernel: KernelName): Promise<BuildRecord[]> {
  if (kernel.distro === ANY) return findAnywhere(catalog, kernel)
  const find = () => namesOf(kernel).map((name) => catalog.find(name))
  const known = find().find((builds) => builds.some(({ btf }) => btf))
  if (known) return known
  for (const name of namesOf(kernel)) await catalog.refresh(kernelPrefix(name))
  return find().find((builds) => builds.length > 0) ?? []
}

/** All builds with that `uname -r` and architecture, of whatever distribution. */
function findAnywhere(catalog: Catalog, { version, arch, release }: KernelName): BuildRecord[] {
  return catalog
    .findBy('release', release)
    .filter(({ kernel }) => kernel.arch === arch && (version === ANY || version === kernel.version))
}

/**
 * The record whose BTF answers for a kernel. Errors: `unknown_kernel`, `ambiguous` with the builds, `embedded`,
 * `failed` with the failure.
 */
export async function lookUp(
  catalog: Catalog,
  kernel: KernelName,
  choice: BuildChoice = {},
): Promise<Available> {
  // a build-id is never ambiguous, so it finds its kernel under whatever name
  const identified = choice.build ? catalog.findBy('buildId', choice.build.toLowerCase()) : []
  const builds =
    identified.length > 0 ? identified : choose(await findBuilds(catalog, kernel), choice)
  const served = preferred(builds)
  const [first] = served
  if (!first) throw whyNone(kernel, builds)
  if (served.every(({ btf }) => btf.sha256 === first.btf.sha256)) return first
  throw new ServiceError(
    'ambiguous',
    `${kernel.release} has several builds; say which by build or uname-version`,
    {
      details: {
        builds: served.map(({ kernel, package: { version }, btf: { sha256 } }) => ({
          distro: kernel.distro,
          version: kernel.version,
          build: kernel.buildId,
          unameVersion: kernel.unameVersion,
          packageVersion: version,
          sha256,
        })),
      },
    },
  )
}

type Available = BuildRecord & Required<Pick<BuildRecord, 'btf'>>

/** Those with BTF; what others made and somebody imported counts only where we made none. */
function preferred(builds: readonly BuildRecord[]): Available[] {
  const available = builds.flatMap((record) => (record.btf ? [{ ...record, btf: record.btf }] : []))
  const own = available.filter(({ origin }) => origin !== 'import')
  return own.length > 0 ? own : available
}

/** The builds that are the one asked for; where no record knows of it, those that know nothing of theirs. */
function choose(
  builds: readonly BuildRecord[],
  { build, unameVersion }: BuildChoice,
): readonly BuildRecord[] {
  if (build !== undefined)
    return sameOrUnknown(builds, ({ kernel }) => kernel.buildId, build.toLowerCase())
  if (unameVersion !== undefined)
    return sameOrUnknown(builds, ({ kernel }) => kernel.unameVersion, unameVersion)
  return builds
}

function sameOrUnknown(
  builds: readonly BuildRecord[],
  of: (record: BuildRecord) => string | undefined,
  wanted: string,
): readonly BuildRecord[] {
  const same = builds.filter((record) => of(record) === wanted)
  return same.length > 0 ? same : builds.filter((record) => of(record) === undefined)
}

function whyNone(kernel: KernelName, builds: readonly BuildRecord[]): ServiceError {
  const failure = builds.find((record) => record.failure)?.failure
  if (failure) {
    const { code, message, attempts, at, retryAt } = failure
    return new ServiceError(
      'failed',
      `generating the BTF of ${kernel.release} failed: ${message}`,
      {
        details: { failure: { code, message, attempts, at, retryAt } },
      },
    )
  }
  if (builds.some(({ embedded }) => embedded)) {
    return new ServiceError(
      'embedded',
      `${kernel.release} has BTF of its own, in /sys/kernel/btf/vmlinux`,
    )
  }
  return new ServiceError(
    'unknown_kernel',
    `there is no BTF for ${Object.values(kernel).join(' ')}`,
  )
}
