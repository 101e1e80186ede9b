import {
  explainNoSource,
  type FetchedKey,
  fetchKeys,
  hasPublishedKeys,
  indexTargetsOf,
  keysOfVersion,
  nameOfRepository,
  PACKAGE_ROLES,
  readSources,
  type Source,
  suiteOfTarget,
} from '../../generator/index.ts'
import { listSourceResults, openStore, type SourceResult, StoreError } from '../../storage/index.ts'
import { fetchKeysCommand, keyDirectories, ownKeys, unknownSource } from './input.ts'
import { columns, counted, linesOf, print, printable } from './output.ts'

const HEADER = ['SOURCE', 'DISTRO', 'PROTOCOL', 'SIGNING KEY', 'LAST RESULT', 'REPOSITORIES']

interface SourcesCommandOptions {
  sources: string
  store: string
  keys: string
  source?: string[]
  fetchKeys?: boolean
  json?: boolean
}

/** `btfmill sources`. Returns the exit status. */
export async function run(options: SourcesCommandOptions): Promise<number> {
  const all = await readSources(options.sources || undefined, keyDirectories(options.keys))
  const mismatch = options.source && explainNoSource({}, [...all.values()], options.source)
  if (mismatch) throw unknownSource(mismatch)
  const sources = [...all.values()].filter(({ id }) => options.source?.includes(id) ?? true)
  if (options.fetchKeys) return await fetchAndReport(sources, options)
  const results = await resultsIn(options.store)
  const described = await Promise.all(sources.map((source) => describe(source, results, options)))
  const lines = options.json
    ? described.map((source) => JSON.stringify(source))
    : [
        ...columns([HEADER, ...described.flatMap(rowsOf)], process.stdout.columns),
        ...missingKeys(described),
      ]
  await print(linesOf(lines))
  return 0
}

const STATES: Readonly<Record<FetchedKey['state'], string>> = {
  written: 'written',
  unchanged: 'is there already',
  outdated: 'is there already, and newer',
  missing: 'not found',
}

/** Fetches the keys of sources. Returns the exit status: 1 if a key is at none of its addresses. */
async function fetchAndReport(
  sources: readonly Source[],
  { keys: directory, json }: SourcesCommandOptions,
): Promise<number> {
  const { keys, failures } = await fetchKeys(sources.filter(hasPublishedKeys), ownKeys(directory))
  for (const { code, message } of failures) console.error(printable(`btfmill: ${code}: ${message}`))
  const isMissing = keys.some(({ state }) => state === 'missing')
  if (json) {
    const [found, failed] = [
      keys.map((key) => ({ event: 'key', ...key })),
      failures.map((failure) => ({ event: 'failed', ...failure })),
    ]
    await print(linesOf([...found, ...failed].map((line) => JSON.stringify(line))))
    return isMissing ? 1 : 0
  }
  const unpublished = sources.filter((source) => isSigned(source) && !hasPublishedKeys(source))
  const rows = keys.map(({ fingerprint, sources: ids, state, path }) => [
    fingerprint,
    ids.join(' '),
    STATES[state],
    state === 'missing' ? '' : path,
  ])
  const lines = [
    ...(rows.length > 0 ? columns([['KEY', 'SOURCES', 'RESULT', 'FILE'], ...rows]) : []),
    ...unpublished.map(({ id }) => `${id}: no address of its keys is known`),
  ]
  await print(linesOf(lines))
  return isMissing ? 1 : 0
}

const isSigned = (source: Source): boolean => 'keyrings' in source && source.keyrings !== undefined

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

async function describe(
  source: Source,
  results: ReadonlyMap<string, SourceResult>,
  options: SourcesCommandOptions,
) {
  const { id, distro, protocol, optIn = false, architectures } = source
  const versions = Object.entries(source.versions).map(async ([version, repositories]) => ({
    version,
    repositories: repositories.map(nameOfRepository),
    /** the files its keys may be in, those that exist on this machine, and fingerprints that none has */
    keyrings: await keysOfVersion(source, version),
    /** of its indexes that a run read */
    results: indexTargetsOf(source, { version }, PACKAGE_ROLES).flatMap((target) => {
      const result = results.get(keyOf(id, suiteOfTarget(target)))
      if (!result) return []
      const [repository, { arch }] = [nameOfRepository(target.repository), target]
      return 'failure' in result
        ? { repository, arch, failure: result.failure }
        : { repository, arch, readAt: result.readAt }
    }),
  }))
  return {
    id,
    distro,
    protocol,
    optIn,
    architectures: Object.keys(architectures),
    ...('fingerprints' in source && { fingerprints: source.fingerprints }),
    ...('keyUrls' in source && { keyUrls: source.keyUrls }),
    /** the command that fetches its keys, where they have known addresses */
    ...(hasPublishedKeys(source) && { fetchKeys: fetchKeysCommand([id], options) }),
    versions: await Promise.all(versions),
  }
}

function rowsOf(description: SourceDescription): string[][] {
  const { id, distro, protocol, optIn, versions, fingerprints = [] } = description
  const protocolText = optIn ? `${protocol}, opt-in` : protocol
  if (versions.length === 0) return [[id, distro, protocolText, '', '', '']]
  return versions.map(({ version, repositories, keyrings, results }) => [
    id,
    `${distro} ${version}`,
    protocolText,
    keyText(keyrings, fingerprints.length),
    lastResult(results),
    repositories.join(' '),
  ])
}

type VersionKeys = SourceDescription['versions'][number]['keyrings']

/** The first file with keys of a version, and how many of its source's keys are in such files. */
function keyText({ places, here, missing }: VersionKeys, count: number): string {
  if (places.length === 0) return 'not signed'
  if (here[0] === undefined) return 'no key'
  return missing.length === 0 ? here[0] : `${here[0]}, ${count - missing.length} of ${count} keys`
}

/** A line for each source that lacks keys, with the way to get them. */
function missingKeys(sources: readonly SourceDescription[]): string[] {
  const rows = sources.flatMap(({ id, versions, fetchKeys }) => {
    const lacking = versions.filter(({ keyrings: { places, here, missing } }) => {
      return missing.length > 0 || (places.length > 0 && here.length === 0)
    })
    const [first] = lacking
    if (!first) return []
    const missing = new Set(lacking.flatMap(({ keyrings }) => keyrings.missing))
    const help = fetchKeys ?? `save it as ${first.keyrings.places[0]}`
    return [[id, counted(missing.size || 1, 'key'), help]]
  })
  return rows.length === 0 ? [] : ['', ...columns([['SOURCE', 'MISSING', 'TO GET IT'], ...rows])]
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
