/*
 * Launchpad, which keeps every build that Ubuntu ever published (https://launchpad.net/+apidoc/devel.html). The
 * binaries of an archive (getPublishedBinaries) come in some sixty pages, each with a link to the next; those of one
 * exact name come at once. Each binary has its files with their digests (binaryFileUrls), which never change: one more
 * request, which is made only for packages that are needed. Nothing is signed: TLS authenticates it.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { compareVersions, mapConcurrent, showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { parseJson } from '../json.ts'
import { urlAt } from '../sources/location.ts'
import type { Named } from '../sources/naming.ts'
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

export interface LaunchpadQuery {
  /** The kernel that a package's name stands for, and its rank in that kernel's packages; undefined for unwanted ones. */
  naming(name: string): Pick<Named, 'release' | 'rank'> | undefined
  /** the only packages that are asked for, by kernel, each kernel's best first; without it, all are listed */
  names?: readonly (readonly string[])[]
  /** minimum size of a package in bytes */
  minSize?: number
  /** how many builds are needed: the newest (default: all) */
  limit?: number
}

export interface LaunchpadPackage {
  name: string
  version: string
  url: string
  size: number
  sha256: string
}

/**
 * Reads the wanted packages of a series, newest first, and of each build only the package with the lowest rank. Only
 * packages that were published and whose files still exist are returned. Errors: `invalid_index`; those of `readIndex`.
 */
export async function readLaunchpad(
  series: LaunchpadSeries,
  query: LaunchpadQuery,
  options: IndexOptions,
): Promise<LaunchpadPackage[]> {
  const { names, limit = Number.POSITIVE_INFINITY } = query
  if (!names) return await newestOf(series, { name: 'linux-image-' }, query, limit, options)
  const found: LaunchpadPackage[] = []
  for (const kernel of names) {
    const before = found.length
    for (const name of kernel) {
      const left = limit - found.length
      if (found.length > before || left <= 0) break
      found.push(...(await newestOf(series, { name, exact: true }, query, left, options)))
    }
  }
  return found
}

/** Reads the packages whose name begins with `name`, or is exactly `name`. */
async function newestOf(
  series: LaunchpadSeries,
  which: { name: string; exact?: boolean },
  { naming, minSize = 0 }: LaunchpadQuery,
  limit: number,
  options: IndexOptions,
): Promise<LaunchpadPackage[]> {
  const builds = await buildsOf(series, which, naming, options)
  const usable = async (packages: readonly RankedBinary[]) => {
    for (const { binary } of packages.toSorted((a, b) => a.rank - b.rank)) {
      const file = await fileOf(series, binary, options)
      if (file && file.size >= minSize) return file
    }
    return undefined
  }
  const found: LaunchpadPackage[] = []
  while (builds.length > 0 && found.length < limit) {
    const next = builds.splice(0, limit - found.length)
    const files = await mapConcurrent(next, CONCURRENCY, usable)
    found.push(...files.filter((file) => file !== undefined))
  }
  return found
}

interface RankedBinary {
  binary: Binary
  release: string
  rank: number
}

/** The available packages of each build, the newest build first. */
async function buildsOf(
  series: LaunchpadSeries,
  which: { name: string; exact?: boolean },
  naming: LaunchpadQuery['naming'],
  options: IndexOptions,
): Promise<RankedBinary[][]> {
  const binaries = new Map<string, RankedBinary>()
  for await (const binary of readBinaries(series, which, options)) {
    const { binary_package_name: name, binary_package_version: version } = binary
    const named = naming(name)
    if (named && isAvailable(binary)) binaries.set(`${name} ${version}`, { binary, ...named })
  }
  const versionOf = ({ binary }: RankedBinary) => binary.binary_package_version
  const builds = Map.groupBy(binaries.values(), (one) => `${versionOf(one)} ${one.release}`)
  return [...builds.values()].sort(
    ([a], [b]) =>
      compareVersions(versionOf(b!), versionOf(a!)) || compareVersions(b!.release, a!.release),
  )
}

async function* readBinaries(
  { api, series, architecture }: LaunchpadSeries,
  { name, exact = false }: { name: string; exact?: boolean },
  options: IndexOptions,
): AsyncGenerator<Binary> {
  const query = new URLSearchParams({
    'ws.op': 'getPublishedBinaries',
    binary_name: name,
    ...(exact && { exact_match: 'true' }),
    distro_arch_series: `${api}/ubuntu/${series}/${architecture}`,
    'ws.size': String(PAGE_SIZE),
  })
  const seen = new Set<string>()
  let url: string | undefined = `${api}/ubuntu/+archive/primary?${query}`
  while (url) {
    if (seen.has(url) || seen.size === MAX_PAGES)
      throw new GeneratorError(
        'invalid_index',
        `${showable(api)}: the pages of ${series} repeat, or are more than ${MAX_PAGES}`,
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
