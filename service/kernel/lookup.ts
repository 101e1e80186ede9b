/*
 * Looks up the BTF of a kernel: exactly one, or an error that says why there is none. Wrong BTF is worse than none, so
 * nothing here guesses between builds.
 *
 * A client names a kernel by what os-release says, which may be a derivative's or a container's. So the name is tried
 * first, then the names of the distribution's parents, then the release alone. Under another name than its own, a build
 * counts if its build-id or `uname -v` is the client's. If one of the two is not known, it counts as long as nothing
 * contradicts: no other build has that release, and no build of another version or rebuild may have it.
 */

import { LRUCache } from 'lru-cache'
import type { CheckOptions } from '../../bpf/index.ts'
import {
  ANY,
  type BtfInfo,
  type BuildRecord,
  type Catalog,
  type KernelHints,
  type KernelName,
  kernelPrefix,
  type ModuleInfo,
  mayRebuild,
  namesOf,
  parentsOf,
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

/** How a build was found: by the kernel's name, by its build-id, by the name of a parent, or by the release alone. */
export const FOUND_BY = ['name', 'build-id', 'parent', 'release'] as const
export type FoundBy = (typeof FOUND_BY)[number]

/** Chooses a build, and says what os-release tells of the distribution's parents. */
export type LookupChoice = BuildChoice & KernelHints

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
  choice: LookupChoice = {},
): Promise<Available> {
  // a build-id identifies one build, whatever name the client gives the kernel
  const identified = choice.build ? catalog.findBy('buildId', choice.build.toLowerCase()) : []
  if (identified.length > 0) return requireBuild(identified, choice, textOf(kernel))
  const named = await findBuilds(catalog, kernel)
  const builds = filterBuilds(named, choice)
  if (builds.length > 0 || hasWildcard(kernel)) return requireBuild(builds, choice, textOf(kernel))
  const tried: string[] = []
  for (const parent of parentNamesOf(kernel, choice)) {
    const own = await findBuilds(catalog, parent)
    const found = fitting(own, choice, named)
    const selected = selectBuild(found, choice)
    if (selected) return selected
    // a name without a version may stand for several kernels
    if (found.length > 0 && !hasWildcard(parent))
      return requireBuild(
        found,
        choice,
        `${textOf(parent)}, the parent of ${kernel.distro} ${kernel.version},`,
      )
    tried.push(`${parent.distro} ${parent.version}`)
  }
  const released = findByReleaseAlone(catalog, kernel, choice, named)
  if (released) return released
  throw new ServiceError('unknown_kernel', noNameMessage(kernel, tried))
}

/** Tells whether a client that names a kernel and no build finds its BTF, in the catalog as it is. */
export function isFound(catalog: Catalog, kernel: KernelName): boolean {
  const named = findKnown(catalog, kernel)
  if (named.length > 0 || hasWildcard(kernel)) return named.some(({ btf }) => btf)
  const parents = parentNamesOf(kernel, {})
  return (
    parents.some((parent) => selectBuild(findKnown(catalog, parent), {})) ||
    findByReleaseAlone(catalog, kernel, {}, []) !== undefined
  )
}

/** How a record that `lookUp` returned was found. */
export function foundBy(
  kernel: KernelName,
  choice: LookupChoice,
  { kernel: found }: BuildRecord,
): FoundBy {
  const isNamed = (name: KernelName) =>
    ([...WILDCARD_PARTS, 'release'] as const).every((part) => name[part] === found[part])
  if (namesOf(kernel).some(isNamed)) return 'name'
  if (choice.build !== undefined && choice.build.toLowerCase() === found.buildId) return 'build-id'
  const isParent = ({ version, ...name }: KernelName) =>
    isNamed({ ...name, version: version === ANY ? found.version : version })
  return !hasWildcard(kernel) && parentNamesOf(kernel, choice).some(isParent) ? 'parent' : 'release'
}

/** The names of a kernel as its distribution's parents have it; the version may be `ANY`. */
const parentNamesOf = (kernel: KernelName, hints: KernelHints): KernelName[] =>
  parentsOf(kernel, hints).map(({ distro, version = ANY }) => ({ ...kernel, distro, version }))

/** The builds under another name that may be the requested one. If the kernel's own name is `named`, a build must be it. */
function fitting(
  builds: readonly BuildRecord[],
  choice: BuildChoice,
  named: readonly BuildRecord[],
): readonly BuildRecord[] {
  const found = filterBuilds(builds, choice)
  return named.length > 0 ? found.filter((record) => isConfirmed(record, choice)) : found
}

/**
 * The build with a release and an architecture, whatever its distribution. It is the only one, or its identity is
 * confirmed. A release of digits alone, as developers build it, is no name.
 */
function findByReleaseAlone(
  catalog: Catalog,
  kernel: KernelName,
  choice: LookupChoice,
  named: readonly BuildRecord[],
): Available | undefined {
  const all = findByRelease(catalog, { ...kernel, distro: ANY, version: ANY })
  const found = fitting(all, choice, named)
  const available = found.filter((record): record is Available => record.btf !== undefined)
  const [first] = available
  if (!first || !available.every((other) => hasSameBtf(first, other, choice))) return undefined
  if (isConfirmed(first, choice)) return first
  // a build whose BTF is missing may be the requested one, too
  if (available.length < found.length || /^[\d.]+\+?$/.test(kernel.release)) return undefined
  const own = [namesOf(kernel).at(-1)!, ...parentNamesOf(kernel, choice)]
  const mayBeRebuild = available.some((record) =>
    own.some(({ distro }) => mayRebuild(distro, record.kernel.distro)),
  )
  return mayBeRebuild ? undefined : first
}

/** Tells whether a build is known to be the requested one. */
const isConfirmed = (
  { kernel: { buildId, unameVersion } }: BuildRecord,
  choice: BuildChoice,
): boolean =>
  choice.build === undefined
    ? choice.unameVersion !== undefined && choice.unameVersion === unameVersion
    : choice.build.toLowerCase() === buildId

/** Names that an error lists. */
const MAX_LISTED = 3

function noNameMessage(kernel: KernelName, tried: readonly string[]): string {
  const others = tried.slice(0, MAX_LISTED).map((name) => `for ${name}, `)
  return `there is no BTF for ${textOf(kernel)}, nor ${others.join('')}nor for this release alone`
}

const textOf = ({ distro, version, arch, release }: KernelName): string =>
  [distro, version, arch, release].join(' ')

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
export type KernelFacts = Omit<CheckOptions, 'modules' | 'functions' | 'onVersion'>

/** The facts that decide: most objects do not ask for the release, and kernels with equal BTF give them equal results. */
export function decidingFacts(facts: KernelFacts, usesRelease: boolean): KernelFacts {
  const { release: _, ...others } = facts
  return usesRelease ? facts : others
}

export function factsOf({ kernel, embedded, origin }: BuildRecord): KernelFacts {
  const { release } = kernel
  return {
    release,
    ...(embedded !== undefined && { hasOwnBtf: embedded }),
    ...(origin === 'headers' && { partial: true }),
  }
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
