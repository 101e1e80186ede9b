/*
 * snapshot.debian.org, which keeps every package that Debian ever had. Its JSON API
 * (https://salsa.debian.org/snapshot-team/snapshot/blob/master/API) lists the versions of a source package, and all
 * files of a version with their locations; and the versions of a binary package, and the files of each. Files have a
 * SHA-1. Nothing is signed: TLS authenticates it.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { compareVersions, mapConcurrent } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { parseJson } from '../json.ts'
import { debNameOf } from '../sources/file-name.ts'
import { fileBelow } from '../sources/location.ts'
import { type IndexOptions, readIndex } from './index-cache.ts'

/** bytes */
const MAX_RESPONSE = 64 * 1024 * 1024
const MAX_VERSIONS = 10_000
/** Builds of one exact kernel: each takes a request. Real ones have a few. */
const MAX_BUILDS = 64
/** Concurrent requests: the service asks its users to keep them few. */
const CONCURRENCY = 2

const Versions = Compile(
  Type.Object({
    result: Type.Array(Type.Object({ version: Type.String() }), { maxItems: MAX_VERSIONS }),
  }),
)

const BinaryVersions = Compile(
  Type.Object({
    result: Type.Array(
      Type.Object({
        binary_version: Type.String(),
        source: Type.String(),
        version: Type.String(),
      }),
      { maxItems: MAX_VERSIONS },
    ),
  }),
)

const File = Type.Object({
  name: Type.String(),
  size: Type.Integer({ minimum: 0 }),
  archive_name: Type.String({ pattern: '^[a-z0-9-]{1,64}$' }),
  path: Type.String({ pattern: '^/' }),
  first_seen: Type.String({ pattern: '^[0-9]{8}T[0-9]{6}Z$' }),
})

const Files = Compile(
  Type.Object({
    fileinfo: Type.Record(Type.String({ pattern: '^[0-9a-f]{40}$' }), Type.Array(File), {
      additionalProperties: false,
    }),
  }),
)

export interface SnapshotPackages {
  /** URL of the service, without a trailing slash */
  base: string
  /** the source package that kernels are built from */
  package: string
  /** regular expression for its versions that belong to the release */
  matching: string
  /** Debian's architecture name */
  architecture: string
  /** read only that many versions that have wanted packages: the newest (default: all) */
  newest?: number | undefined
  /** the only packages that are asked for, by kernel, each kernel's best first; without it, all are listed */
  names?: readonly (readonly string[])[] | undefined
}

export interface SnapshotPackage {
  name: string
  version: string
  url: string
  size: number
  sha1: string
}

/**
 * Reads the packages that `wanted` accepts by name, in all matching versions or the newest of them. With `names`, only these
 * are asked for: two requests for each version of one that is there. Errors: `invalid_index`; those of `readIndex`.
 */
export async function readSnapshot(
  packages: SnapshotPackages,
  wanted: (name: string) => boolean,
  options: IndexOptions,
): Promise<SnapshotPackage[]> {
  const { names } = packages
  if (!names) return await readVersions(packages, wanted, options)
  const found: SnapshotPackage[] = []
  for (const kernel of names) {
    const before = found.length
    for (const name of kernel) {
      if (found.length > before) break
      found.push(...(await readBinary(packages, name, options)))
    }
  }
  return found
}

/** Reads the packages of one exact name. */
async function readBinary(
  { base, package: source, matching, architecture, newest }: SnapshotPackages,
  wanted: string,
  options: IndexOptions,
): Promise<SnapshotPackage[]> {
  const url = `${base}/mr/binary/${encodeURIComponent(wanted)}/`
  const answer = await readIndex(url, MAX_RESPONSE, options).catch((error) => {
    if (error instanceof GeneratorError && error.code === 'not_found_upstream') return undefined
    throw error
  })
  if (!answer) return []
  const pattern = new RegExp(`^(?:${matching})$`)
  const ours = parseJson(answer, BinaryVersions, url).result.filter(
    (one) => one.source === source && pattern.test(one.version),
  )
  const versions = [...new Set(ours.map((one) => one.binary_version))]
  const newestFirst = versions
    .sort((a, b) => compareVersions(b, a))
    .slice(0, Math.min(newest ?? MAX_BUILDS, MAX_BUILDS))
  const found = await mapConcurrent(newestFirst, CONCURRENCY, async (version) => {
    const files = await filesOf(`${url}${encodeURIComponent(version)}/binfiles?fileinfo=1`, options)
    return packagesIn(files, base, architecture, (name) => name === wanted)
  })
  return found.flat()
}

async function readVersions(
  { base, package: source, matching, architecture, newest }: SnapshotPackages,
  wanted: (name: string) => boolean,
  options: IndexOptions,
): Promise<SnapshotPackage[]> {
  const url = `${base}/mr/package/${encodeURIComponent(source)}/`
  const { result } = parseJson(await readIndex(url, MAX_RESPONSE, options), Versions, url)
  const pattern = new RegExp(`^(?:${matching})$`)
  const versions = new Set(result.map(({ version }) => version).filter((one) => pattern.test(one)))
  let having = 0
  const newestFirst = [...versions].sort((a, b) => compareVersions(b, a))
  const found = await mapConcurrent(newestFirst, CONCURRENCY, async (version) => {
    if (newest !== undefined && having >= newest) return []
    const files = await filesOf(`${url}${encodeURIComponent(version)}/allfiles?fileinfo=1`, options)
    const packages = packagesIn(files, base, architecture, wanted)
    if (packages.length > 0) having++
    return packages
  })
  return found.flat()
}

type FoundFile = [sha1: string, Type.Static<typeof File>]

/** The packages among files. Errors: `invalid_index` for a path outside the archive. */
function packagesIn(
  files: readonly FoundFile[],
  base: string,
  architecture: string,
  wanted: (name: string) => boolean,
): SnapshotPackage[] {
  return files.flatMap(([sha1, file]) => {
    const deb = debNameOf(file.name)
    if (deb?.arch !== architecture || !wanted(deb.name)) return []
    const { name, version } = deb
    const path = `${file.archive_name}/${file.first_seen}${file.path}/${file.name}`
    return [{ name, version, url: fileBelow(`${base}/archive`, path), size: file.size, sha1 }]
  })
}

/** Reads the files of a version, each with the first location where it was seen. */
async function filesOf(url: string, options: IndexOptions): Promise<FoundFile[]> {
  const bytes = await readIndex(url, MAX_RESPONSE, options)
  const { fileinfo } = parseJson(bytes, Files, url)
  return Object.entries(fileinfo).flatMap(([sha1, [first]]) => (first ? [[sha1, first]] : []))
}
