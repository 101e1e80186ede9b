/*
 * Looks up the BTF of a kernel: exactly one, or an error that says why there is none. Wrong BTF is worse than none, so
 * nothing here guesses between builds.
 */

import { LRUCache } from 'lru-cache'
import type { CheckOptions } from '../../bpf/index.ts'
import {
  type BtfInfo,
  type BuildRecord,
  type Catalog,
  type KernelName,
  kernelPrefix,
  type ModuleInfo,
  namesOf,
} from '../../storage/index.ts'
import { SingleFlight } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import { toPublicFailure } from './public-record.ts'

/** Chooses between builds of one kernel; absent properties do not restrict the choice. */
export interface BuildChoice {
  /** the build-id note, in hex */
  build?: string
  /** `uname -v` */
  unameVersion?: string
  /** take the newest if several builds of one kernel match */
  newest?: boolean
  /** builds count as equal only if the BTF of their modules is equal too */
  withModules?: boolean
}

/** A record with BTF. */
export type Available = BuildRecord & { btf: BtfInfo }

/**
 * The wildcard for distribution, version and architecture. Agents in containers need it: os-release may describe the
 * container instead of the host.
 */
export const ANY = 'any'

/**
 * Finds all builds of a kernel, newest first, under the first of its names that has any. Refreshes the catalog from the
 * store if it has no BTF of the kernel. Errors: those of `Catalog.refresh`.
 */
export async function findBuilds(catalog: Catalog, kernel: KernelName): Promise<BuildRecord[]> {
  const known = findKnown(catalog, kernel)
  if (hasWildcard(kernel) || known.some(({ btf }) => btf)) return known
  for (const name of namesOf(kernel)) await refresh(catalog, kernelPrefix(name))
  return findKnown(catalog, kernel)
}

/**
 * Finds all builds of a kernel in the catalog as it is, under the first of its names that has BTF. If none has BTF, it
 * takes the first name that has builds.
 */
export function findKnown(catalog: Catalog, kernel: KernelName): BuildRecord[] {
  if (hasWildcard(kernel)) return findByRelease(catalog, kernel)
  const found = namesOf(kernel).map((name) => catalog.find(name))
  return (
    found.find((builds) => builds.some(({ btf }) => btf)) ??
    found.find((builds) => builds.length > 0) ??
    []
  )
}

const WILDCARD_PARTS = ['distro', 'version', 'arch'] as const

const hasWildcard = (kernel: KernelName): boolean =>
  WILDCARD_PARTS.some((part) => kernel[part] === ANY)

/** Limits of the negative cache: milliseconds before a missing kernel is searched again, and the number of names. */
const NEGATIVE_CACHE = { ttl: 1000, max: 10_000 }

interface Refreshes {
  flights: SingleFlight<void>
  /** prefixes that were refreshed within the last second */
  recent: LRUCache<string, true>
}

const refreshes = new WeakMap<Catalog, Refreshes>()

/** Refreshes a prefix of the catalog. Concurrent calls, and calls within the next second, share one listing. */
async function refresh(catalog: Catalog, prefix: string): Promise<void> {
  const { flights, recent } = refreshes.get(catalog) ?? {
    flights: new SingleFlight(),
    recent: new LRUCache(NEGATIVE_CACHE),
  }
  refreshes.set(catalog, { flights, recent })
  if (recent.has(prefix)) return
  await flights.run(prefix, async () => {
    await catalog.refresh(prefix)
    recent.set(prefix, true)
  })
}

/** Finds the builds of a release whose distribution, version and architecture are equal, where they are not `ANY`. */
function findByRelease(catalog: Catalog, kernel: KernelName): BuildRecord[] {
  const found = catalog.findBy('release', kernel.release)
  for (const name of namesOf(kernel)) {
    const builds = found.filter(({ kernel: candidate }) =>
      WILDCARD_PARTS.every((part) => name[part] === ANY || name[part] === candidate[part]),
    )
    if (builds.length > 0) return builds
  }
  return []
}

/**
 * Returns the record whose BTF is served for a kernel. Errors: `unknown_kernel`, `ambiguous` with the builds,
 * `has_own_btf`, `generation_failed` with the failure; those of `Catalog.refresh`.
 */
export async function lookUp(
  catalog: Catalog,
  kernel: KernelName,
  choice: BuildChoice = {},
): Promise<Available> {
  // a build-id identifies one build, whatever name the client gives the kernel
  const identified = choice.build ? catalog.findBy('buildId', choice.build.toLowerCase()) : []
  const builds =
    identified.length > 0 ? identified : filterBuilds(await findBuilds(catalog, kernel), choice)
  return requireBuild(builds, choice, Object.values(kernel).join(' '))
}

