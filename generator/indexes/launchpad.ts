/*
 * Launchpad keeps every build that Ubuntu ever published (https://launchpad.net/+apidoc/devel.html): the collection of
 * an archive's binaries (getPublishedBinaries) comes in pages, each of which names the next, and each binary has its
 * files with their digests (binaryFileUrls), which never change. Nothing is signed: TLS vouches for it.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { mapConcurrent } from '../concurrency.ts'
import { GeneratorError } from '../error.ts'
import { parseJson } from '../json.ts'
import { urlAt } from '../sources/location.ts'
import { type IndexOptions, readIndex } from './index-cache.ts'

const MAX_PAGE = 16 * 1024 * 1024
const PAGE_SIZE = 300
/** pages of a collection: enough for 600 000 binaries */
const MAX_PAGES = 2000
/** requests for files at once */
const REQUESTS = 4

const Nullable = Type.Optional(Type.Union([Type.String(), Type.Null()]))

const Binary = Type.Object({
  self_link: Type.String(),
  binary_package_name: Type.String(),
  binary_package_version: Type.String(),
  status: Type.String(),
  pocket: Type.String(),
  date_superseded: Nullable,
  build_link: Nullable,
})
type Binary = Type.Static<typeof Binary>

const Page = Type.Object({
  next_collection_link: Nullable,
  entries: Type.Array(Binary, { maxItems: 10 * PAGE_SIZE }),
})
const page = Compile(Page)

const Files = Compile(
  Type.Array(
    Type.Object({
      url: Type.String(),
      size: Type.Integer({ minimum: 0 }),
      sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    }),
    { maxItems: 64 },
  ),
)

export interface LaunchpadSeries {
  /** URL of the API, without a slash at its end: https://api.launchpad.net/devel */
  api: string
  /** the codename */
  series: string
  /** Debian's name of the architecture */
  architecture: string
  /** hosts, but for the API's own, that files may be on */
  hosts: readonly string[]
}

export interface LaunchpadPackage {
  name: string
  version: string
  url: string
  size: number
  sha256: string
}

/**
 * The kernels of a series that are wanted by their names, once each, and only those that were published and whose files
 * are still there. Errors: those of `readIndex`, `invalid_index`.
 */
export async function readLaunchpad(
  series: LaunchpadSeries,
  wanted: (name: string) => boolean,
  options: IndexOptions,
): Promise<LaunchpadPackage[]> {
  const binaries = new Map<string, Binary>()
  for await (const binary of published(series, options)) {
    const { binary_package_name: name, binary_package_version: version } = binary
    if (wanted(name) && isThere(binary)) binaries.set(`${name} ${version}`, binary)
  }
  const found = await mapConcurrent(binaries.values(), REQUESTS, (binary) =>
    fileOf(series, binary, options),
  )
  return found.filter((file) => file !== undefined)
}

async function* published(
  { api, series, architecture }: LaunchpadSeries,
  options: IndexOptions,
): AsyncGenerator<Binary> {
  const query = new URLSearchParams({
    'ws.op': 'getPublishedBinaries',
    binary_name: 'linux-image-',
    distro_arch_series: `${api}/ubuntu/${series}/${architecture}`,
    'ws.size': String(PAGE_SIZE),
  })
  const seen = new Set<string>()
  let url: string | undefined = `${api}/ubuntu/+archive/primary?${query}`
  while (url) {
    if (seen.has(url) || seen.size === MAX_PAGES)
      throw new GeneratorError('invalid_index', `${api}: the pages of ${series} have no end`)
    seen.add(url)
    const answer: Type.Static<typeof Page> = parseJson(
      await readIndex(url, MAX_PAGE, options),
      page,
      url,
    )
    yield* answer.entries
    url = answer.next_collection_link ? urlAt(api, answer.next_collection_link) : undefined
  }
}

/** Not what is only proposed; nor what was withdrawn, or is hidden: its files are gone. */
function isThere({ pocket, status, date_superseded, build_link }: Binary): boolean {
  const withdrawn = status === 'Deleted' && !date_superseded
  return pocket !== 'Proposed' && !withdrawn && !/redacted/.test(build_link ?? '')
}

async function fileOf(
  { api, hosts }: LaunchpadSeries,
  binary: Binary,
  options: IndexOptions,
): Promise<LaunchpadPackage | undefined> {
  const query = new URLSearchParams({ 'ws.op': 'binaryFileUrls', include_meta: 'true' })
  const url = `${urlAt(api, binary.self_link)}?${query}`
  const immutable = { ...options, immutable: true }
  const files = parseJson(await readIndex(url, MAX_PAGE, immutable), Files, url)
  const file = files.find((one) => /\.d?deb$/.test(one.url))
  if (!file) return undefined
  const { size, sha256 } = file
  const { binary_package_name: name, binary_package_version: version } = binary
  return { name, version, url: urlAt(api, file.url, hosts), size, sha256 }
}
