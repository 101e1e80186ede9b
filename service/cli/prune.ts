import { InvalidArgumentError } from 'commander'
import { Catalog, newestOfSeries, openStore } from '../../storage/index.ts'
import { checkFilter, type FilterOptions, filterOf } from './input.ts'
import { type RemoveOptions, remove } from './rm.ts'

interface PruneOptions extends RemoveOptions, FilterOptions {
  newest?: number
}

/** `btfmill prune`: removes all but the newest kernels of each series. Returns the exit status. */
export async function run({ newest, ...options }: PruneOptions): Promise<number> {
  if (newest === undefined) throw new InvalidArgumentError('prune needs --newest N')
  const store = await openStore(options.store, { create: false })
  const catalog = await Catalog.open(store)
  const filter = filterOf(options)
  checkFilter(catalog, filter, options.store)
  const kernels = [...catalog.list(filter)].map(({ record }) => record.kernel)
  const kept = new Set(newestOfSeries(kernels, newest, (kernel) => kernel))
  return await remove(
    store,
    catalog,
    kernels.filter((kernel) => !kept.has(kernel)),
    options,
  )
}
