/* Discovery: reads the indexes of a source and turns their entries into kernel packages, newest first. */
import {
  canonicalArch,
  compareVersions,
  isGlob,
  type KernelFilter,
  matchesFilter,
  matchGlob,
  valuesOf,
  type Wanted,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { findKeyrings } from '../signature.ts'
import { fileBelow } from '../sources/location.ts'
import type { Mirror } from '../sources/mirror.ts'
import {
  type DescribedName,
  fill,
  type Named,
  type NamingRule,
  namesOfRelease,
  namingOf,
} from '../sources/naming.ts'
import {
  type AptSource,
  type HeaderPart,
  isEndOfLife,
  type KernelPackage,
  keyringsOf,
  type LaunchpadSource,
  type ListingSource,
  nameOfRepository,
  PACKAGE_ROLES,
  type PackageRole,
  type RepositoryAccess,
  type RpmMdSource,
  type SnapshotSource,
  type Source,
} from '../sources/source.ts'
import { type AptOptions, type AptSuite, readPackages, type Stanza } from './apt.ts'
import { readListing } from './directory-index.ts'
import { usableEntries } from './entries.ts'
import { readLaunchpad } from './launchpad.ts'
import { readFromFirst, readFromMirrors } from './mirror-list.ts'
import { readRpmMd, trustOf } from './rpm-md.ts'
import { readSnapshot } from './snapshot.ts'

/** One index: a repository of a source for one distribution version and architecture. */
export interface IndexTarget<S extends Source = Source> {
  source: S
  version: string
  repository: S['versions'][string][number]
  /** `uname -m` name */
  arch: string
}

/** The index targets of a source that match a filter and may have packages with one of the roles. */
export function indexTargetsOf<S extends Source>(
  source: S,
  filter: KernelFilter,
  roles: readonly PackageRole[] = ['debug'],
): IndexTarget<S>[] {
  const matches = (wanted: Wanted | undefined, value: string) =>
    wanted === undefined || valuesOf(wanted).includes(value)
  const arch = filter.arch === undefined ? undefined : valuesOf(filter.arch).map(canonicalArch)
  if (!matches(filter.distro, source.distro)) return []
  const versions = Object.entries(source.versions).filter(([version]) =>
    matches(filter.version, version),
  )
  const architectures = Object.keys(source.architectures).filter((each) => matches(arch, each))
  return versions.flatMap(([version, repositories]) =>
    architectures.flatMap((arch) =>
      repositories
        .filter(({ only }) => only?.includes(arch) ?? true)
        .filter(({ images = false }) => !images || roles.some((role) => role !== 'debug'))
        .filter((repository) => hasRules({ source, repository }, roles))
        .map((repository) => ({ source, version, repository, arch })),
    ),
  )
}

/** Tells whether a source has rules for packages with one of the roles: some sources have headers to compile only. */
const hasRules = (
  target: Pick<IndexTarget, 'source' | 'repository'>,
  roles: readonly PackageRole[],
) => roles.some((role) => rulesOf(target)[role].length > 0)

/** The name of an index within its source and architecture, for people and for keys. */
export function nameOfTarget({ source, version, repository }: IndexTarget): string {
  const name = nameOfRepository(repository)
  return source.protocol === 'apt' ? name : `${version} ${name}`
}

/** The name of an index within its source, as its last result is stored. */
export const suiteOfTarget = (target: IndexTarget): string =>
  `${nameOfTarget(target)}-${target.arch}`

/** A URL that is only a name: the repository is where apt on this machine, or the mirror, has it. */
const REPOSITORY_NAME = /^[a-z0-9-]+$/

/** Tells whether the URL of a target's repository depends on the mirror. */
export const needsMirror = ({ repository }: IndexTarget): boolean =>
  'url' in repository && REPOSITORY_NAME.test(repository.url)

/** The URLs of a target's repository on each mirror of its source, without trailing slashes and without tokens. */
export function basesOf(target: IndexTarget, mirror: Mirror): [string, ...string[]] {
  const [base, ...others] = urlsOf(target, mirror).map((url) => url.replace(/\/*(\?.*)?$/s, ''))
  return [base!, ...others]
}

/** The URLs of a target's repository on each mirror of its source, with tokens, which are their queries. */
function urlsOf({ source, version, repository, arch }: IndexTarget, mirror: Mirror): string[] {
  const template = 'url' in repository ? repository.url : ''
  if (REPOSITORY_NAME.test(template)) return [mirror(template)]
  const urlOn = (mirror: string | undefined) =>
    fill(template, { mirror, version, arch: source.architectures[arch] }) ?? template
  const [first, ...others] = [source.mirror].flat()
  return [...new Set([first, ...others].map(urlOn))]
}

/** The files that open the repositories of a source, and the tokens that their URLs have. */
export function accessOf(source: Source): RepositoryAccess | undefined {
  const urls = indexTargetsOf(source, {}, PACKAGE_ROLES)
    .flatMap((target) => urlsOf(target, (repository) => repository))
    .filter((url) => url.includes('?'))
  return source.access || urls.length > 0 ? { ...source.access, urls } : undefined
}

/** The URL of a target's repository on the first mirror. */
export const baseOf = (target: IndexTarget, mirror: Mirror): string => basesOf(target, mirror)[0]

/** The apt suite of a target at a URL. */
export function suiteOf(target: IndexTarget<AptSource>, base: string): AptSuite {
  const { source, repository, arch } = target
  const { components, keyrings } = source
  return {
    base,
    suite: repository.suite,
    components,
    architecture: source.architectures[arch]!,
    keyrings,
    endOfLife: isEndOfLife(source, target.version),
  }
}

/** A package as an index has it, with the kernel that its name stands for. */
type FoundPackage = NamedPackage &
  Omit<KernelPackage, 'source' | 'kernel' | 'vmlinux' | 'rank' | 'role'>

/** The kernel that a package's name stands for, and what the package has of it. */
type NamedPackage = Named & { role: PackageRole }

/** The input of the readers, one per protocol. */
interface IndexQuery<S extends Source> {
  target: IndexTarget<S>
  /** URL of its repository */
  base: string
  /** rules for the names of wanted packages */
  rules: readonly NamingRule[]
  /** The kernel that a package's name stands for; undefined for unwanted packages. */
  naming(name: DescribedName): NamedPackage | undefined
  /** exact releases, if the filter names no others */
  releases?: readonly string[] | undefined
  options: Omit<DiscoverOptions, 'roles' | 'others'>
}

export interface DiscoverOptions extends AptOptions {
  /** what the packages have (default: debug info only) */
  roles?: readonly PackageRole[]
  /** the newest builds are enough, so many of them; an index that has them in one file returns all (default: all) */
  newest?: number
  /** gets the releases of packages that match the rest of the filter only */
  others?: Set<string>
}

/** Reads an index and returns the kernel packages that match a filter. Errors: those of its protocol's reader. */
export async function discover(
  target: IndexTarget,
  mirror: Mirror,
  filter: KernelFilter,
  { roles = ['debug'], others, ...options }: DiscoverOptions = {},
): Promise<KernelPackage[]> {
  const { source, version, arch } = target
  const ofRole = rulesOf(target)
  // the rule of images may match packages with debug info, too
  // and that of headers to compile those with the kernel's own BTF
  const isDevel = roles.includes('devel')
  const order = isDevel ? (['devel'] as const) : (['debug', 'image', 'headers'] as const)
  const readers = order.map((role) => {
    return { role, read: namingOf(ofRole[role]) }
  })
  const kernelOf = (release: string, machine = arch) => {
    return { distro: source.distro, version, arch: machine, release }
  }
  const naming = (name: DescribedName): NamedPackage | undefined => {
    const [named] = readers.values().flatMap(({ role, read }) => {
      const found = read(name)
      return found ? [{ ...found, role }] : []
    })
    if (!named || !roles.includes(named.role)) return undefined
    const kernel = kernelOf(named.release, named.machine)
    if (matchesFilter(kernel, filter)) return named
    const { release: _, ...rest } = filter
    if (matchesFilter(kernel, rest)) others?.add(kernel.release)
    return undefined
  }
  const access = accessOf(source)
  const releases = exactReleases(filter)
  const rules = roles.flatMap((role) => ofRole[role])
  const query = {
    target,
    rules,
    naming,
    releases,
    options: { ...options, ...(access && { access }) },
  }
  const found = await readFromFirst(basesOf(target, mirror), (base) =>
    queryIndex({ ...query, base }),
  )
  return found
    .filter(
      ({ size, role }) => role !== 'debug' || size === undefined || size >= (source.minSize ?? 0),
    )
    .map(({ release, machine, ...rest }) => ({
      ...rest,
      source: source.id,
      kernel: kernelOf(release, machine),
      vmlinux: pathsIn(source)[rest.role].map((path) =>
        path.replaceAll('{release}', () => release),
      ),
    }))
}

/** Releases that are cheaper to ask for one by one than in a list of all. */
const MAX_EXACT = 20

/** The releases of a filter; undefined if it has none, or patterns, or too many to ask for them one by one. */
export function exactReleases({ release }: KernelFilter): readonly string[] | undefined {
  if (release === undefined) return undefined
  const releases = valuesOf(release)
  return releases.length <= MAX_EXACT && !releases.some(isGlob) ? releases : undefined
}

/** The rules for packages of each role in a repository. */
const rulesOf = ({
  source: { packages, images = [], headers = [], devel = [] },
  repository,
}: Pick<IndexTarget, 'source' | 'repository'>): Record<PackageRole, readonly NamingRule[]> => ({
  debug: repository.images ? [] : packages,
  image: images,
  headers,
  devel,
})

/** The paths of vmlinux in packages of each role. */
const pathsIn = ({
  vmlinux,
  vmlinuz = [],
  headersVmlinux = [],
}: Source): Record<PackageRole, readonly string[]> => ({
  debug: vmlinux,
  image: vmlinuz,
  headers: headersVmlinux,
  devel: [],
})

async function queryIndex(query: IndexQuery<Source>): Promise<FoundPackage[]> {
  const { protocol } = query.target.source
  switch (protocol) {
    case 'apt':
      return await fromApt(query as IndexQuery<AptSource>)
    case 'rpm-md':
      return await fromRpmMd(query as IndexQuery<RpmMdSource>)
    case 'listing':
      return await fromListing(query as IndexQuery<ListingSource>)
    case 'launchpad':
      return await fromLaunchpad(query as IndexQuery<LaunchpadSource>)
    case 'snapshot':
      return await fromSnapshot(query as IndexQuery<SnapshotSource>)
    case 'files':
      return []
    default:
      return protocol satisfies never
  }
}

async function fromApt(query: IndexQuery<AptSource>): Promise<FoundPackage[]> {
  const { target, base, naming, options } = query
  const suite = suiteOf(target, base)
  // the stanzas of all kernels, whatever the filter, so that one cached result serves all runs
  const selection = Object.values(rulesOf(target)).flat()
  const byName = namingOf(
    selection.map(({ description: _, ...rule }) => ({ ...rule, release: '' })),
  )
  const { develParts = [] } = target.source
  const isPart = (name: string) => develParts.some((glob) => matchGlob(glob, name))
  const stanzas = await readPackages(
    suite,
    (name) => byName({ name }) !== undefined || isPart(name),
    { ...options, selection: [selection, develParts] },
  )
  const wanted = stanzas.filter((stanza) => naming(nameIn(stanza)))
  const packages = usableEntries(
    wanted,
    (stanza) => ({ ...packageOf(stanza, suite.base), stanza }),
    options,
  )
  const parts = new Map(
    stanzas
      .filter((stanza) => isPart(stanza.get('package')!))
      .map((stanza) => [`${stanza.get('package')} ${stanza.get('version')}`, stanza]),
  )
  return packages.map(({ sha256, stanza, ...rest }) => {
    const named = naming(nameIn(stanza))!
    const found = named.role === 'devel' ? partsOf(stanza, parts, suite.base) : []
    return {
      ...named,
      ...rest,
      ...sha256Sum(sha256),
      ...(found.length > 0 && { parts: found }),
      trust: 'index',
      format: 'deb',
    }
  })
}

/** The name of a package, with the first line of its description, which names the kernel where the name does not. */
function nameIn(stanza: Stanza): DescribedName {
  const [description = ''] = (stanza.get('description') ?? '').split('\n')
  return { name: stanza.get('package')!, description: description.slice(0, MAX_DESCRIPTION) }
}

/** Characters of a description that rules see. */
const MAX_DESCRIPTION = 200
/** Characters of a package's dependencies that are read, and parts that it may have. */
const MAX_DEPENDS = 4096
const MAX_PARTS = 8

/** The packages of the same version that a package with headers depends on, as far as the index has them. */
function partsOf(stanza: Stanza, known: ReadonlyMap<string, Stanza>, base: string): HeaderPart[] {
  const depends = (stanza.get('depends') ?? '').slice(0, MAX_DEPENDS).split(',')
  return depends
    .flatMap((one) => {
      const [name = ''] = one.trim().split(/[ (|:]/)
      const part = known.get(`${name} ${stanza.get('version')}`)
      if (!part) return []
      const { url, size, sha256 } = packageOf(part, base)
      return [{ name, url, size, ...sha256Sum(sha256), format: 'deb' as const }]
    })
    .slice(0, MAX_PARTS)
}

async function fromRpmMd(query: IndexQuery<RpmMdSource>): Promise<FoundPackage[]> {
  const { target, base: url, rules, naming, options } = query
  const { source, repository } = target
  const keyrings = keyringsOf(source, target.version)
  const architecture = source.architectures[target.arch]!
  const endOfLife = isEndOfLife(source, target.version)
  const { access: _, ...open } = options
  const read = (base: string) =>
    readRpmMd(
      { base, keyrings, signed: source.signed ?? false, endOfLife },
      rules,
      new URL(base).origin === new URL(url).origin ? options : open, // a list of mirrors names other servers
    )
  const { packages, trust } = await (repository.list
    ? readFromMirrors({ url, architecture, plain: repository.list === 'plain' }, options, read)
    : read(url))
  const keys = trust === 'index' ? {} : await keysOf(keyrings)
  return packages.flatMap(({ epoch, version, revision, ...rest }) => {
    const named = isOfArch(target, rest) && naming({ ...rest, version, revision })
    if (!named) return []
    const fullVersion = `${epoch === '0' ? '' : `${epoch}:`}${version}-${revision}`
    const { arch: _, ...file } = rest
    return [{ ...named, ...file, version: fullVersion, trust, format: 'rpm', ...keys }]
  })
}

async function fromListing(query: IndexQuery<ListingSource>): Promise<FoundPackage[]> {
  const { target, base, naming, options } = query
  const keys = await keysOf(keyringsOf(target.source, target.version))
  const files = await readListing(base, options)
  return files.flatMap((file) => {
    const { name, version, revision, url } = file
    const named = isOfArch(target, file) && naming(file)
    if (!named) return []
    const fullVersion = `${version}-${revision}`
    return [{ ...named, name, version: fullVersion, url, trust: 'none', format: 'rpm', ...keys }]
  })
}

async function fromLaunchpad(query: IndexQuery<LaunchpadSource>): Promise<FoundPackage[]> {
  const { target, base: api, naming, rules, releases, options } = query
  const { source, repository } = target
  const architecture = source.architectures[target.arch]!
  const series = { api, series: repository.series, architecture, hosts: source.hosts }
  const names = namesOfAll(releases, rules)
  const { minSize = 0 } = source
  const search = { naming: (name: string) => naming({ name }), minSize }
  const packages = await readLaunchpad(
    series,
    {
      ...search,
      ...(names && { names }),
      ...(options.newest !== undefined && { limit: options.newest }),
    },
    options,
  )
  return packages.map(({ sha256, ...rest }) => {
    const named = naming({ name: rest.name })!
    return { ...named, ...rest, ...sha256Sum(sha256), trust: trustOf(api), format: 'deb' }
  })
}

async function fromSnapshot(query: IndexQuery<SnapshotSource>): Promise<FoundPackage[]> {
  const { target, base, naming, rules, releases, options } = query
  const { source, repository } = target
  const { newest } = options
  const names = namesOfAll(releases, rules)
  const architecture = source.architectures[target.arch]!
  const wanted = (name: string) => naming({ name }) !== undefined
  const packages = await readSnapshot(
    { base, ...repository, architecture, newest, names },
    wanted,
    options,
  )
  return packages.map(({ sha1, ...rest }) => ({
    ...naming({ name: rest.name })!,
    ...rest,
    checksum: { algorithm: 'sha1', hex: sha1 },
    trust: trustOf(base),
    format: 'deb',
  }))
}

/** The names of the packages of releases, by release; undefined if there are no exact releases, or the rules do not tell. */
function namesOfAll(
  releases: readonly string[] | undefined,
  rules: readonly NamingRule[],
): string[][] | undefined {
  const names = releases?.map((release) => namesOfRelease(rules, release))
  return names?.every((each) => each !== undefined) ? names : undefined
}

const sha256Sum = (hex: string) => ({ checksum: { algorithm: 'sha256', hex } }) as const

/** The keyrings on this machine, for the signatures of packages. */
async function keysOf(keyrings: readonly string[]): Promise<{ keys?: string[] }> {
  const keys = await findKeyrings(keyrings)
  return keys.length > 0 ? { keys } : {}
}

const isOfArch = ({ source, arch }: IndexTarget, name: DescribedName): boolean =>
  name.arch === source.architectures[arch]

/** Reads the fields of a stanza that describe the package's file. Errors: `invalid_index`. */
export function packageOf(
  stanza: Stanza,
  base: string,
): { name: string; version: string; url: string; size: number; sha256: string } {
  const field = (name: string, pattern: RegExp): string => {
    const value = stanza.get(name) ?? ''
    if (pattern.test(value)) return value
    throw new GeneratorError(
      'invalid_index',
      `package ${stanza.get('package')}: invalid ${name} ${JSON.stringify(value.slice(0, 80))}`,
    )
  }
  return {
    name: field('package', /^[a-z0-9][a-z0-9+.-]*$/),
    version: field('version', /^[\w.+~:-]+$/),
    url: fileBelow(base, field('filename', /^/)),
    size: Number(field('size', /^\d{1,12}$/)),
    sha256: field('sha256', /^[0-9a-f]{64}$/),
  }
}

/** From the best to the worst. */
const TRUST_ORDER: readonly KernelPackage['trust'][] = ['index', 'digest', 'none']

/**
 * Sorts packages by package version, then by release, newest first. A build that several sources or packages have is
 * listed once, with the packages of its other roles as fallbacks, the smallest role first. Of several packages with one
 * role, the one with the best trust is taken, then the one with the lowest rank.
 */
export function newestFirst(packages: readonly KernelPackage[]): KernelPackage[] {
  const roles = [...PACKAGE_ROLES, 'devel' as const]
  const best = roles.map((role) => bestOf(packages.filter((found) => found.role === role)))
  const builds = [...new Set(best.flatMap((found) => [...found.keys()]))].map((build) => {
    const [first, ...fallbacks] = best.flatMap((found) => found.get(build) ?? [])
    return fallbacks.length > 0 ? { ...first!, fallbacks } : first!
  })
  return builds.sort(
    (a, b) =>
      compareVersions(b.version, a.version) || compareVersions(b.kernel.release, a.kernel.release),
  )
}

/** The best package of each build. */
function bestOf(packages: readonly KernelPackage[]): Map<string, KernelPackage> {
  const best = new Map<string, KernelPackage>()
  for (const found of packages) {
    const { distro, version, arch, release } = found.kernel
    const build = [distro, version, arch, release, found.version].join(' ')
    const other = best.get(build)
    if (!other || isBetter(found, other)) best.set(build, found)
  }
  return best
}

function isBetter(a: KernelPackage, b: KernelPackage): boolean {
  const byTrust = TRUST_ORDER.indexOf(a.trust) - TRUST_ORDER.indexOf(b.trust)
  return (byTrust || (a.rank ?? 0) - (b.rank ?? 0)) < 0
}
