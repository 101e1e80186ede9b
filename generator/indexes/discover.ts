/* What a source offers: its indexes, read and turned into kernel packages, newest first. */
import {
  canonicalArch,
  compareVersions,
  type KernelFilter,
  matchesFilter,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { findKeyrings } from '../signature.ts'
import { fileBelow } from '../sources/location.ts'
import type { Mirror } from '../sources/mirror.ts'
import { fill, type Named, type NamingRule, namingOf, type PackageName } from '../sources/naming.ts'
import {
  type AptSource,
  type KernelPackage,
  keyringsOf,
  type LaunchpadSource,
  type ListingSource,
  nameOfRepository,
  type RpmMdSource,
  type SnapshotSource,
  type Source,
} from '../sources/source.ts'
import { type AptOptions, type AptSuite, readPackages, type Stanza } from './apt.ts'
import { readListing } from './directory-index.ts'
import { readLaunchpad } from './launchpad.ts'
import { readFromMirrors } from './mirror-list.ts'
import { readRpmMd, trustOf } from './rpm-md.ts'
import { readSnapshot } from './snapshot.ts'

/** A repository of a source, for one distribution version and architecture: what one index covers. */
export interface IndexTarget<S extends Source = Source> {
  source: S
  version: string
  repository: S['versions'][string][number]
  /** `uname -m` name */
  arch: string
}

/** The shelves of a source that a filter leaves; those of images alone where they are wanted. */
export function indexTargetsOf<S extends Source>(
  source: S,
  filter: KernelFilter,
  embedded = false,
): IndexTarget<S>[] {
  const wanted = (of: string | undefined, is: string) => of === undefined || of === is
  const filterArch = filter.arch === undefined ? undefined : canonicalArch(filter.arch)
  if (!wanted(filter.distro, source.distro)) return []
  return Object.entries(source.versions).flatMap(([version, repositories]) =>
    !wanted(filter.version, version)
      ? []
      : Object.keys(source.architectures)
          .filter((arch) => wanted(filterArch, arch))
          .flatMap((arch) =>
            repositories
              .filter(({ only }) => only?.includes(arch) ?? true)
              .filter(({ images = false }) => embedded || !images)
              .map((repository) => ({ source, version, repository, arch })),
          ),
  )
}

/** What a shelf's index is called within its source and architecture: for people, and for keys. */
export function nameOfTarget({ source, version, repository }: IndexTarget): string {
  const name = nameOfRepository(repository)
  return source.protocol === 'apt' ? name : `${version} ${name}`
}

/** A repository that is wherever the machine's apt has it. */
const NAME_ALONE = /^[a-z0-9-]+$/

/** Whether it takes a mirror to say where a shelf's repository is. */
export const needsMirror = ({ repository }: IndexTarget): boolean =>
  'url' in repository && NAME_ALONE.test(repository.url)

/** The URL of a shelf's repository, without a slash at its end. */
export function baseOf({ source, version, repository, arch }: IndexTarget, mirror: Mirror): string {
  const template = 'url' in repository ? repository.url : ''
  if (NAME_ALONE.test(template)) return mirror(template)
  const parts = { mirror: source.mirror, version, arch: source.architectures[arch] }
  return (fill(template, parts) ?? template).replace(/\/+$/, '')
}

/** The index that covers a shelf. */
export function suiteOf(shelf: IndexTarget<AptSource>, mirror: Mirror): AptSuite {
  const { source, repository, arch } = shelf
  const { components, keyrings, endOfLife = false } = source
  return {
    base: baseOf(shelf, mirror),
    suite: repository.suite,
    components,
    architecture: source.architectures[arch]!,
    keyrings,
    endOfLife,
  }
}

/** What an index says of a package, and what its name means. */
type FoundPackage = Meaning &
  Omit<KernelPackage, 'source' | 'kernel' | 'vmlinux' | 'rank' | 'image'>

/** What a package's name means. */
type Meaning = Named & { image?: boolean }

/** What readers of indexes are asked. */
interface IndexQuery<S extends Source> {
  shelf: IndexTarget<S>
  mirror: Mirror
  /** names of packages that are wanted */
  rules: readonly NamingRule[]
  /** What a package's name means; undefined for those that are not wanted. */
  naming(of: PackageName): Meaning | undefined
  options: AptOptions
}

export interface DiscoverOptions extends AptOptions {
  /** packages with the kernel itself, too */
  embedded?: boolean
}

/** The kernel packages on a shelf that a filter leaves. Errors: those of the reader of its protocol. */
export async function discover(
  shelf: IndexTarget,
  mirror: Mirror,
  filter: KernelFilter,
  { embedded = false, ...options }: DiscoverOptions = {},
): Promise<KernelPackage[]> {
  const { source, version, arch, repository } = shelf
  const debug = repository.images ? [] : source.packages
  const images = embedded ? (source.images ?? []) : []
  const [readDebug, readImage] = [namingOf(debug), namingOf(images)]
  const read = (of: PackageName): Meaning | undefined => {
    const named = readDebug(of)
    if (named) return named
    const image = readImage(of)
    return image && { ...image, image: true }
  }
  const kernelOf = (release: string, machine = arch) => ({
    ...{ distro: source.distro, version, arch: machine, release },
  })
  const naming = (of: PackageName) => {
    const named = read(of)
    return named && matchesFilter(kernelOf(named.release, named.machine), filter)
      ? named
      : undefined
  }
  const access = source.access && { access: source.access }
  const rules = [...debug, ...images]
  const question = { shelf, mirror, rules, naming, options: { ...options, ...access } }
  const found = await ask(question)
  return found
    .filter(({ size, image }) => image || size === undefined || size >= (source.minSize ?? 0))
    .map(({ release, machine, ...rest }) => ({
      ...rest,
      source: source.id,
      kernel: kernelOf(release, machine),
      vmlinux: pathsIn(source, rest).map((path) => path.replaceAll('{release}', () => release)),
    }))
}

const pathsIn = ({ vmlinux, vmlinuz = [] }: Source, { image }: { image?: boolean }) =>
  image ? vmlinuz : vmlinux

async function ask(question: IndexQuery<Source>): Promise<FoundPackage[]> {
  const { protocol } = question.shelf.source
  switch (protocol) {
    case 'apt':
      return await fromApt(question as IndexQuery<AptSource>)
    case 'rpm-md':
      return await fromRpmMd(question as IndexQuery<RpmMdSource>)
    case 'listing':
      return await fromListing(question as IndexQuery<ListingSource>)
    case 'launchpad':
      return await fromLaunchpad(question as IndexQuery<LaunchpadSource>)
    case 'snapshot':
      return await fromSnapshot(question as IndexQuery<SnapshotSource>)
    case 'files':
      return []
    default:
      return protocol satisfies never
  }
}

async function fromApt({
  shelf,
  mirror,
  naming,
  options,
}: IndexQuery<AptSource>): Promise<FoundPackage[]> {
  const suite = suiteOf(shelf, mirror)
  const stanzas = await readPackages(suite, (name) => naming({ name }) !== undefined, options)
  return stanzas.map((stanza) => {
    const { sha256, ...rest } = packageOf(stanza, suite.base)
    const named = naming({ name: rest.name })!
    return { ...named, ...rest, ...sha256Sum(sha256), trust: 'index', format: 'deb' }
  })
}

async function fromRpmMd(question: IndexQuery<RpmMdSource>): Promise<FoundPackage[]> {
  const { shelf, mirror, rules, naming, options } = question
  const { source, repository } = shelf
  const url = baseOf(shelf, mirror)
  const keyrings = keyringsOf(source, shelf.version)
  const read = (base: string) =>
    readRpmMd({ base, keyrings, signed: source.signed ?? false }, rules, options)
  const { packages, trust } = await (repository.list
    ? readFromMirrors(url, options, read)
    : read(url))
  const keys = trust === 'index' ? {} : await keysOf(keyrings)
  return packages.flatMap(({ epoch, version, revision, ...rest }) => {
    const named = ofArch(shelf, rest) && naming({ ...rest, version, revision })
    const full = `${epoch === '0' ? '' : `${epoch}:`}${version}-${revision}`
    const { arch: _, ...file } = rest
    return named ? [{ ...named, ...file, version: full, trust, format: 'rpm', ...keys }] : []
  })
}

async function fromListing(question: IndexQuery<ListingSource>): Promise<FoundPackage[]> {
  const { shelf, mirror, naming, options } = question
  const keys = await keysOf(keyringsOf(shelf.source, shelf.version))
  const files = await readListing(baseOf(shelf, mirror), options)
  return files.flatMap((file) => {
    const { name, version, revision, url } = file
    const named = ofArch(shelf, file) && naming(file)
    if (!named) return []
    const full = `${version}-${revision}`
    return [{ ...named, name, version: full, url, trust: 'none', format: 'rpm', ...keys }]
  })
}

async function fromLaunchpad(question: IndexQuery<LaunchpadSource>): Promise<FoundPackage[]> {
  const { shelf, mirror, naming, options } = question
  const { source, repository } = shelf
  const api = baseOf(shelf, mirror)
  const architecture = source.architectures[shelf.arch]!
  const series = { api, series: repository.series, architecture, hosts: source.hosts }
  const packages = await readLaunchpad(series, (name) => naming({ name }) !== undefined, options)
  return packages.map(({ sha256, ...rest }) => {
    const named = naming({ name: rest.name })!
    return { ...named, ...rest, ...sha256Sum(sha256), trust: trustOf(api), format: 'deb' }
  })
}

async function fromSnapshot(question: IndexQuery<SnapshotSource>): Promise<FoundPackage[]> {
  const { shelf, mirror, naming, options } = question
  const { source, repository } = shelf
  const base = baseOf(shelf, mirror)
  const architecture = source.architectures[shelf.arch]!
  const wanted = (name: string) => naming({ name }) !== undefined
  const packages = await readSnapshot({ base, ...repository, architecture }, wanted, options)
  return packages.map(({ sha1, ...rest }) => ({
    ...naming({ name: rest.name })!,
    ...rest,
    checksum: { algorithm: 'sha1', hex: sha1 },
    trust: trustOf(base),
    format: 'deb',
  }))
}

const sha256Sum = (hex: string) => ({ checksum: { algorithm: 'sha256', hex } }) as const

/** The keys that are there, to be compared with the signatures of packages. */
async function keysOf(keyrings: readonly string[]): Promise<{ keys?: string[] }> {
  const keys = await findKeyrings(keyrings)
  return keys.length > 0 ? { keys } : {}
}

const ofArch = ({ source, arch }: IndexTarget, of: PackageName): boolean =>
  of.arch === source.architectures[arch]

/** What a stanza says of its package's file. Errors: `invalid_index`. */
export function packageOf(
  stanza: Stanza,
  base: string,
): { name: string; version: string; url: string; size: number; sha256: string } {
  const field = (name: string, pattern: RegExp): string => {
    const value = stanza.get(name) ?? ''
    if (pattern.test(value)) return value
    throw new GeneratorError(
      'invalid_index',
      `${stanza.get('package')}: ${name} is ${JSON.stringify(value.slice(0, 80))}`,
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
const VOUCHED: readonly KernelPackage['trust'][] = ['index', 'digest', 'none']

/**
 * Newest first: by package version, then by release. One build that several sources or packages have is listed once, as
 * it is best vouched for, by the package that its source likes best: the image where there is one, with the package with
 * debug info to fall back on.
 */
export function newestFirst(packages: readonly KernelPackage[]): KernelPackage[] {
  const debug = bestOf(packages.filter(({ image }) => !image))
  const images = bestOf(packages.filter(({ image }) => image))
  const builds = [...new Set([...debug.keys(), ...images.keys()])].map((build) => {
    const [image, other] = [images.get(build), debug.get(build)]
    if (!image) return other!
    return { ...image, ...(other && { fallback: other }) }
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
  return (VOUCHED.indexOf(a.trust) - VOUCHED.indexOf(b.trust) || (a.rank ?? 0) - (b.rank ?? 0)) < 0
}
