/*
 * The search for packages in all indexes of the sources. An index that cannot be read is stored as a failure and
 * reported; the others are read all the same. A filter may have a value that no source has, or no package: whoever
 * asked learns which, and the values that there are.
 */
import {
  canonicalArch,
  type Failure,
  type FailureCode,
  type KernelFilter,
  mapConcurrent,
  matchGlob,
  namesOf,
  putSourceResult,
  type Store,
  showable,
  sourceResultKey,
  valuesOf,
  type Wanted,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { OnEvent } from '../event.ts'
import { failureOf, messageOf } from '../failure.ts'
import type { DownloadRetryOptions } from '../packages/download.ts'
import { hasPublishedKeys, lacksKeys } from '../sources/keys.ts'
import { findMirror, type Mirror } from '../sources/mirror.ts'
import {
  type KernelPackage,
  PACKAGE_ROLES,
  type PackageRole,
  type Source,
} from '../sources/source.ts'
import { ALL_SOURCES, sourcesFor } from '../sources/sources.ts'
import {
  baseOf,
  type DiscoverOptions,
  discover,
  exactReleases,
  type IndexTarget,
  indexTargetsOf,
  nameOfTarget,
  needsMirror,
  newestFirst,
  suiteOfTarget,
} from './discover.ts'

/** Milliseconds between two reports of the progress of an index. */
const PROGRESS_INTERVAL = 250

/** Indexes that are read at once. */
const CONCURRENCY = 4

/** Errors of an optional repository that mean that there is none. */
const SKIPPED_ERRORS: readonly FailureCode[] = ['no_access', 'not_found_upstream']

export interface PackageSearchOptions {
  /** keeps the last results of indexes */
  store: Store
  /** write nothing to the store */
  dryRun?: boolean
  filter?: KernelFilter
  /** only the newest builds of each index are needed, so many of them; more may be found (default: all) */
  newest?: number
  /** what the packages have of their kernels (default: anything) */
  roles?: readonly PackageRole[]
  /** the known sources (default: the source table) */
  sources?: readonly Source[]
  /** ids of the only sources to read (default: those that `sourcesFor` selects) */
  source?: Wanted
  /** URL of the main archive, `http://host/debian` */
  mirror?: string
  /** directory where indexes are kept between runs */
  cache?: string
  retry?: DownloadRetryOptions
  signal?: AbortSignal
  /** start to read no further index */
  drain?: AbortSignal
  onEvent?: OnEvent
}

export interface PackageSearch {
  /** newest first */
  packages: KernelPackage[]
  /** of the indexes that could not be read */
  failures: Failure[]
  /** the number of indexes that match, read or not */
  indexes: number
  /** a release of the filter that no package has; absent where an index was not read */
  mismatch?: SourceMismatch
}

/**
 * Finds the packages of the sources that match a filter. An exact release that the sources lack is then asked for by
 * name, as `findNamedReleases` does. Errors: those of the store, and the signal's reason.
 */
export async function findPackages(options: PackageSearchOptions): Promise<PackageSearch> {
  const { roles = PACKAGE_ROLES, source } = options
  const filter = canonicalFilter(options.filter ?? {})
  const sources = sourcesFor(filter, options.sources, source)
  const targets = sources.flatMap((source) => indexTargetsOf(source, filter, roles))
  await reportMissingKeys(targets, options.onEvent)
  const first = await readTargets(targets, filter, options)
  const found = new Set(first.packages.map(({ kernel }) => kernel.release))
  const missing = exactReleases(filter)?.filter((release) => !found.has(release)) ?? []
  const named =
    missing.length > 0
      ? await findNamedReleases({ ...options, filter: { ...filter, release: missing } }, sources)
      : NOTHING
  const packages = newestFirst([...first.packages, ...named.packages])
  const failures = [...first.failures, ...named.failures]
  const isWhole = failures.length === 0 && !options.drain?.aborted
  const mismatch = isWhole ? explainNoRelease(filter, packages, first.others) : undefined
  const indexes = targets.length + named.indexes
  return { packages, failures, indexes, ...(mismatch && { mismatch }) }
}

/** Tells which sources a run cannot check the signatures of, before it reads them. */
async function reportMissingKeys(
  targets: readonly IndexTarget[],
  onEvent: OnEvent | undefined,
): Promise<void> {
  const versions = new Map(targets.map((one) => [`${one.source.id} ${one.version}`, one]))
  const lacking = await mapConcurrent(
    versions.values(),
    CONCURRENCY,
    async ({ source, version }) => ((await lacksKeys(source, version)) ? [source] : []),
  )
  const sources = [...new Set(lacking.flat())]
  if (sources.length === 0) return
  const published = sources.filter(hasPublishedKeys)
  const ids = (list: readonly Source[]) => list.map(({ id }) => id)
  onEvent?.({ event: 'missing-keys', sources: ids(sources), published: ids(published) })
}

const NOTHING: PackageSearch = { packages: [], failures: [], indexes: 0 }

/**
 * Finds the packages of exact releases in the sources that answer for one name at the cost of a few requests: Launchpad
 * has what has left Ubuntu's archive. The filter must name the distribution and its version. `read`: sources that have
 * been read. Errors: as `findPackages`.
 */
export async function findNamedReleases(
  options: PackageSearchOptions,
  read: readonly Source[] = [],
): Promise<PackageSearch> {
  const { source, sources = ALL_SOURCES } = options
  const filter = canonicalFilter(options.filter ?? {})
  const { distro, version } = filter
  if (distro === undefined || version === undefined || !exactReleases(filter)) return NOTHING
  const named = sources.filter(
    (one) =>
      one.protocol === 'launchpad' &&
      !read.includes(one) &&
      (source === undefined || valuesOf(source).includes(one.id)),
  )
  const targets = named.flatMap((source) => indexTargetsOf(source, filter, ['debug']))
  const { packages, failures } = await readTargets(targets, filter, options)
  return { packages, failures, indexes: targets.length }
}

/** Reads indexes; `others` are the releases that match the rest of the filter only. */
async function readTargets(
  targets: readonly IndexTarget[],
  filter: KernelFilter,
  options: PackageSearchOptions,
): Promise<Pick<PackageSearch, 'packages' | 'failures'> & { others: ReadonlySet<string> }> {
  const mirror: Mirror = targets.some(needsMirror)
    ? await findMirror(options.mirror)
    : (repository) => repository
  const shared = { responses: new Map<string, Promise<Buffer>>(), others: new Set<string>() }
  const results = await mapConcurrent(targets, CONCURRENCY, async (target) =>
    options.drain?.aborted ? [] : await readTarget(target, mirror, shared, { ...options, filter }),
  )
  const packages = newestFirst(results.flatMap((result) => ('code' in result ? [] : result)))
  const failures = results.filter((result) => 'code' in result)
  return { packages, failures, others: shared.others }
}

/** Finds the first release of a filter that no package has. */
function explainNoRelease(
  { release = [] }: KernelFilter,
  packages: readonly KernelPackage[],
  others: ReadonlySet<string>,
): SourceMismatch | undefined {
  const found = new Set(packages.map(({ kernel }) => kernel.release))
  const isThere = (glob: string) => [...found].some((release) => matchGlob(glob, release))
  const value = valuesOf(release).find((glob) => !isThere(glob))
  return value === undefined
    ? undefined
    : { field: 'release', value, values: [...found.union(others)] }
}

/** The filter in the spelling of the sources: `alma` 9.5 becomes `almalinux` 9. */
function canonicalFilter(filter: KernelFilter): KernelFilter {
  const { distro, version } = filter
  if (distro === undefined) return filter
  const names = valuesOf(distro).flatMap((distro) =>
    valuesOf(version ?? 'any').map(
      (version) => namesOf({ distro, version, arch: 'any', release: 'any' }).at(-1)!,
    ),
  )
  return {
    ...filter,
    distro: [...new Set(names.map(({ distro }) => distro))],
    ...(version !== undefined && { version: [...new Set(names.map(({ version }) => version))] }),
  }
}

/** A value of a filter that excludes every source, or every package, and the values that do not. */
export interface SourceMismatch {
  field: 'source' | keyof KernelFilter
  value: string
  values: string[]
}

/** Finds the first value of a filter, or of `ids`, that no source has; undefined if there is none. */
export function explainNoSource(
  filter: KernelFilter,
  sources: readonly Source[],
  ids?: Wanted,
): SourceMismatch | undefined {
  const indexed = sources.filter(({ versions }) => Object.keys(versions).length > 0)
  const fields = {
    source: [ids, ({ id }: Source) => [id]],
    distro: [filter.distro, ({ distro }: Source) => [distro]],
    version: [filter.version, ({ versions }: Source) => Object.keys(versions)],
    arch: [filter.arch, ({ architectures }: Source) => Object.keys(architectures)],
  } as const
  let left = ids === undefined ? indexed : sources
  for (const [name, [wanted, valuesIn]] of Object.entries(fields)) {
    if (wanted === undefined) continue
    const field = name as SourceMismatch['field']
    const having = (value: string) => {
      const same = sameAs(field, value, filter)
      return left.filter((source) => valuesIn(source).some((known) => same.includes(known)))
    }
    const bad = valuesOf(wanted).find((value) => having(value).length === 0)
    if (bad !== undefined)
      return { field, value: bad, values: [...new Set(left.flatMap(valuesIn))] }
    left = [...new Set(valuesOf(wanted).flatMap(having))]
  }
  return undefined
}

/** The values in the spelling of the sources that a value of a filter stands for. */
function sameAs(
  field: SourceMismatch['field'],
  value: string,
  { distro }: KernelFilter,
): readonly string[] {
  if (field === 'source') return [value]
  if (field === 'arch') return [canonicalArch(value)]
  const filter = field === 'version' && distro !== undefined ? { distro } : {}
  return valuesOf(canonicalFilter({ ...filter, [field]: value })[field]!)
}

async function readTarget(
  target: IndexTarget,
  mirror: Mirror,
  shared: Required<Pick<DiscoverOptions, 'responses' | 'others'>>,
  {
    store,
    dryRun,
    filter = {},
    cache,
    retry,
    signal,
    onEvent,
    roles = PACKAGE_ROLES,
    newest,
  }: PackageSearchOptions,
): Promise<KernelPackage[] | Failure> {
  const [source, name] = [target.source.id, nameOfTarget(target)]
  const suite = suiteOfTarget(target)
  const about = { source, suite: name, arch: target.arch }
  let refused: { entries: number; message: string } | undefined
  const url = showable(baseOf(target, mirror))
  const keep = async (result: { failure: Failure } | { readAt: string }) => {
    if (!dryRun) await putSourceResult(store, { schema: 1, source, suite, url, ...result })
  }
  try {
    const found = await discover(target, mirror, filter, {
      signal,
      ...shared,
      ...(newest !== undefined && { newest }),
      onRefused(error) {
        refused ??= { entries: 0, message: messageOf(error) }
        refused.entries++
      },
      roles,
      ...(onEvent && { onRead: reporter(about, onEvent) }),
      ...(cache && { cache }),
      ...(retry && { retry }),
    })
    await keep({ readAt: new Date().toISOString() })
    onEvent?.({
      event: 'discovered',
      ...about,
      packages: found.length,
      ...(refused && { refused }),
    })
    return found
  } catch (error) {
    signal?.throwIfAborted()
    if (!(error instanceof GeneratorError)) throw error
    if (target.repository.optional && SKIPPED_ERRORS.includes(error.code)) {
      if (!dryRun) await store.delete(sourceResultKey(source, suite))
      return []
    }
    const failure = failureOf(error, 1)
    await keep({ failure })
    onEvent?.({ event: 'source-failed', ...about, failure })
    return failure
  }
}

/** Reports how far an index is read: each new file, such as a page of a list, and then its bytes, but not too often. */
function reporter(
  about: { source: string; suite: string; arch: string },
  onEvent: OnEvent,
): (url: string, read: number, size: number | undefined) => void {
  const urls = new Set<string>()
  let last = 0
  return (url, read, size) => {
    const now = Date.now()
    const isDue = !urls.has(url) || read === size || now - last >= PROGRESS_INTERVAL
    urls.add(url)
    if (!isDue) return
    last = now
    onEvent({ event: 'reading', ...about, url: showable(url), read, size, files: urls.size })
  }
}
