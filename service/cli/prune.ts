import { InvalidArgumentError } from 'commander'
import {
  type BuildRecord,
  Catalog,
  firstMonth,
  monthOf,
  newestOfSeries,
  openStore,
  recentUsage,
  type Store,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { checkFilter, type FilterOptions, filterOf } from './input.ts'
import { type RemoveOptions, remove } from './rm.ts'

interface PruneOptions extends RemoveOptions, FilterOptions {
  newest?: number
  unused?: number
}

/**
 * `btfmill prune`: removes all kernels but the newest of each series, and those that clients got in the last months.
 * Returns the exit status.
 */
export async function run({ newest, unused, ...options }: PruneOptions): Promise<number> {
  if (newest === undefined && unused === undefined)
    throw new InvalidArgumentError('prune needs --newest N, --unused MONTHS, or both')
  const store = await openStore(options.store, { create: false })
  const catalog = await Catalog.open(store)
  const filter = filterOf(options)
  checkFilter(catalog, filter, options.store)
  const records = [...catalog.list(filter)].map(({ record }) => record)
  const kept = new Set(newestOfSeries(records, newest ?? 0, ({ kernel }) => kernel))
  if (unused !== undefined) for (const used of await usedIn(store, records, unused)) kept.add(used)
  const gone = records.filter((record) => !kept.has(record)).map(({ kernel }) => kernel)
  return await remove(store, catalog, gone, options)
}

/** The records of kernels that clients got in the last months, or that are not older. Errors: `invalid_request` if the requests
 * of these months are not known. */
async function usedIn(
  store: Store,
  records: readonly BuildRecord[],
  months: number,
): Promise<BuildRecord[]> {
  const first = firstMonth(months)
  const { since, has } = await recentUsage(store, months)
  if (since === undefined || since > first) {
    const known = since === undefined ? 'no service has counted yet' : `counted since ${since}`
    const message = `cannot tell which kernels clients got since ${first}: ${known}`
    throw new ServiceError('invalid_request', message)
  }
  return records.filter(
    ({ kernel, createdAt }) => has(kernel) || monthOf(new Date(createdAt)) >= first,
  )
}
