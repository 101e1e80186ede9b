/*
 * snapshot.debian.org keeps every package that Debian ever had, and says so in JSON
 * (https://salsa.debian.org/snapshot-team/snapshot/blob/master/API): the versions of a source package, and of each
 * version all files with where they are. Files are named by their SHA-1; nothing is signed: TLS vouches for it.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { mapConcurrent } from '../concurrency.ts'
import { parseJson } from '../json.ts'
import { debNameOf } from '../sources/file-name.ts'
import { fileBelow } from '../sources/location.ts'
import { type IndexOptions, readIndex } from './index-cache.ts'

const MAX_ANSWER = 64 * 1024 * 1024
const MAX_VERSIONS = 10_000
/** requests at once: it asks its users to be gentle */
const REQUESTS = 2

const Versions = Compile(
  Type.Object({
    result: Type.Array(Type.Object({ version: Type.String() }), { maxItems: MAX_VERSIONS }),
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
  /** URL of the service, without a slash at its end */
  base: string
  /** the source package that kernels are built from */
  package: string
  /** a regular expression of its versions that belong to the release */
  matching: string
  /** Debian's name of the architecture */
  architecture: string
}

export interface SnapshotPackage {
  name: string
  version: string
  url: string
  size: number
  sha1: string
}

/**
 * The packages that are wanted by their names, of all versions that match. Errors: those of `readIndex`, `invalid_index`.
 */
export async function readSnapshot(
  { base, package: source, matching, architecture }: SnapshotPackages,
  wanted: (name: string) => boolean,
  options: IndexOptions,
): Promise<SnapshotPackage[]> {
  const url = `${base}/mr/package/${encodeURIComponent(source)}/`
  const { result } = parseJson(await readIndex(url, MAX_ANSWER, options), Versions, url)
  const pattern = new RegExp(`^(?:${matching})$`)
  const versions = new Set(result.map(({ version }) => version).filter((one) => pattern.test(one)))
  const found = await mapConcurrent(versions, REQUESTS, async (version) => {
    const files = await filesOf(`${url}${encodeURIComponent(version)}/allfiles?fileinfo=1`, options)
    return files.flatMap(([sha1, file]) => {
      const deb = debNameOf(file.name)
      if (deb?.arch !== architecture || !wanted(deb.name)) return []
      const { name, version: binary } = deb
      const path = `${file.archive_name}/${file.first_seen}${file.path}/${file.name}`
      const where = fileBelow(`${base}/archive`, path)
      return [{ name, version: binary, url: where, size: file.size, sha1 }]
    })
  })
  return found.flat()
}

/** Every file of a version, with the first place where it was seen. */
async function filesOf(
  url: string,
  options: IndexOptions,
): Promise<[sha1: string, Type.Static<typeof File>][]> {
  const bytes = await readIndex(url, MAX_ANSWER, options)
  const { fileinfo } = parseJson(bytes, Files, url)
  return Object.entries(fileinfo).flatMap(([sha1, [first]]) => (first ? [[sha1, first]] : []))
}
