/*
 * apt repositories (apt-ftparchive(1), https://wiki.debian.org/DebianRepository/Format): InRelease, or Release with the
 * signature Release.gpg, is signed and has the digest of each Packages file, which has the digest of each package.
 * Unsigned repositories are rejected.
 */

import { Readable } from 'node:stream'
import { showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { type Compression, capped, decompress } from '../packages/decompress.ts'
import {
  readKeyrings,
  type SignatureTrust,
  verifyClearSigned,
  verifyDetached,
} from '../signature.ts'
import { type IndexOptions, readExact, readIndex, readParsed } from './index-cache.ts'

/** Bytes of InRelease or Release, of Release.gpg, of a Packages file as it is sent, and decompressed (Debian's has 50 MB). */
const MAX_RELEASE = 8 * 1024 * 1024
const MAX_SIGNATURE = 64 * 1024
const MAX_PACKAGES = 256 * 1024 * 1024
const MAX_DECOMPRESSED = 4 * 1024 ** 3
/** characters */
const MAX_STANZA = 1024 * 1024

/** The forms of Packages that we read, in order of preference. */
const VARIANTS = [
  ['Packages.xz', 'xz'],
  ['Packages.zst', 'zst'],
  ['Packages.gz', 'gz'],
  ['Packages', 'none'],
] as const satisfies readonly (readonly [string, Compression])[]

export interface AptSuite {
  /** base URL of the repository, without a trailing slash */
  base: string
  suite: string
  components: readonly string[]
  /** Debian's architecture name */
  architecture: string
  /** paths of keyrings; missing files are ignored */
  keyrings: readonly string[]
  /** it gets no updates: what has expired since is accepted */
  endOfLife?: boolean
}

/** A stanza of Packages: values by field name in lower case. */
export type Stanza = ReadonlyMap<string, string>

export interface AptOptions extends IndexOptions {
  /** identifies what `wanted` accepts: with it, the stanzas are cached between runs */
  selection?: unknown
  /** the time that Valid-Until is compared with (default: now) */
  now?: Date
}

/**
 * Reads the stanzas of the packages that `wanted` accepts by name. Errors: `invalid_signature`, `no_keyring`,
 * `expired_signature`, `invalid_index`, `index_mismatch`; those of `download`.
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
    const path = `${directory}/${variant}`
    const parse = async (): Promise<Stanza[]> => {
      const packages = await readReleaseFile(suite, release, path, options)
      const plain = decompress(Readable.from([packages]), compression)
      const bounded = Readable.from(capped(plain, MAX_DECOMPRESSED, variant), { objectMode: false })
      return await parsePackages(bounded, wanted)
    }
    found.push(...(await cachedStanzas(parse, release.files.get(path)!.sha256, options)))
  }
  return found
}

/** Changes whenever `parsePackages` gives other stanzas for the same file. */
const PARSER = 'apt 1'

/** The stanzas of a Packages file with a digest: parsed, or from the cache if the options name the selection. */
async function cachedStanzas(
  parse: () => Promise<Stanza[]>,
  hex: string,
  { selection, ...options }: AptOptions,
): Promise<Stanza[]> {
  if (selection === undefined) return await parse()
  const parsing = {
    id: [PARSER, selection],
    checksum: { algorithm: 'sha256', hex } as const,
    parse: async () => (await parse()).map((stanza) => [...stanza]),
  }
  return (await readParsed(parsing, options)).map((fields) => new Map(fields))
}

export interface Release {
  /** size and digest by path relative to the suite */
  files: Map<string, { size: number; sha256: string }>
  byHash: boolean
}

async function readRelease(suite: AptSuite, options: AptOptions): Promise<Release> {
  const { keyrings, endOfLife = false } = suite
  const directory = `${suite.base}/dists/${suite.suite}`
  const trust = { keyrings, endOfLife, signal: options.signal }
  await readKeyrings(keyrings) // fails before the download if there is no key
  const { url, text } = await readSignedRelease(directory, trust, options)
  return parseRelease(text, url, endOfLife ? undefined : (options.now ?? new Date()))
}

/** Reads the text of InRelease, or else of Release with Release.gpg: old suites have only these (apt does the same). */
async function readSignedRelease(
  directory: string,
  trust: SignatureTrust,
  options: AptOptions,
): Promise<{ url: string; text: string }> {
  const [inline, plain] = [`${directory}/InRelease`, `${directory}/Release`]
  try {
    const document = await readIndex(inline, MAX_RELEASE, options)
    return { url: inline, text: await verifyClearSigned(document, trust) }
  } catch (error) {
    const release = isMissing(error) && (await readIfThere(plain, MAX_RELEASE, options))
    if (!release) throw error
    const signature = await readIfThere(`${plain}.gpg`, MAX_SIGNATURE, options)
    if (!signature)
      throw new GeneratorError('invalid_signature', `${showable(plain)}: Release.gpg is missing`)
    await verifyDetached(signature, release, trust)
    return { url: plain, text: release.toString('utf8') }
  }
}

const isMissing = (error: unknown): boolean =>
  error instanceof GeneratorError && error.code === 'not_found_upstream'

async function readIfThere(
  url: string,
  limit: number,
  options: AptOptions,
): Promise<Buffer | undefined> {
  return await readIndex(url, limit, options).catch((error) => {
    if (isMissing(error)) return undefined
    throw error
  })
}

/**
 * Parses the text of an InRelease; it must be valid at `now`, if that is given. Errors: `invalid_index`,
 * `expired_signature`.
 */
export function parseRelease(text: string, url: string, now?: Date): Release {
  const [fields] = parseStanzas(text)
  if (!fields) throw new GeneratorError('invalid_index', `${showable(url)}: the file is empty`)
  const until = fields.get('valid-until')
  if (until !== undefined && now && !(Date.parse(until) > now.getTime())) {
    throw new GeneratorError('expired_signature', `${showable(url)}: it was valid until ${until}`)
  }
  const files = new Map<string, { size: number; sha256: string }>()
  for (const line of (fields.get('sha256') ?? '').split('\n')) {
    const [, sha256, size, path] = /^\s*([0-9a-f]{64})\s+(\d{1,12})\s+(\S+)$/.exec(line) ?? []
    if (sha256 && path) files.set(path, { size: Number(size), sha256 })
  }
  if (files.size === 0)
    throw new GeneratorError('invalid_index', `${showable(url)}: it names no file with a SHA-256`)
  return { files, byHash: fields.get('acquire-by-hash') === 'yes' }
}

/** Reads a file that the release names from the cache or the mirror. */
async function readReleaseFile(
  suite: AptSuite,
  release: Release,
  path: string,
  options: AptOptions,
): Promise<Buffer> {
  const { size, sha256 } = release.files.get(path)!
  if (size > MAX_PACKAGES)
    throw new GeneratorError('too_large', `${path}: ${size} bytes, more than ${MAX_PACKAGES}`)
  const url = `${suite.base}/dists/${suite.suite}/${path}`
  const byHash = url.replace(/[^/]+$/, `by-hash/SHA256/${sha256}`)
  const urls = release.byHash ? [byHash, url] : [url]
  return await readExact({ urls, checksum: { algorithm: 'sha256', hex: sha256 }, size }, options)
}

/** Reads the stanzas of the packages that `wanted` accepts by name. Errors: `invalid_index`; those of the stream. */
export async function parsePackages(
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
      throw new GeneratorError(
        'invalid_index',
        `Packages has a stanza of more than ${MAX_STANZA} characters`,
      )
    for (const stanza of stanzas) take(stanza)
  }
  take(text)
  return found
}

/** Parses stanzas (deb822(5)). A line that begins with a blank continues the field above. */
function parseStanzas(text: string): Stanza[] {
  const stanzas: Map<string, string>[] = []
  let fields: Map<string, string> | undefined
  let last = ''
  for (const line of text.split('\n')) {
    // not one expression for the whole line: it takes quadratic time on a long run of blanks
    const colon = line.indexOf(':')
    const name = line.slice(0, Math.max(colon, 0))
    if (line.trim() === '') {
      fields = undefined
    } else if (/^[^\s#]\S*$/.test(name)) {
      if (!fields) {
        fields = new Map()
        stanzas.push(fields)
      }
      last = name.toLowerCase()
      fields.set(last, line.slice(colon + 1).trim())
    } else if (fields && /^[ \t]/.test(line)) {
      fields.set(last, `${fields.get(last)}\n${line}`)
    } else {
      throw new GeneratorError(
        'invalid_index',
        `invalid line ${JSON.stringify(line.slice(0, 80))}: expected "Field: value"`,
      )
    }
  }
  return stanzas
}
