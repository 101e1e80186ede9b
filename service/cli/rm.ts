import { InvalidArgumentError } from 'commander'
import {
  Catalog,
  type FreedObjects,
  freedBy,
  type KernelName,
  openStore,
  removeKernels,
  type Store,
} from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { nameOf } from '../kernel/name.ts'
import { findNamed } from '../kernel/named.ts'
import { type CommonOptions, checkFilter, type FilterOptions, filterOf, readKey } from './input.ts'
import { counted, printable } from './output.ts'

export interface RemoveOptions extends CommonOptions {
  dryRun?: boolean
  secretKey?: string
}

/** `btfmill rm`: removes the named kernels and those that the filters select. Returns the exit status. */
export async function run(
  names: readonly string[],
  options: RemoveOptions & FilterOptions,
): Promise<number> {
  const filter = filterOf(options)
  const isFiltered = Object.keys(filter).length > 0
  if (names.length === 0 && !isFiltered)
    throw new InvalidArgumentError('rm needs a kernel, or a filter: --distro, --release, …')
  const store = await openStore(options.store, { create: false })
  const catalog = await Catalog.open(store)
  const chosen = names.map((name) => findNamed(catalog, name, { orFile: false }))
  if (isFiltered) {
    checkFilter(catalog, filter, options.store)
    for (const { record } of catalog.list(filter)) chosen.push(record.kernel)
  }
  return await remove(store, catalog, chosen, options)
}

/** Removes kernels and reports them, or only reports them. Returns the exit status. */
export async function remove(
  store: Store,
  catalog: Catalog,
  chosen: readonly KernelName[],
  { dryRun = false, secretKey, json = false }: RemoveOptions,
): Promise<number> {
  const kernels = [...new Map(chosen.map((kernel) => [nameOf(kernel), kernel])).values()]
  const key = await readKey(secretKey)
  const freed = await freedBy(store, catalog, kernels)
  const report = (kernel: KernelName) =>
    console.log(json ? jsonOf({ kernel }) : printable(nameOf(kernel)))
  if (dryRun) kernels.forEach(report)
  else await removeKernels(store, kernels, { ...(key && { secretKey: key }), onRemoved: report })
  console.log(
    json
      ? jsonOf({ summary: { kernels: kernels.length, dryRun, freed } })
      : summaryOf(kernels.length, freed, dryRun),
  )
  return 0
}

function summaryOf(kernels: number, { blobs, bytes }: FreedObjects, dryRun: boolean): string {
  const what = `${counted(kernels, 'kernel')} ${dryRun ? 'would be removed' : 'removed'}`
  return `${what}; \`btfmill gc\` ${dryRun ? 'would free' : 'frees'} ${counted(blobs, 'blob')}, ${bytes} bytes, a day later`
}
