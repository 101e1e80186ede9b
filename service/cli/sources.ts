import {
  findKeyrings,
  keyringsOf,
  nameOfRepository,
  readSources,
  type Source,
} from '../../generator/index.ts'
import { columns, linesOf, print } from './output.ts'

const HEADER = ['SOURCE', 'DISTRO', 'PROTOCOL', 'SIGNING KEY', 'REPOSITORIES']

/** `btfmill sources`. Returns the exit status. */
export async function run(options: { sources: string; json?: boolean }): Promise<number> {
  const sources = await readSources(options.sources || undefined)
  const described = await Promise.all([...sources.values()].map(describe))
  const lines = options.json
    ? described.map((source) => JSON.stringify(source))
    : columns([HEADER, ...described.flatMap(rowsOf)], process.stdout.columns)
  await print(linesOf(lines))
  return 0
}

type SourceDescription = Awaited<ReturnType<typeof describe>>

async function describe(source: Source) {
  const { id, distro, protocol, optIn = false, architectures } = source
  const versions = Object.entries(source.versions).map(async ([version, repositories]) => {
    const places = keyringsOf(source, version)
    return {
      version,
      repositories: repositories.map(nameOfRepository),
      /** the files its keys may be in, and those that exist on this machine */
      keyrings: { places, here: await findKeyrings(places) },
    }
  })
  return {
    id,
    distro,
    protocol,
    optIn,
    architectures: Object.keys(architectures),
    versions: await Promise.all(versions),
  }
}

function rowsOf({ id, distro, protocol, optIn, versions }: SourceDescription): string[][] {
  const protocolText = optIn ? `${protocol}, opt-in` : protocol
  if (versions.length === 0) return [[id, distro, protocolText, '', '']]
  return versions.map(({ version, repositories, keyrings: { places, here } }) => [
    id,
    `${distro} ${version}`,
    protocolText,
    here[0] ?? (places.length === 0 ? 'not signed' : `no key: ${places[0]}`),
    repositories.join(' '),
  ])
}
