/*
 * Launchpad, which keeps every build that Ubuntu ever published (https://launchpad.net/+apidoc/devel.html). The
 * binaries of an archive (getPublishedBinaries) come in pages, each with a link to the next. Each binary has its files
 * with their digests (binaryFileUrls), which never change. Nothing is signed: TLS authenticates it.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { mapConcurrent } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { parseJson } from '../json.ts'
import { urlAt } from '../sources/location.ts'
import { type IndexOptions, readIndex } from './index-cache.ts'

/** bytes */
const MAX_PAGE = 16 * 1024 * 1024
/** binaries */
const PAGE_SIZE = 300
/** Pages of a collection: enough for 600 000 binaries. */
const MAX_PAGES = 2000
/** Concurrent requests for files. */
const CONCURRENCY = 4

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

const PageSchema = Type.Object({
  next_collection_link: Nullable,
  entries: Type.Array(Binary, { maxItems: 10 * PAGE_SIZE }),
})
const Page = Compile(PageSchema)

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
  /** URL of the API, without a trailing slash: https://api.launchpad.net/devel */
  api: string
  /** codename */
  series: string
  /** Debian's architecture name */
  architecture: string
  /** hosts that files may be on, besides the API's own */
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
 * Reads the packages of a series that `wanted` accepts by name, each once. Only packages that were published and whose
 * files still exist are returned. Errors: `invalid_index`; those of `readIndex`.
 */
export async function readLaunchpad(
  series: LaunchpadSeries,
  wanted: (name: string) => boolean,
  options: IndexOptions,
): Promise<LaunchpadPackage[]> {
  const binaries = new Map<string, Binary>()
  for await (const binary of readBinaries(series, options)) {
    const { binary_package_name: name, binary_package_version: version } = binary
    if (wanted(name) && isAvailable(binary)) binaries.set(`${name} ${version}`, binary)
  }
  const found = await mapConcurrent(binaries.values(), CONCURRENCY, (binary) =>
    fileOf(series, binary, options),
  )
  return found.filter((file) => file !== undefined)
}

async function* readBinaries(
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
      throw new GeneratorError(
        'invalid_index',
        `${api}: the pages of ${series} repeat, or are more than ${MAX_PAGES}`,
      )
    seen.add(url)
    const bytes = await readIndex(url, MAX_PAGE, options)
    const page: Type.Static<typeof PageSchema> = parseJson(bytes, Page, url)
    yield* page.entries
    url = page.next_collection_link ? urlAt(api, page.next_collection_link) : undefined
  }
}

/** False for proposed packages, and for withdrawn and hidden ones, whose files no longer exist. */
function isAvailable({ pocket, status, date_superseded, build_link }: Binary): boolean {
  const isWithdrawn = status === 'Deleted' && !date_superseded
  return pocket !== 'Proposed' && !isWithdrawn && !/redacted/.test(build_link ?? '')
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
