/*
 * The kernels of the catalog as pages list them: the builds of one name together, newest release first, with their
 * series. 50,000 kernels take half a second, so it is built once for each state of the catalog, and not too often.
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

/** Whether its BTF was made here, comes from the kernel itself, or could not be made. */
export const PAGE_STATES = ['made', 'own', 'failed'] as const
export type PageState = (typeof PAGE_STATES)[number]

export interface KernelRow {
  /** DISTRO/VERSION/ARCH/RELEASE, encoded: also the path of its page */
  readonly name: string
  readonly kernel: KernelName
  /** equal for the kernels of one series, as `seriesOf` has it */
  readonly series: string
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

/** What a table has in sum. */
export interface TableNumbers {
  /** kernels in each state, and those with BTF */
  readonly states: Readonly<Record<PageState, number>>
  readonly kernels: number
  /** distributions with their versions, of kernels with BTF */
  readonly distributions: number
  readonly architectures: number
  /** different BTFs, their raw bytes, and their types */
  readonly btfs: number
  readonly size: number
  readonly types: number
}

type CatalogList = Pick<Catalog, 'list'>

export class KernelTable {
  /** by distribution, then newest version, architecture, and newest release first */
  readonly rows: readonly KernelRow[]
  readonly #byName: ReadonlyMap<string, KernelRow>
  readonly #series: ReadonlyMap<string, readonly KernelRow[]>
  #newest: readonly KernelRow[] | undefined
  #numbers: TableNumbers | undefined

  constructor(catalog: CatalogList) {
    const rows = rowsOf(catalog)
    const places = [
      ...Map.groupBy(rows, ({ kernel: { distro, version, arch } }) =>
        [distro, version, arch].join('\0'),
      ).values(),
    ]
    const sorted = places
      .map((own) => ({
        own,
        kernel: own[0]!.kernel,
        version: sortableRelease(own[0]!.kernel.version),
      }))
      .sort(
        (a, b) =>
          compare(a.kernel.distro, b.kernel.distro) ||
          compare(b.version, a.version) ||
          compare(a.kernel.arch, b.kernel.arch),
      )
    this.rows = sorted.flatMap(({ own }) => newestFirst(own))
    this.#byName = new Map(this.rows.map((row) => [row.name, row]))
    this.#series = Map.groupBy(this.rows, ({ series }) => series)
  }

  /** The row of a name as `nameOf` gives it. */
  find(name: string): KernelRow | undefined {
    return this.#byName.get(name)
  }

  /** The kernels of a row's series, newest first. */
  series(row: KernelRow): readonly KernelRow[] {
    return this.#series.get(row.series) ?? []
  }

  /** The newest kernel with BTF of each series, in the order of the rows. */
  newestOfSeries(): readonly KernelRow[] {
    this.#newest ??= [...this.#series.values()].flatMap(
      (rows) => rows.find(({ served }) => served) ?? [],
    )
    return this.#newest
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

  numbers(): TableNumbers {
    this.#numbers ??= numbersOf(this.rows)
    return this.#numbers
  }
}

/** A table is used for this many times the time that it took to build it, even if the catalog changes. */
const REUSE = 20

/** Returns a function that gives the table of a catalog as it is, or as it was a few seconds ago. */
export function kernelTables(catalog: CatalogList & Pick<Catalog, 'version'>): () => KernelTable {
  let built: { version: number; table: KernelTable; until: number } | undefined
  return () => {
    const now = performance.now()
    const { version } = catalog
    if (!built || (built.version !== version && built.until <= now)) {
      const table = new KernelTable(catalog)
      const end = performance.now()
      built = { version, table, until: end + (end - now) * REUSE }
    }
    return built.table
  }
}

/** The builds of each kernel together; the catalog lists them in the order of their keys, which begin with its name. */
function rowsOf(catalog: CatalogList): KernelRow[] {
  const rows: KernelRow[] = []
  let name = ''
  let builds: BuildRecord[] = []
  const end = () => {
    if (builds.length > 0) rows.push(rowOf(name, builds))
  }
  for (const { key, record } of catalog.list()) {
    const own = key.slice('kernels/'.length, key.lastIndexOf('/'))
    if (own !== name) {
      end()
      name = own
      builds = []
    }
    builds.push(record)
  }
  end()
  return rows
}

/** Tells whether a release is newer; of equal ones, the one with the shorter flavour. */
function isNewer(a: KernelRow, b: KernelRow): boolean {
  const version = ({ kernel, flavour }: KernelRow) =>
    flavour === '' ? kernel.release : kernel.release.slice(0, -flavour.length - 1)
  const order = compareVersions(version(a), version(b))
  return order !== 0 ? order > 0 : a.flavour.length < b.flavour.length
}

function rowOf(name: string, builds: BuildRecord[]): KernelRow {
  const newest =
    builds.length === 1
      ? builds
      : builds.sort((a, b) => compareVersions(b.package.version, a.package.version))
  const [served] = preferred(newest)
  const { distro, version, arch, release } = newest[0]!.kernel
  const kernel = { distro, version, arch, release }
  return {
    name,
    kernel,
    series: seriesOf(kernel),
    state: stateOfBuilds(newest, served),
    line: /^\d+\.\d+/.exec(release)?.[0] ?? 'other',
    flavour: flavourOf(release).slice(1),
    builds: newest,
    served,
  }
}

function stateOfBuilds(builds: readonly BuildRecord[], served: Available | undefined): PageState {
  if (served) return served.origin === 'embedded' ? 'own' : 'made'
  return builds.some(({ embedded, failure }) => embedded && !failure) ? 'own' : 'failed'
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** Rows of one distribution, version and architecture. */
function newestFirst(rows: readonly KernelRow[]): KernelRow[] {
  const keyed = rows.map((row) => ({ row, key: sortableRelease(row.kernel.release) }))
  return keyed.sort((a, b) => compare(b.key, a.key)).map(({ row }) => row)
}

function numbersOf(rows: readonly KernelRow[]): TableNumbers {
  const states = { made: 0, own: 0, failed: 0 }
  const btfs = new Map<string, Available['btf']>()
  const [distributions, architectures] = [new Set<string>(), new Set<string>()]
  let kernels = 0
  for (const { state, served, kernel } of rows) {
    states[state]++
    if (!served) continue
    kernels++
    btfs.set(served.btf.sha256, served.btf)
    distributions.add(`${kernel.distro} ${kernel.version}`)
    architectures.add(kernel.arch)
  }
  let [size, types] = [0, 0]
  for (const btf of btfs.values()) {
    size += btf.size
    types += btf.types
  }
  return {
    states,
    kernels,
    ...{ distributions: distributions.size, architectures: architectures.size },
    ...{ btfs: btfs.size, size, types },
  }
}
