import {
  findKeyrings,
  keyringsOf,
  nameOfRepository,
  readSources,
  type Source,
} from '../../generator/index.ts'
import { columns } from './output.ts'

/** `btfmill sources`. Returns the exit status. */
export async function run(options: { sources?: string; json?: boolean }): Promise<number> {
  const sources = await readSources(options.sources)
  const described = await Promise.all([...sources.values()].map(describe))
  if (options.json) for (const source of described) console.log(JSON.stringify(source))
  else for (const line of columns(described.flatMap(rowsOf))) console.log(line)
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
      /** where its keys may lie, and where they do on this machine */
      keyrings: { places, here: await findKeyrings(places) },
    }
  })
  return {
    ...{ id, distro, protocol, optIn },
    architectures: Object.keys(architectures),
    versions: await Promise.all(versions),
  }
}

function rowsOf({ id, distro, protocol, optIn, versions }: SourceDescription): string[][] {
  const protocolText = optIn ? `${protocol}, on request` : protocol
  if (versions.length === 0) return [[id, distro, protocolText, '', '']]
  return versions.map(({ version, repositories, keyrings: { places, here } }) => [
    id,
    `${distro} ${version}`,
    protocolText,
    repositories.join(' '),
    here[0] ?? (places.length === 0 ? 'not signed' : `no key here: ${places[0]}`),
  ])
}
