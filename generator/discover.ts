/* What a source offers: its indexes, read and turned into kernel packages, newest first. */
import {
  canonicalArch,
  compareVersions,
  type KernelFilter,
  matchesFilter,
} from '../storage/index.ts'
import { type AptOptions, type AptSuite, readPackages, type Stanza } from './apt.ts'
import { GeneratorError } from './error.ts'
import type { Mirror } from './mirror.ts'
import { fill, namingOf } from './naming.ts'
import type { AptSource, KernelPackage, Source } from './source.ts'

/** A repository of a source, for one distribution version and architecture: what one index covers. */
export interface Shelf<S extends Source = Source> {
  source: S
  version: string
  repository: S['versions'][string][number]
  /** `uname -m` name */
  arch: string
}

/** The shelves of a source that a filter leaves. */
export function shelvesOf<S extends Source>(source: S, filter: KernelFilter): Shelf<S>[] {
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
              .map((repository) => ({ source, version, repository, arch })),
          ),
  )
}

/** What a shelf's index is called within its source and architecture: for people, and for keys. */
export const nameOfShelf = ({ repository }: Shelf): string => repository.suite

/** The index that covers a shelf. */
export function suiteOf(shelf: Shelf<AptSource>, mirror: Mirror): AptSuite {
  const { source, repository, arch } = shelf
  const { components, keyrings, frozen = false } = source
  return {
    base: baseOf(shelf, mirror),
    suite: repository.suite,
    components,
    architecture: source.architectures[arch]!,
    keyrings,
    frozen,
  }
}

/** The URL of a shelf's repository, without a slash at its end. */
export function baseOf({ source, version, repository, arch }: Shelf, mirror: Mirror): string {
  const { repository: template } = repository
  if (/^[a-z0-9-]+$/.test(template)) return mirror(template)
  const parts = { mirror: source.mirror, version, arch: source.architectures[arch] }
  return (fill(template, parts) ?? template).replace(/\/+$/, '')
}

/** The kernel packages on a shelf that a filter leaves. Errors: those of `readPackages`. */
export async function discover(
  shelf: Shelf,
  mirror: Mirror,
  filter: KernelFilter,
  options: AptOptions = {},
): Promise<KernelPackage[]> {
  const { source, version, arch } = shelf
  const naming = namingOf(source.packages)
  const suite = suiteOf(shelf, mirror)
  const stanzas = await readPackages(suite, (name) => naming({ name }) !== undefined, options)
  return stanzas.flatMap((stanza) => {
    const { release = '' } = naming({ name: stanza.get('package') ?? '' }) ?? {}
    const kernel = { distro: source.distro, version, arch, release }
    const found = packageOf(stanza, suite.base)
    if (!matchesFilter(kernel, filter) || found.size < (source.smallest ?? 0)) return []
    const { sha256, ...rest } = found
    return [
      {
        source: source.id,
        kernel,
        ...rest,
        checksum: { algorithm: 'sha256', hex: sha256 },
        vouched: 'index',
        format: 'deb',
        vmlinux: source.vmlinux.map((path) => path.replaceAll('{release}', () => release)),
      },
    ]
  })
}

/** What a stanza says of its package's file. Errors: `bad_index`. */
export function packageOf(
  stanza: Stanza,
  base: string,
): { name: string; version: string; url: string; size: number; sha256: string } {
  const field = (name: string, pattern: RegExp): string => {
    const value = stanza.get(name) ?? ''
    if (pattern.test(value)) return value
    throw new GeneratorError(
      'bad_index',
      `${stanza.get('package')}: ${name} is ${JSON.stringify(value.slice(0, 80))}`,
    )
  }
  const path = field('filename', /^(?!\/)(?!.*\.\.)[\w.+~/:%-]+$/)
  return {
    name: field('package', /^[a-z0-9][a-z0-9+.-]*$/),
    version: field('version', /^[\w.+~:-]+$/),
    url: `${base}/${path.split('/').map(encodeURIComponent).join('/')}`,
    size: Number(field('size', /^\d{1,12}$/)),
    sha256: field('sha256', /^[0-9a-f]{64}$/),
  }
}

/** Newest first: by package version, then by release. One package that several suites have is listed once. */
export function newestFirst(packages: readonly KernelPackage[]): KernelPackage[] {
  const unique = new Map(
    packages.map((p) => [`${p.kernel.version} ${p.kernel.arch} ${p.name} ${p.version}`, p]),
  )
  return [...unique.values()].sort(
    (a, b) =>
      compareVersions(b.version, a.version) || compareVersions(b.kernel.release, a.kernel.release),
  )
}
