/*
 * The kernels of the catalog as pages list them: the builds of one name together, newest release first, with their
 * series. It is built once for each state of the catalog.
 */
import {
  type BuildRecord,
  type Catalog,
  compareVersions,
  flavourOf,
  type KernelName,
  seriesOf,
  sortableRelease,
} from '../../storage/index.ts'
import { type Available, preferred } from '../kernel/lookup.ts'
import { nameOf } from '../kernel/name.ts'

/** Whether its BTF was made here, comes from the kernel itself, or could not be made. */
export const PAGE_STATES = ['made', 'own', 'failed'] as const
export type PageState = (typeof PAGE_STATES)[number]

export interface KernelRow {
  /** DISTRO/VERSION/ARCH/RELEASE, encoded: also the path of its page */
  readonly name: string
  readonly kernel: KernelName
  readonly state: PageState
  /** major and minor version of Linux, such as `6.12`; `other` for releases that do not begin with them */
  readonly line: string
  /** suffix of the release without its dash; '' for none */
  readonly flavour: string
  /** newest first */
  readonly builds: readonly BuildRecord[]
  /** the build whose BTF is served; undefined if none has BTF */
  readonly served: Available | undefined
}

export class KernelTable {
  /** by distribution, then newest version, architecture, and newest release first */
  readonly rows: readonly KernelRow[]
  readonly #byName: ReadonlyMap<string, KernelRow>
  readonly #series: ReadonlyMap<string, readonly KernelRow[]>

  constructor(catalog: Pick<Catalog, 'list'>) {
    const records = Array.from(catalog.list(), ({ record }) => record)
    const grouped = Map.groupBy(records, ({ kernel }) => nameOf(kernel))
    const rows = Array.from(grouped, ([name, builds]) => rowOf(name, builds))
    const keyed = rows.map((row) => ({ row, key: sortKeyOf(row.kernel) }))
    this.rows = keyed.sort((a, b) => compareKeys(a.key, b.key)).map(({ row }) => row)
    this.#byName = new Map(this.rows.map((row) => [row.name, row]))
    this.#series = Map.groupBy(this.rows, ({ kernel }) => seriesOf(kernel))
  }

  /** The row of a name as `nameOf` gives it. */
  find(name: string): KernelRow | undefined {
    return this.#byName.get(name)
  }

  /** The kernels of a row's series, newest first. */
  series(row: KernelRow): readonly KernelRow[] {
    return this.#series.get(seriesOf(row.kernel)) ?? []
  }

  /** The newest kernel with BTF of each series, in the order of the rows. */
  newestOfSeries(): KernelRow[] {
    return [...this.#series.values()].flatMap((rows) => rows.find(({ served }) => served) ?? [])
  }

  /** The kernel that a page of a type shows if none is chosen: the newest with BTF, x86_64 if there is one. */
  newest(): KernelRow | undefined {
    const rows = this.newestOfSeries()
    const common = rows.filter(({ kernel }) => kernel.arch === 'x86_64')
    return (common.length > 0 ? common : rows).reduce<KernelRow | undefined>(
      (best, row) => (best && !isNewer(row, best) ? best : row),
      undefined,
    )
  }
}

/** Returns a function that gives the table of a catalog, and builds it again only after the catalog has changed. */
export function kernelTables(catalog: Pick<Catalog, 'version' | 'list'>): () => KernelTable {
  let built: { version: number; table: KernelTable } | undefined
  return () => {
    const { version } = catalog
    if (built?.version !== version) built = { version, table: new KernelTable(catalog) }
    return built.table
  }
}

/** Tells whether a release is newer; of equal ones, the one with the shorter flavour. */
function isNewer(a: KernelRow, b: KernelRow): boolean {
  const version = ({ kernel, flavour }: KernelRow) =>
    flavour === '' ? kernel.release : kernel.release.slice(0, -flavour.length - 1)
  const order = compareVersions(version(a), version(b))
  return order !== 0 ? order > 0 : a.flavour.length < b.flavour.length
}

function rowOf(name: string, builds: BuildRecord[]): KernelRow {
  const newestFirst = builds.sort((a, b) => compareVersions(b.package.version, a.package.version))
  const [served] = preferred(newestFirst)
  const { kernel } = newestFirst[0]!
  const { distro, version, arch, release } = kernel
  return {
    name,
    kernel: { distro, version, arch, release },
    state: stateOfBuilds(newestFirst, served),
    line: /^\d+\.\d+/.exec(release)?.[0] ?? 'other',
    flavour: flavourOf(release).slice(1),
    builds: newestFirst,
    served,
  }
}

function stateOfBuilds(builds: readonly BuildRecord[], served: Available | undefined): PageState {
  if (served) return served.origin === 'embedded' ? 'own' : 'made'
  return builds.some(({ embedded, failure }) => embedded && !failure) ? 'own' : 'failed'
}

type SortKey = readonly [distro: string, version: string, arch: string, release: string]

const sortKeyOf = ({ distro, version, arch, release }: KernelName): SortKey => [
  distro,
  sortableRelease(version),
  arch,
  sortableRelease(release),
]

function compareKeys(a: SortKey, b: SortKey): number {
  const order = (at: 0 | 1 | 2 | 3) => (a[at] < b[at] ? -1 : a[at] > b[at] ? 1 : 0)
  return order(0) || -order(1) || order(2) || -order(3)
}
