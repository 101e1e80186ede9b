/* Which BTF a kernel gets: exactly one, or the reason why none. A wrong one is worse than none. */
import { LRUCache } from 'lru-cache'
import {
  type BtfInfo,
  type BuildRecord,
  type Catalog,
  type KernelName,
  kernelPrefix,
  namesOf,
} from '../../storage/index.ts'
import { SingleFlight } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import { toPublicFailure } from './public-record.ts'

/** What tells builds of one name apart, and what is done where nothing does; what is absent does not count. */
export interface BuildChoice {
  /** hex of the build-id note */
  build?: string
  /** `uname -v` */
  unameVersion?: string
  /** of several builds of one kernel, take the newest */
  newest?: boolean
  /** what has to be equal for builds to be one answer: else the BTF alone */
  withModules?: boolean
}

/** A record with BTF. */
export type Available = BuildRecord & { btf: BtfInfo }

/** As distribution, version or architecture: whatever it is. In a container os-release may be the container's. */
export const ANY = 'any'

/**
 * All builds of a kernel under the first of its names that has any, newest first. A kernel that the catalog does not
 * know is looked for in the store once more.
 */
export async function findBuilds(catalog: Catalog, kernel: KernelName): Promise<BuildRecord[]> {
  const known = findKnown(catalog, kernel)
  if (isOpen(kernel) || known.some(({ btf }) => btf)) return known
  for (const name of namesOf(kernel)) await refresh(catalog, kernelPrefix(name))
  return findKnown(catalog, kernel)
}

/** The same of what the catalog knows: under the first name that has BTF, else the first that has builds. */
export function findKnown(catalog: Catalog, kernel: KernelName): BuildRecord[] {
  if (isOpen(kernel)) return findAnywhere(catalog, kernel)
  const found = namesOf(kernel).map((name) => catalog.find(name))
  return (
    found.find((builds) => builds.some(({ btf }) => btf)) ??
    found.find((builds) => builds.length > 0) ??
    []
  )
}

/** Whether it leaves something open. */
const isOpen = ({ distro, version, arch }: KernelName): boolean =>
  [distro, version, arch].includes(ANY)

/** Milliseconds for which a name that the store does not have is believed not to be there, and how many such names. */
const BELIEVED = { ttl: 1000, max: 10_000 }

interface Looks {
  underWay: SingleFlight<void>
  /** what was looked for lately */
  done: LRUCache<string, true>
}

const looks = new WeakMap<Catalog, Looks>()

/** Looks in the store, once for all who ask meanwhile or a moment later. */
async function refresh(catalog: Catalog, prefix: string): Promise<void> {
  const { underWay, done } = looks.get(catalog) ?? {
    underWay: new SingleFlight(),
    done: new LRUCache(BELIEVED),
  }
  looks.set(catalog, { underWay, done })
  if (done.has(prefix)) return
  await underWay.run(prefix, async () => {
    await catalog.refresh(prefix)
    done.set(prefix, true)
  })
}

/** All builds with that `uname -r` that are of what else is named. */
function findAnywhere(catalog: Catalog, kernel: KernelName): BuildRecord[] {
  const found = catalog.findBy('release', kernel.release)
  for (const name of namesOf(kernel)) {
    const fits = (key: 'distro' | 'version' | 'arch', of: KernelName) =>
      name[key] === ANY || name[key] === of[key]
    const builds = found.filter(
      ({ kernel: of }) => fits('distro', of) && fits('version', of) && fits('arch', of),
    )
    if (builds.length > 0) return builds
  }
  return []
}

/**
 * The record whose BTF answers for a kernel. Errors: `unknown_kernel`, `ambiguous` with the builds, `has_own_btf`,
 * `generation_failed` with the failure.
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
  return theOne(builds, choice, Object.values(kernel).join(' '))
}

/** The record of the build with that build-id, in hex. Errors: those of `lookUp`. */
export function lookUpBuild(catalog: Catalog, buildId: string, choice: BuildChoice): Available {
  const builds = catalog.findBy('buildId', buildId.toLowerCase())
  return theOne(builds, choice, `the build-id ${buildId}`)
}

function theOne(builds: readonly BuildRecord[], choice: BuildChoice, what: string): Available {
  const one = among(builds, choice)
  if (one) return one
  const served = preferred(builds)
  if (served.length === 0) throw whyNone(what, builds)
  throw new ServiceError(
    'ambiguous',
    `${what} has several builds; say which by build or uname-version`,
    {
      details: {
        builds: served.map(({ kernel, package: { version }, btf: { sha256 } }) => ({
          distro: kernel.distro,
          version: kernel.version,
          arch: kernel.arch,
          release: kernel.release,
          build: kernel.buildId,
          unameVersion: kernel.unameVersion,
          packageVersion: version,
          sha256,
        })),
      },
    },
  )
}

/** The build, newest first, whose BTF answers for all of them; undefined where there is none, or several that differ. */
export function among(builds: readonly BuildRecord[], choice: BuildChoice): Available | undefined {
  const served = preferred(builds)
  const [first] = served
  if (!first) return undefined
  if (served.every((other) => isSame(first, other, choice))) return first
  const oneKernel = served.every(({ kernel }) => isSameKernel(first.kernel, kernel))
  return choice.newest && oneKernel ? first : undefined
}

function isSame(a: Available, b: Available, { withModules }: BuildChoice): boolean {
  if (a.btf.sha256 !== b.btf.sha256) return false
  return !withModules || moduleDigests(a).join() === moduleDigests(b).join()
}

/** The digests of the BTF of a build's modules, in the order of the modules' names. */
export function moduleDigests({ modules = {} }: BuildRecord): string[] {
  return Object.keys(modules)
    .sort()
    .map((name) => modules[name]!.sha256)
}

const isSameKernel = (a: KernelName, b: KernelName): boolean => kernelPrefix(a) === kernelPrefix(b)

/** Those with BTF; what others made and somebody imported counts only where we made none. */
export function preferred(builds: readonly BuildRecord[]): Available[] {
  const available = builds.filter((record): record is Available => record.btf !== undefined)
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

function whyNone(what: string, builds: readonly BuildRecord[]): ServiceError {
  const failure = builds.find((record) => record.failure)?.failure
  if (failure) {
    const shown = toPublicFailure(failure)
    return new ServiceError(
      'generation_failed',
      `generating the BTF of ${what} failed: ${shown.message}`,
      {
        details: { failure: shown },
      },
    )
  }
  if (builds.some(({ embedded }) => embedded)) {
    return new ServiceError('has_own_btf', `${what} has BTF of its own, in /sys/kernel/btf/vmlinux`)
  }
  return new ServiceError('unknown_kernel', `there is no BTF for ${what}`)
}
