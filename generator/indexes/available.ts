/*
 * The search for packages in all indexes of the sources. An index that cannot be read is stored as a failure and
 * reported; the others are read all the same.
 */
import {
  type Failure,
  type KernelFilter,
  mapConcurrent,
  namesOf,
  putSourceFailure,
  type Store,
  sourceFailureKey,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { OnEvent } from '../event.ts'
import { failureOf } from '../failure.ts'
import type { DownloadRetryOptions } from '../packages/download.ts'
import { findMirror, type Mirror } from '../sources/mirror.ts'
import type { KernelPackage, Source } from '../sources/source.ts'
import { sourcesFor } from '../sources/sources.ts'
import {
  baseOf,
  discover,
  type IndexTarget,
  indexTargetsOf,
  nameOfTarget,
  needsMirror,
  newestFirst,
} from './discover.ts'

/** Indexes that are read at once. */
const CONCURRENCY = 4

export interface PackageSearchOptions {
  /** keeps the failures of sources */
  store: Store
  filter?: KernelFilter
  /** also find kernel images: if they have BTF, the debug info is not needed */
  embedded?: boolean
  /** the known sources (default: the source table) */
  sources?: readonly Source[]
  /** id of the only source to read (default: those that `sourcesFor` selects) */
  source?: string
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
}

/** Finds the packages of the sources that match a filter. Errors: those of the store, and the signal's reason. */
export async function findPackages(options: PackageSearchOptions): Promise<PackageSearch> {
  const { embedded = false, source } = options
  const filter = canonicalFilter(options.filter ?? {})
  const sources = sourcesFor(filter, options.sources, source)
  const targets = sources.flatMap((source) => indexTargetsOf(source, filter, embedded))
  const mirror: Mirror = targets.some(needsMirror)
    ? await findMirror(options.mirror)
    : (repository) => repository
  const responses = new Map<string, Promise<Buffer>>()
  const results = await mapConcurrent(targets, CONCURRENCY, async (target) =>
    options.drain?.aborted
      ? []
      : await readTarget(target, mirror, responses, { ...options, filter }),
  )
  return {
    packages: newestFirst(results.flatMap((result) => ('code' in result ? [] : result))),
    failures: results.filter((result) => 'code' in result),
  }
}

/** The filter in the spelling of the sources: `alma` 9.5 becomes `almalinux` 9. */
function canonicalFilter(filter: KernelFilter): KernelFilter {
  const { distro, version } = filter
  if (distro === undefined) return filter
  const names = namesOf({ distro, version: version ?? 'any', arch: 'any', release: 'any' })
  const last = names.at(-1)!
  return { ...filter, distro: last.distro, ...(version !== undefined && { version: last.version }) }
}

async function readTarget(
  target: IndexTarget,
  mirror: Mirror,
  responses: Map<string, Promise<Buffer>>,
  { store, filter = {}, cache, retry, signal, onEvent, embedded = false }: PackageSearchOptions,
): Promise<KernelPackage[] | Failure> {
  const [source, name] = [target.source.id, nameOfTarget(target)]
  const suite = `${name}-${target.arch}`
  const about = { source, suite: name, arch: target.arch }
  try {
    const found = await discover(target, mirror, filter, {
      signal,
      responses,
      embedded,
      ...(cache && { cache }),
      ...(retry && { retry }),
    })
    await store.delete(sourceFailureKey(source, suite))
    onEvent?.({ event: 'discovered', ...about, packages: found.length })
    return found
  } catch (error) {
    signal?.throwIfAborted()
    if (!(error instanceof GeneratorError)) throw error
    const failure = failureOf(error, 1)
    const url = baseOf(target, mirror)
    await putSourceFailure(store, { schema: 1, source, suite, url, failure })
    onEvent?.({ event: 'source-failed', ...about, failure })
    return failure
  }
}
