/*
 * apt repositories (deb-src: apt-ftparchive(1), https://wiki.debian.org/DebianRepository/Format): InRelease is signed
 * and names the digest of each Packages file, which names that of each package. Nothing unsigned is believed.
 */
import { Readable } from 'node:stream'
import { GeneratorError } from '../error.ts'
import { type Compression, capped, decompress } from '../packages/decompress.ts'
import { readKeyrings, verifyClearSigned } from '../signature.ts'
import { type IndexOptions, readExact, readIndex } from './index-cache.ts'

const MAX_RELEASE = 8 * 1024 * 1024
const MAX_PACKAGES = 256 * 1024 * 1024
/** as it is read; Debian's has 50 MB */
const MAX_OPEN = 4 * 1024 ** 3
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
  endOfLife?: boolean
}

/** A stanza of Packages: field names in lower case. */
export type Stanza = ReadonlyMap<string, string>

export interface AptOptions extends IndexOptions {
  /** the time by which Valid-Until is judged */
  now?: Date
}

/**
 * Reads the stanzas of a suite's Packages whose name `wanted` takes. Errors: those of `download`, `invalid_signature`,
 * `no_keyring`, `expired_signature`, `invalid_index`, `index_mismatch`.
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
    const packages = await readFileOf(suite, release, `${directory}/${variant}`, options)
    const plain = decompress(Readable.from([packages]), compression)
    const bounded = Readable.from(capped(plain, MAX_OPEN, variant), { objectMode: false })
    found.push(...(await parsePackages(bounded, wanted)))
  }
  return found
}

interface Release {
  /** size and digest by path below the suite */
  files: Map<string, { size: number; sha256: string }>
  byHash: boolean
}

async function readRelease(
  { base, suite, keyrings, endOfLife = false }: AptSuite,
  options: AptOptions,
): Promise<Release> {
  const url = `${base}/dists/${suite}/InRelease`
  const { signal } = options
  await readKeyrings(keyrings) // without keys there is no use in asking
  const document = await readIndex(url, MAX_RELEASE, options)
  const text = await verifyClearSigned(document, { keyrings, endOfLife, signal })
  const [fields] = parseStanzas(text)
  if (!fields) throw new GeneratorError('invalid_index', `${url} is empty`)
  const until = fields.get('valid-until')
  if (
    until !== undefined &&
    !endOfLife &&
    !(Date.parse(until) > (options.now ?? new Date()).getTime())
  ) {
    throw new GeneratorError('expired_signature', `${url} was valid until ${until}`)
  }
  const files = new Map<string, { size: number; sha256: string }>()
  for (const line of (fields.get('sha256') ?? '').split('\n')) {
    const [, sha256, size, path] = /^\s*([0-9a-f]{64})\s+(\d{1,12})\s+(\S+)$/.exec(line) ?? []
    if (sha256 && path) files.set(path, { size: Number(size), sha256 })
  }
  if (files.size === 0) throw new GeneratorError('invalid_index', `${url} names no files`)
  return { files, byHash: fields.get('acquire-by-hash') === 'yes' }
}

/** A file that the release names, from the cache or the mirror. */
async function readFileOf(
  suite: AptSuite,
  release: Release,
  path: string,
  options: AptOptions,
): Promise<Buffer> {
  const { size, sha256 } = release.files.get(path)!
  if (size > MAX_PACKAGES) throw new GeneratorError('too_large', `${path} has ${size} bytes`)
  const named = `${suite.base}/dists/${suite.suite}/${path}`
  const hashed = named.replace(/[^/]+$/, `by-hash/SHA256/${sha256}`)
  const urls = release.byHash ? [hashed, named] : [named]
  return await readExact({ urls, checksum: { algorithm: 'sha256', hex: sha256 }, size }, options)
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
      throw new GeneratorError('invalid_index', 'Packages has an endless stanza')
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
        'invalid_index',
        `a line that is no field: ${JSON.stringify(line.slice(0, 80))}`,
      )
    }
  }
  return stanzas
}
