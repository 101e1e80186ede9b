import {
  type BuildRecord,
  Catalog,
  type KernelFilter,
  listSourceFailures,
  openStore,
  type SourceFailure,
  type StoreError,
} from '../../storage/index.ts'
import { stateOf } from '../kernel/public-record.ts'
import { type CommonOptions, filterOf } from './filter.ts'
import { columns } from './output.ts'

/** `btfmill list`. Returns the exit status. */
export async function run(options: CommonOptions & KernelFilter): Promise<number> {
  const store = await openStore(options.store)
  let invalid = 0
  const onInvalid = (error: StoreError) => {
    invalid++
    console.error(`btfmill: ${error.message}`)
  }
  const catalog = await Catalog.open(store, onInvalid)
  const records = [...catalog.list(filterOf(options))].map(({ record }) => record)
  const sources = await Array.fromAsync(listSourceFailures(store, onInvalid))
  if (options.json) {
    for (const record of records) {
      const sharedBy = sharers(catalog, record)
      console.log(JSON.stringify({ state: stateOf(record), ...record, sharedBy }))
    }
    for (const source of sources) console.log(JSON.stringify({ state: 'failed', ...source }))
  } else {
    for (const line of columns([
      ...records.map((record) => rowOf(record, sharers(catalog, record))),
      ...sources.map(sourceRowOf),
    ]))
      console.log(line)
  }
  return invalid === 0 ? 0 : 1
}

/** How many builds have the very same BTF, this one among them; it is kept once. Undefined without BTF. */
const sharers = (catalog: Catalog, { btf }: BuildRecord): number | undefined =>
  btf && catalog.findBy('sha256', btf.sha256).length

function rowOf(record: BuildRecord, sharedBy = 1): string[] {
  const { kernel, package: from, btf, failure } = record
  const said = [
    ...(btf ? [`${btf.size} bytes`, `${btf.types} types`, from.authenticated] : []),
    ...(sharedBy > 1 ? [`shared by ${sharedBy}`] : []),
    ...(failure ? [`${failure.code}: ${failure.message}`, retry(failure)] : []),
  ]
  return [
    kernel.distro,
    kernel.version,
    kernel.arch,
    kernel.release,
    from.version,
    stateOf(record),
    said.join(', '),
  ]
}

function sourceRowOf({ source, suite, failure }: SourceFailure): string[] {
  return [
    source,
    suite,
    '',
    '',
    '',
    'failed',
    `${failure.code}: ${failure.message}, ${retry(failure)}`,
  ]
}

const retry = ({ retryAt }: { retryAt: string | null }): string =>
  retryAt === null ? 'not tried again' : `due ${retryAt}`
