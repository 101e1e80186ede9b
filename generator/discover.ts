/* What a source offers: its suites' indexes, read and turned into kernel packages, newest first. */
import {
  canonicalArch,
  compareVersions,
  type KernelFilter,
  matchesFilter,
} from '../storage/index.ts'
import { type AptOptions, type AptSuite, readPackages, type Stanza } from './apt.ts'
import { GeneratorError } from './error.ts'
import type { Mirror } from './mirror.ts'
import type { KernelPackage, Source, Suite } from './source.ts'

/** A suite of a source, for one distribution version and architecture: what one index covers. */
export interface Shelf {
  source: Source
  version: string
  suite: Suite
  /** `uname -m` name */
  arch: string
}

/** The shelves of a source that a filter leaves. */
export function shelvesOf(source: Source, filter: KernelFilter): Shelf[] {
  const shelves: Shelf[] = []
  const wanted = (of: string | undefined, is: string) => of === undefined || of === is
  const filterArch = filter.arch === undefined ? undefined : canonicalArch(filter.arch)
  if (!wanted(filter.distro, source.distro)) return shelves
  for (const [version, suites] of Object.entries(source.versions)) {
    if (!wanted(filter.version, version)) continue
    for (const arch of Object.keys(source.architectures).filter((arch) =>
      wanted(filterArch, arch),
    )) {
      for (const suite of suites) shelves.push({ source, version, suite, arch })
    }
  }
  return shelves
}

/** The index that covers a shelf. */
export function suiteOf({ source, suite, arch }: Shelf, mirror: Mirror): AptSuite {
  return {
    base: mirror(suite.repository),
    suite: suite.suite,
    component: source.component,
    architecture: source.architectures[arch]!,
    keyring: source.keyring,
  }
}

/** The kernel packages on a shelf that a filter leaves. Errors: those of `readPackages`. */
export async function discover(
  shelf: Shelf,
  mirror: Mirror,
  filter: KernelFilter,
  options: AptOptions = {},
): Promise<KernelPackage[]> {
  const { source, version, arch } = shelf
  const pattern = new RegExp(source.packages)
  const suite = suiteOf(shelf, mirror)
  const stanzas = await readPackages(suite, (name) => pattern.test(name), options)
  return stanzas.flatMap((stanza) => {
    const release = pattern.exec(stanza.get('package') ?? '')?.[1] ?? ''
    const kernel = { distro: source.distro, version, arch, release }
    if (!matchesFilter(kernel, filter)) return []
    const paths = source.vmlinux.map((path) => path.replace('{release}', release))
    return [{ source: source.id, kernel, ...packageOf(stanza, suite.base), vmlinux: paths }]
  })
}

/** What a stanza says of its package's file. Errors: `bad_index`. */
export function packageOf(
  stanza: Stanza,
  base: string,
): Pick<KernelPackage, 'name' | 'version' | 'url' | 'size' | 'sha256'> {
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