/**
 * Returns the record with a build-id, given in hex. Errors: `unknown_kernel`, `ambiguous` with the builds,
 * `has_own_btf`, `generation_failed` with the failure.
 */
export function lookUpBuild(catalog: Catalog, buildId: string, choice: BuildChoice): Available {
  const builds = catalog.findBy('buildId', buildId.toLowerCase())
  return requireBuild(builds, choice, `the build-id ${buildId}`)
}

function requireBuild(
  builds: readonly BuildRecord[],
  choice: BuildChoice,
  what: string,
): Available {
  const selected = selectBuild(builds, choice)
  if (selected) return selected
  const served = preferred(builds)
  if (served.length === 0) throw noBtfError(what, builds)
  throw new ServiceError(
    'ambiguous',
    `${what} has several builds with different BTF: choose one with build or uname-version`,
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

/**
 * Returns the first of the builds whose BTF is served for all of them; undefined if none has BTF, or if their BTF
 * differs. With `choice.newest` it may differ between builds of one kernel. The builds are ordered newest first.
 */
export function selectBuild(
  builds: readonly BuildRecord[],
  choice: BuildChoice,
): Available | undefined {
  const served = preferred(builds)
  const [first] = served
  if (!first) return undefined
  if (served.every((other) => hasSameBtf(first, other, choice))) return first
  const oneKernel = served.every(({ kernel }) => isSameKernel(first.kernel, kernel))
  return choice.newest && oneKernel ? first : undefined
}

function hasSameBtf(a: Available, b: Available, { withModules }: BuildChoice): boolean {
  if (a.btf.sha256 !== b.btf.sha256) return false
  return !withModules || moduleDigests(a).join() === moduleDigests(b).join()
}

/** The BTF of a build's modules, ordered by module name. */
export function modulesOf({ modules = {} }: BuildRecord): ModuleInfo[] {
  return Object.keys(modules)
    .sort()
    .map((name) => modules[name]!)
}

/** The SHA-256 digests of the BTF of a build's modules, ordered by module name. */
export const moduleDigests = (record: BuildRecord): string[] =>
  modulesOf(record).map(({ sha256 }) => sha256)

/** What a check of BPF objects wants to know besides the kernel's BTF. */
export type KernelFacts = Omit<CheckOptions, 'modules' | 'functions'>

/** The facts that decide: most objects do not ask for the release, and kernels with equal BTF give them equal results. */
export function decidingFacts(facts: KernelFacts, usesRelease: boolean): KernelFacts {
  const { release: _, ...others } = facts
  return usesRelease ? facts : others
}

export function factsOf({ kernel, embedded }: BuildRecord): KernelFacts {
  const { release } = kernel
  return embedded === undefined ? { release } : { release, hasOwnBtf: embedded }
}

const isSameKernel = (a: KernelName, b: KernelName): boolean => kernelPrefix(a) === kernelPrefix(b)

/** The builds with BTF. Imported BTF is a fallback: it counts only if no build has generated BTF. */
export function preferred(builds: readonly BuildRecord[]): Available[] {
  const available = builds.filter((record): record is Available => record.btf !== undefined)
  const own = available.filter(({ origin }) => origin !== 'import')
  return own.length > 0 ? own : available
}

/**
 * The builds that match the requested build-id or `uname -v`. If none matches, the builds whose records lack that
 * property: each of them may be the requested one.
 */
function filterBuilds(
  builds: readonly BuildRecord[],
  { build, unameVersion }: BuildChoice,
): readonly BuildRecord[] {
  if (build !== undefined)
    return equalOrUnknown(builds, ({ kernel }) => kernel.buildId, build.toLowerCase())
  if (unameVersion !== undefined)
    return equalOrUnknown(builds, ({ kernel }) => kernel.unameVersion, unameVersion)
  return builds
}

function equalOrUnknown(
  builds: readonly BuildRecord[],
  identityOf: (record: BuildRecord) => string | undefined,
  wanted: string,
): readonly BuildRecord[] {
  const equal = builds.filter((record) => identityOf(record) === wanted)
  return equal.length > 0 ? equal : builds.filter((record) => identityOf(record) === undefined)
}

function noBtfError(what: string, builds: readonly BuildRecord[]): ServiceError {
  const failure = builds.find((record) => record.failure)?.failure
  if (failure) {
    const shown = toPublicFailure(failure)
    const message = `generating the BTF of ${what} failed: ${shown.message}`
    return new ServiceError('generation_failed', message, { details: { failure: shown } })
  }
  if (builds.some(({ embedded }) => embedded)) {
    const message = `${what} was built with BTF: read it on the host, from /sys/kernel/btf/vmlinux`
    return new ServiceError('has_own_btf', message)
  }
  return new ServiceError('unknown_kernel', `there is no BTF for ${what}`)
}
