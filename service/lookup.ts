/* Which BTF a kernel gets: exactly one, or the reason why none. A wrong one is worse than none. */
import { type BuildRecord, type Catalog, type KernelName, kernelPrefix } from '../storage/index.ts'
import { ServiceError } from './error.ts'

/** What tells builds of one name apart; what is absent does not count. */
export interface BuildChoice {
  /** hex of the build-id note */
  build?: string
  /** `uname -v` */
  unameVersion?: string
}

/** All builds of a kernel, newest first; a kernel the catalog does not know is looked for in the store once more. */
export async function findBuilds(catalog: Catalog, kernel: KernelName): Promise<BuildRecord[]> {
  const known = catalog.find(kernel)
  if (known.some(({ btf }) => btf)) return known
  await catalog.refresh(kernelPrefix(kernel))
  return catalog.find(kernel)
}

/**
 * The record whose BTF answers for a kernel. Errors: `unknown_kernel`, `ambiguous` with the builds, `embedded`,
 * `failed` with the failure.
 */
export async function lookUp(
  catalog: Catalog,
  kernel: KernelName,
  choice: BuildChoice = {},
): Promise<BuildRecord & { btf: NonNullable<BuildRecord['btf']> }> {
  const builds = choose(await findBuilds(catalog, kernel), choice)
  const served = builds.flatMap((record) => (record.btf ? [{ ...record, btf: record.btf }] : []))
  const [first] = served
  if (!first) throw whyNone(kernel, builds)
  if (served.every(({ btf }) => btf.sha256 === first.btf.sha256)) return first
  throw new ServiceError(
    'ambiguous',
    `${kernel.release} has several builds; say which by build or uname-version`,
    {
      details: {
        builds: served.map(
          ({ kernel: { buildId, unameVersion }, package: { version }, btf: { sha256 } }) => ({
            build: buildId,
            unameVersion,
            packageVersion: version,
            sha256,
          }),
        ),
      },
    },
  )
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
