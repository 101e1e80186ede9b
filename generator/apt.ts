/*
 * apt repositories (deb-src: apt-ftparchive(1), https://wiki.debian.org/DebianRepository/Format): InRelease is signed
 * and names the digest of each Packages file, which names that of each package. Nothing unsigned is believed.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { sha256Of } from '../storage/index.ts'
import { type Compression, decompress } from './decompress.ts'
import { type DownloadOptions, downloadAll } from './download.ts'
import { GeneratorError } from './error.ts'
import { verifyClearSigned } from './signature.ts'

const MAX_RELEASE = 8 * 1024 * 1024
const MAX_PACKAGES = 256 * 1024 * 1024
const MAX_STANZA = 1024 * 1024

/** Packages files we read, best first. */
const VARIANTS = [
  ['Packages.xz', 'xz'],
  ['Packages.zst', 'zst'],
  ['Packages.gz', 'gz'],
  ['Packages', 'none'],
] as const satisfies readonly (readonly [string, Compression])[]

export interface AptSuite {
  /** base URL of the repository, without a slash at its end */
  base: string
  suite: string
  components: readonly string[]
  /** Debian's name of the architecture */
  architecture: string
  /** paths of its keyrings, of which those that are there count */
  keyrings: readonly string[]
  /** it gets nothing new any more: what has expired since is good */
  frozen?: boolean
}

/** A stanza of Packages: field names in lower case. */
export type Stanza = ReadonlyMap<string, string>

export interface AptOptions extends DownloadOptions {
  /** where Packages files are kept by their digests; else below the user's cache directory */
  cache?: string
  /** the time by which Valid-Until is judged */
  now?: Date
}

/**
 * Reads the stanzas of a suite's Packages whose name `wanted` takes. Errors: those of `download`, `bad_signature`,
 * `no_keyring`, `expired_signature`, `bad_index`, `index_mismatch`.
 */
export async function readPackages(
  suite: AptSuite,
  wanted: (name: string) => boolean,
  options: AptOptions = {},
): Promise<Stanza[]> {
  const release = await readRelease(suite, options)
  const found: Stanza[] = []
  for (const component of suite.components) {
    const directory = `${component}/binary-${suite.architecture}`
    const [variant, compression] =
      VARIANTS.find(([name]) => release.files.has(`${directory}/${name}`)) ?? []
    if (!variant || !compression) continue // the suite does not have this architecture
    const packages = await readIndex(suite, release, `${directory}/${variant}`, options)
    const plain = decompress(Readable.from([packages]), compression)
    found.push(...(await parsePackages(plain, wanted)))
  }
  return found
}

interface Release {
  /** size and digest by path below the suite */
  files: Map<string, { size: number; sha256: string }>
  byHash: boolean
}

async function readRelease(
  { base, suite, keyrings, frozen = false }: AptSuite,
  options: AptOptions,
): Promise<Release> {
  const url = `${base}/dists/${suite}/InRelease`
  const { signal } = options
  const document = await downloadAll(url, MAX_RELEASE, options)
  const text = await verifyClearSigned(document, { keyrings, frozen, signal })
  const [fields] = parseStanzas(text)
  if (!fields) throw new GeneratorError('bad_index', `${url} is empty`)
  const until = fields.get('valid-until')
  if (
    until !== undefined &&
    !frozen &&
    !(Date.parse(until) > (options.now ?? new Date()).getTime())
  ) {
    throw new GeneratorError('expired_signature', `${url} was valid until ${until}`)
  }
  const files = new Map<string, { size: number; sha256: string }>()
  for (const line of (fields.get('sha256') ?? '').split('\n')) {
    const [, sha256, size, path] = /^\s*([0-9a-f]{64})\s+(\d{1,12})\s+(\S+)$/.exec(line) ?? []
    if (sha256 && path) files.set(path, { size: Number(size), sha256 })
  }
  if (files.size === 0) throw new GeneratorError('bad_index', `${url} names no files`)
  return { files, byHash: fields.get('acquire-by-hash') === 'yes' }
}

/** A file that the release names, from the cache or the mirror. */
async function readIndex(
  suite: AptSuite,
  release: Release,
  path: string,
  options: AptOptions,
): Promise<Buffer> {
  const { size, sha256 } = release.files.get(path)!
  if (size > MAX_PACKAGES) throw new GeneratorError('too_large', `${path} has ${size} bytes`)
  const directory = options.cache ?? defaultCache()
  const cached = join(directory, sha256)
  const known = await readFile(cached).catch(() => undefined)
  if (known && sha256Of(known) === sha256) return known

  const directories = `${suite.base}/dists/${suite.suite}`
  const named = `${directories}/${path}`
  const hashed = `${directories}/${path.replace(/[^/]+$/, `by-hash/SHA256/${sha256}`)}`
  const bytes = await downloadEither(release.byHash ? [hashed, named] : [named], size, options)
  if (sha256Of(bytes) !== sha256) {
    throw new GeneratorError('index_mismatch', `${named} is not the file that InRelease names`)
  }
  await keep(directory, cached, bytes)
  return bytes
}

/** The first of these URLs that is there: not every mirror or proxy has what it says by hash (apt's rule, too). */
async function downloadEither(
  [url, ...others]: readonly string[],
  limit: number,
  options: AptOptions,
): Promise<Buffer> {
  try {
    return await downloadAll(url!, limit, options)
  } catch (error) {
    if (others.length === 0 || !(error instanceof GeneratorError) || error.code !== 'gone')
      throw error
    return await downloadEither(others, limit, options)
  }
}

/** A cache that cannot be written is no reason to fail. */
async function keep(directory: string, path: string, bytes: Buffer): Promise<void> {
  const temporary = `${path}.${process.pid}`
  await mkdir(directory, { recursive: true })
    .then(() => writeFile(temporary, bytes))
    .then(() => rename(temporary, path))
    .catch(() => {})
}

function defaultCache(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'btfmill', 'index')
}

async function parsePackages(
  stream: Readable,
  wanted: (name: string) => boolean,
): Promise<Stanza[]> {
  const found: Stanza[] = []
  let text = ''
  stream.setEncoding('utf8')
  const take = (stanza: string) => {
    const name = /^Package: (.*)$/m.exec(stanza)?.[1]
    if (name !== undefined && wanted(name)) found.push(...parseStanzas(stanza))
  }
  for await (const piece of stream) {
    const stanzas = (text + piece).split('\n\n')
    text = stanzas.pop() ?? ''
    if (text.length > MAX_STANZA)
      throw new GeneratorError('bad_index', 'Packages has an endless stanza')
    for (const stanza of stanzas) take(stanza)
  }
  take(text)
  return found
}

/** Reads stanzas (deb822(5)): lines that begin with a blank continue the field above them. */
function parseStanzas(text: string): Stanza[] {
  const stanzas: Map<string, string>[] = []
  let fields: Map<string, string> | undefined
  let last = ''
  for (const line of text.split('\n')) {
    const [, name, value = ''] = /^([^\s:#][^\s:]*):[ \t]*(.*?)\s*$/.exec(line) ?? []
    if (line.trim() === '') {
      fields = undefined
    } else if (name !== undefined) {
      if (!fields) {
        fields = new Map()
        stanzas.push(fields)
      }
      last = name.toLowerCase()
      fields.set(last, value)
    } else if (fields && /^[ \t]/.test(line)) {
      fields.set(last, `${fields.get(last)}\n${line}`)
    } else {
      throw new GeneratorError(
        'bad_index',
        `a line that is no field: ${JSON.stringify(line.slice(0, 80))}`,
      )
    }
  }
  return stanzas
}
