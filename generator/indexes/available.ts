/* What sources offer, of all their suites: one that cannot be read is stored and told, and never hides the others. */
import {
  type Failure,
  type KernelFilter,
  namesOf,
  putSourceFailure,
  type Store,
  sourceFailureKey,
} from '../../storage/index.ts'
import { mapConcurrent } from '../concurrency.ts'
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

/** How many indexes are read at once. */
const SHELVES = 4

export interface PackageSearchOptions {
  /** where it is kept that a source could not be read */
  store: Store
  filter?: KernelFilter
  /** packages with the kernel itself, too, whose BTF may save reading the debug info */
  embedded?: boolean
  /** those that are known; else all that btfmill knows */
  sources?: readonly Source[]
  /** id of the only one that is asked; else those that `sourcesFor` has */
  source?: string
  /** URL of the main archive, `http://host/debian` */
  mirror?: string
  /** where indexes are kept between runs */
  cache?: string
  retry?: DownloadRetryOptions
  signal?: AbortSignal
  /** read no further source */
  drain?: AbortSignal
  onEvent?: OnEvent
}

export interface PackageSearch {
  /** newest first */
  packages: KernelPackage[]
  /** why suites could not be read */
  failures: Failure[]
}

/** The packages that sources offer and a filter leaves. Throws where the store fails, and the signal's reason. */
export async function findPackages(options: PackageSearchOptions): Promise<PackageSearch> {
  const { embedded = false, source } = options
  const filter = ruled(options.filter ?? {})
  const sources = sourcesFor(filter, options.sources, source)
  const shelves = sources.flatMap((source) => indexTargetsOf(source, filter, embedded))
  const mirror: Mirror = shelves.some(needsMirror)
    ? await findMirror(options.mirror)
    : (repository) => repository
  const asked = new Map<string, Promise<Buffer>>()
  const read = await mapConcurrent(shelves, SHELVES, async (shelf) =>
    options.drain?.aborted ? [] : await readShelf(shelf, mirror, asked, { ...options, filter }),
  )
  return {
    packages: newestFirst(read.flatMap((found) => ('code' in found ? [] : found))),
    failures: read.filter((found) => 'code' in found),
  }
}

/** A filter in the words of the sources: `alma` 9.5 is `almalinux` 9. */
function ruled(filter: KernelFilter): KernelFilter {
  const { distro, version } = filter
  if (distro === undefined) return filter
  const names = namesOf({ distro, version: version ?? 'any', arch: 'any', release: 'any' })
  const last = names.at(-1)!
  return { ...filter, distro: last.distro, ...(version !== undefined && { version: last.version }) }
}

async function readShelf(
  shelf: IndexTarget,
  mirror: Mirror,
  asked: Map<string, Promise<Buffer>>,
  { store, filter = {}, cache, retry, signal, onEvent, embedded = false }: PackageSearchOptions,
): Promise<KernelPackage[] | Failure> {
  const [source, name] = [shelf.source.id, nameOfTarget(shelf)]
  const suite = `${name}-${shelf.arch}`
  const about = { source, suite: name, arch: shelf.arch }
  try {
    const found = await discover(shelf, mirror, filter, {
      signal,
      asked,
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
    const url = baseOf(shelf, mirror)
    await putSourceFailure(store, { schema: 1, source, suite, url, failure })
    onEvent?.({ event: 'source-failed', ...about, failure })
    return failure
  }
}
