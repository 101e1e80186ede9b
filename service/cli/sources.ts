import {
  findKeyrings,
  indexTargetsOf,
  keyringsOf,
  nameOfRepository,
  PACKAGE_ROLES,
  readSources,
  type Source,
  suiteOfTarget,
} from '../../generator/index.ts'
import { listSourceResults, openStore, type SourceResult, StoreError } from '../../storage/index.ts'
import { columns, linesOf, print, printable } from './output.ts'

const HEADER = ['SOURCE', 'DISTRO', 'PROTOCOL', 'SIGNING KEY', 'LAST RESULT', 'REPOSITORIES']

/** `btfmill sources`. Returns the exit status. */
export async function run(options: {
  sources: string
  store: string
  json?: boolean
}): Promise<number> {
  const sources = await readSources(options.sources || undefined)
  const results = await resultsIn(options.store)
  const described = await Promise.all(
    [...sources.values()].map((source) => describe(source, results)),
  )
  const lines = options.json
    ? described.map((source) => JSON.stringify(source))
    : columns([HEADER, ...described.flatMap(rowsOf)], process.stdout.columns)
  await print(linesOf(lines))
  return 0
}

/** The last results of indexes by `keyOf`; none if the store does not exist yet. Errors: those of `openStore`. */
async function resultsIn(url: string): Promise<Map<string, SourceResult>> {
  const store = await openStore(url, { create: false }).catch((error) => {
    if (error instanceof StoreError && error.code === 'not_found') return undefined
    throw error
  })
  const found = new Map<string, SourceResult>()
  if (!store) return found
  const onInvalid = (error: StoreError) => console.error(printable(`btfmill: ${error.message}`))
  for await (const result of listSourceResults(store, onInvalid))
    found.set(keyOf(result.source, result.suite), result)
  return found
}

const keyOf = (source: string, suite: string): string => `${source} ${suite}`

type SourceDescription = Awaited<ReturnType<typeof describe>>

async function describe(source: Source, results: ReadonlyMap<string, SourceResult>) {
  const { id, distro, protocol, optIn = false, architectures } = source
  const versions = Object.entries(source.versions).map(async ([version, repositories]) => {
    const places = keyringsOf(source, version)
    return {
      version,
      repositories: repositories.map(nameOfRepository),
      /** the files its keys may be in, and those that exist on this machine */
      keyrings: { places, here: await findKeyrings(places) },
      /** of its indexes that a run read */
      results: indexTargetsOf(source, { version }, PACKAGE_ROLES).flatMap((target) => {
        const result = results.get(keyOf(id, suiteOfTarget(target)))
        if (!result) return []
        const [repository, { arch }] = [nameOfRepository(target.repository), target]
        return 'failure' in result
          ? { repository, arch, failure: result.failure }
          : { repository, arch, readAt: result.readAt }
      }),
    }
  })
  return {
    id,
    distro,
    protocol,
    optIn,
    architectures: Object.keys(architectures),
    ...('fingerprints' in source && { fingerprints: source.fingerprints }),
    versions: await Promise.all(versions),
  }
}

function rowsOf({ id, distro, protocol, optIn, versions }: SourceDescription): string[][] {
  const protocolText = optIn ? `${protocol}, opt-in` : protocol
  if (versions.length === 0) return [[id, distro, protocolText, '', '', '']]
  return versions.map(({ version, repositories, keyrings: { places, here }, results }) => [
    id,
    `${distro} ${version}`,
    protocolText,
    here[0] ?? (places.length === 0 ? 'not signed' : `no key: ${places[0]}`),
    lastResult(results),
    repositories.join(' '),
  ])
}

/** Sums up the last results of a version's indexes. */
function lastResult(results: SourceDescription['versions'][number]['results']): string {
  if (results.length === 0) return 'not read yet'
  const failures = results.flatMap(({ failure }) => failure ?? [])
  const times = results.map(({ failure, readAt = failure?.at ?? '' }) => readAt).sort()
  const day = times.at(-1)!.slice(0, 10)
  if (failures.length === 0) return `read ${day}`
  const codes = new Set(failures.map(({ code }) => code))
  return `${failures.length} of ${results.length} failed ${day}: ${[...codes].join(', ')}`
}
