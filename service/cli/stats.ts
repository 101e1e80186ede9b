import { Catalog, openStore, type StoreError } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { type KernelCounts, type StoreStats, statsOf } from '../kernel/stats.ts'
import { type CommonOptions, checkFilter, type FilterOptions, filterOf } from './input.ts'
import { columns, linesOf, print, printable } from './output.ts'

/** `btfmill stats`. Returns the exit status: 1 for an invalid record, or for filters that match nothing. */
export async function run(options: CommonOptions & FilterOptions): Promise<number> {
  const store = await openStore(options.store, { create: false })
  let invalid = 0
  const catalog = await Catalog.open(store, ({ message }: StoreError) => {
    invalid++
    console.error(printable(`btfmill: ${message}`))
  })
  const filter = filterOf(options)
  checkFilter(catalog, filter, options.store)
  const stats = await statsOf(store, catalog, filter)
  await print(linesOf(options.json ? [jsonOf(stats)] : table(stats)))
  return invalid === 0 ? 0 : 1
}

const HEADER = [
  ...['DISTRO', 'VERSION', 'ARCH', 'FLAVOUR'],
  ...['KERNELS', 'AVAILABLE', 'EMBEDDED', 'FAILED', 'BTF MB', 'STORED MB'],
]

function table({ total, series }: StoreStats): string[] {
  const rows = series.map(({ distro, version, arch, flavour, ...counts }) => [
    ...[distro, version, arch, flavour.replace(/^-/, '')],
    ...cellsOf(counts),
  ])
  const all = ['all', '', '', '', ...cellsOf(total)]
  const packed = `packed, the BTF of the kernels takes about ${megabytes(total.packed)} MB`
  return [...columns([HEADER, ...rows, all].map((row) => row.map(printable))), packed]
}

const cellsOf = ({ kernels, available, embedded, failed, btf, stored }: KernelCounts): string[] => [
  ...[kernels, available, embedded, failed].map(String),
  ...[btf, stored].map(megabytes),
]

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1)
