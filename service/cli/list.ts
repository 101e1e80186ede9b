import {
  type BuildRecord,
  Catalog,
  canonicalArch,
  type KernelFilter,
  listSourceFailures,
  partialOf,
  type SourceFailure,
  type StoreError,
  valuesOf,
  type Wanted,
} from '../../storage/index.ts'
import { stateOf } from '../kernel/public-record.ts'
import {
  type CommonOptions,
  type FilterOptions,
  filterOf,
  noMatchMessage,
  openSource,
  sourceName,
} from './input.ts'
import { columns, counted, linesOf, print, printable } from './output.ts'

/** `btfmill list`. Returns the exit status: 1 for an invalid record, or for filters that match nothing. */
export async function run(
  options: CommonOptions & FilterOptions & { partial?: boolean },
): Promise<number> {
  const source = await openSource(options)
  const store = options.partial ? partialOf(source) : source
  const filter = filterOf(options)
  let invalid = 0
  const onInvalid = (error: StoreError) => {
    invalid++
    console.error(printable(`btfmill: ${error.message}`))
  }
  const catalog = await Catalog.open(store, onInvalid)
  const records = [...catalog.list(filter)].map(({ record }) => record)
  const all = await Array.fromAsync(listSourceFailures(store, onInvalid))
  const sources = await failuresThatMatch(all, filter)
  const message = noMatchMessage(catalog, filter, sourceName(options))
  if (message !== undefined && sources.length === 0) {
    console.error(printable(`btfmill: ${message}`))
    return invalid > 0 || Object.keys(filter).length > 0 ? 1 : 0
  }
  await print(
    linesOf(options.json ? json(catalog, records, sources) : table(catalog, records, sources)),
  )
  return invalid === 0 ? 0 : 1
}

function* json(
  catalog: Catalog,
  records: readonly BuildRecord[],
  sources: readonly ListedFailure[],
): Generator<string> {
  for (const record of records)
    yield JSON.stringify({ state: stateOf(record), ...record, sharedBy: sharers(catalog, record) })
  for (const { failure } of sources) yield JSON.stringify({ state: 'failed', ...failure })
}

const HEADER = ['DISTRO', 'VERSION', 'ARCH', 'RELEASE', 'PACKAGE', 'STATE', 'DETAILS']

function table(
  catalog: Catalog,
  records: readonly BuildRecord[],
  sources: readonly ListedFailure[],
): string[] {
  const rows = records.map((record) => rowOf(record, sharers(catalog, record)))
  const cells = [HEADER, ...rows, ...sources.map(sourceRowOf)].map((row) => row.map(printable))
  return columns(cells, process.stdout.columns)
}

/** The number of builds with the same BTF, this one included; the BTF is kept once. Undefined without BTF. */
const sharers = (catalog: Catalog, { btf }: BuildRecord): number | undefined =>
  btf && catalog.findBy('sha256', btf.sha256).length

function rowOf(record: BuildRecord, sharedBy = 1): string[] {
  const { kernel, package: from, btf, failure, headers } = record
  const details = [
    ...(headers
      ? [
          `partial: ${counted(headers.structs, 'named struct')} of ${counted(headers.compiled, 'header')}`,
        ]
      : []),
    ...(btf ? [`${btf.size} bytes`, `${btf.types} types`, from.authenticated] : []),
    ...(btf?.ambiguous ? [ambiguityOf(btf.ambiguous)] : []),
    ...(sharedBy > 1 ? [`shared by ${sharedBy}`] : []),
    ...(failure ? [`${failure.code}: ${failure.message}`, retry(failure)] : []),
  ]
  return [
    ...[kernel.distro, kernel.version, kernel.arch, kernel.release, from.version],
    ...[stateOf(record), details.join(', ')],
  ]
}

/** Names in a cell of the table. */
const SHOWN = 3

function ambiguityOf({ count, names }: { count: number; names: readonly string[] }): string {
  const more = count > SHOWN ? ', …' : ''
  return `${counted(count, 'ambiguous struct name')} (${names.slice(0, SHOWN).join(', ')}${more})`
}

function sourceRowOf({ distro, version, arch, failure: { source, failure } }: ListedFailure) {
  const details = `source ${source}: ${failure.code}: ${failure.message}, ${retry(failure)}`
  return [distro, version, arch, '', '', 'failed', details]
}

const retry = ({ retryAt }: { retryAt: string | null }): string =>
  retryAt === null ? 'not tried again' : `due ${retryAt}`

/** The failure of a source's index, with the distribution, versions and architecture whose kernels it would name. */
interface ListedFailure {
  distro: string
  version: string
  arch: string
  failure: SourceFailure
}

/**
 * The failures of sources that could have kernels which match a filter. The releases of a source that failed are not
 * known, so a filter by release matches none. A source that is not built in is known by its suite alone.
 */
async function failuresThatMatch(
  failures: readonly SourceFailure[],
  { distro, version, arch, release }: KernelFilter,
): Promise<ListedFailure[]> {
  if (failures.length === 0 || release !== undefined) return []
  const { nameOfRepository, readSources } = await import('../../generator/index.ts')
  const sources = await readSources()
  return failures.flatMap((failure) => {
    const source = sources.get(failure.source)
    const [, suite = failure.suite, machine = ''] = /^(.*)-([a-z0-9_]+)$/.exec(failure.suite) ?? []
    const versions = Object.entries(source?.versions ?? {}).flatMap(([name, repositories]) =>
      repositories.some((one) => suiteNames(name, nameOfRepository(one)).includes(suite))
        ? [name]
        : [],
    )
    const has = (wanted: Wanted | undefined, matches: (value: string) => boolean) =>
      wanted === undefined || valuesOf(wanted).some(matches)
    const matches =
      has(distro, (distro) => distro === source?.distro) &&
      has(version, (version) => versions.includes(version)) &&
      has(arch, (arch) => canonicalArch(arch) === machine)
    if (!matches) return []
    const named = versions.length > 0 ? versions.join(' ') : suite
    return [{ distro: source?.distro ?? '', version: named, arch: machine, failure }]
  })
}

/** The names that the suite of a failure may have: apt's suites need no version before them. */
const suiteNames = (version: string, repository: string): string[] => [
  repository,
  `${version} ${repository}`,
]
