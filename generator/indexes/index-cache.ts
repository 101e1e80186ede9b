/*
 * The cache of index files on disk. A file that has not changed on the server (ETag, Last-Modified) is read from disk;
 * a file with a known digest is not requested at all. Files are stored under their digests, which are checked at each
 * read: a file with another digest is downloaded again. Within a run each URL is requested once. What was parsed is kept
 * beside the files, with a digest of its own: large indexes take longer to parse than to download. The first write of a
 * process removes files that have not been used for a month.
 */
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { sha256Of, showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import {
  type DownloadOptions,
  downloadAll,
  downloadUnless,
  type Validators,
} from '../packages/download.ts'
import type { Checksum } from '../sources/source.ts'

/** Maximum characters of what was parsed of one file. All kernels of a distribution have less than 10 MB. */
const MAX_PARSED = 64 * 1024 ** 2

/** Milliseconds that an unused file is kept. */
const MAX_AGE = 30 * 24 * 3600 * 1000

export interface IndexOptions extends DownloadOptions {
  /** directory where index files are kept between runs (default: btfmill/index in the user's cache directory) */
  cache?: string
  /** the responses of this run by URL */
  responses?: Map<string, Promise<Buffer>>
  /** gets the error of each entry of an index that is left out because it is invalid */
  onRefused?: (error: GeneratorError) => void
}

/** A cached response: what is stored besides its body. */
const CachedResponse = Compile(
  Type.Object({
    url: Type.String(),
    sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    etag: Type.Optional(Type.String()),
    lastModified: Type.Optional(Type.String()),
  }),
)

export interface ReadOptions extends IndexOptions {
  /** the file never changes: once it is cached, it is not requested again */
  immutable?: boolean
}

/** Reads the current file at a URL. Errors: `too_large` over `limit` bytes; those of `download`. */
export async function readIndex(url: string, limit: number, options: ReadOptions): Promise<Buffer> {
  if (!/^https?:/.test(url)) return await downloadAll(url, limit, options)
  const { responses } = options
  const response = responses?.get(url) ?? revalidate(url, limit, options)
  responses?.set(url, response)
  return await response
}

/** Reads a file from the cache if the server says that it is current, or from the server. */
async function revalidate(url: string, limit: number, options: ReadOptions): Promise<Buffer> {
  const { cache = defaultCache(), immutable = false } = options
  const path = join(cache, `${sha256Of(Buffer.from(url))}.json`)
  const cached = await cachedResponse(path, url, cache)
  if (cached && immutable) return cached.bytes
  const response = await downloadUnless(url, cached?.validators ?? {}, limit, options)
  if (!response) {
    if (cached) return cached.bytes
    throw new GeneratorError(
      'unreachable',
      `${showable(url)}: the server answers 304 to a request without ETag`,
    )
  }
  const { bytes, validators } = response
  if (!immutable && Object.keys(validators).length === 0) return bytes
  const sha256 = sha256Of(bytes)
  await write(join(cache, sha256), bytes)
  await write(path, JSON.stringify({ url, sha256, ...validators }))
  return bytes
}

/** The cached response for a URL; undefined if there is none, or it is damaged. */
async function cachedResponse(
  path: string,
  url: string,
  cache: string,
): Promise<{ bytes: Buffer; validators: Validators } | undefined> {
  try {
    const response: unknown = JSON.parse(await readFile(path, 'utf8'))
    if (!CachedResponse.Check(response) || response.url !== url) return undefined
    const { sha256, url: _, ...validators } = response
    const bytes = await cachedFile(cache, { algorithm: 'sha256', hex: sha256 })
    await touch(path)
    return bytes && { bytes, validators }
  } catch {
    return undefined
  }
}

export interface ExactFile {
  /** its locations; a server that does not have it at the first is asked for the next */
  urls: readonly string[]
  checksum: Checksum
  /** bytes, or their maximum */
  size: number
}

/**
 * Reads the file with a digest from the cache or the server. Errors: `index_mismatch` if the server has another file,
 * `too_large`; those of `download`.
 */
export async function readExact(
  { urls, checksum, size }: ExactFile,
  options: IndexOptions,
): Promise<Buffer> {
  const { cache = defaultCache() } = options
  const cached = await cachedFile(cache, checksum)
  if (cached) return cached
  const bytes = await downloadFirst(urls, size, options)
  const digest = digestOf(bytes, checksum)
  if (digest !== checksum.hex) {
    throw new GeneratorError(
      'index_mismatch',
      `${showable(urls.at(-1)!)}: ${checksum.algorithm} ${digest}, but the index has ${checksum.hex}`,
    )
  }
  await write(join(cache, checksum.hex), bytes)
  return bytes
}

/** What a parser makes of a file. */
export interface Parsing<T> {
  /** changes whenever the parser, or anything but the file that its result depends on, does */
  id: unknown
  /** the digest of the file */
  checksum: Checksum
  /** Reads and parses the file. The result must be the same after JSON. */
  parse(): Promise<T>
}

/**
 * Returns the result of an earlier parsing of a file, in this run or before, or parses the file and keeps the result.
 * Errors: those of `parse`.
 */
export async function readParsed<T>(
  { id, checksum, parse }: Parsing<T>,
  { cache = defaultCache() }: IndexOptions,
): Promise<T> {
  const key = JSON.stringify([id, checksum.algorithm, checksum.hex])
  const path = join(cache, `${sha256Of(Buffer.from(`parsed ${key}`))}.json`)
  const known = await parsedFile(path, key)
  if (known) return known.value as T
  const value = await parse()
  const text = JSON.stringify(value)
  if (text.length <= MAX_PARSED) await write(path, `${digestOfParsed(key, text)}\n${text}`)
  return value
}

/** Reads what was parsed; undefined if there is none, it is damaged, or another user could have written it. */
async function parsedFile(path: string, key: string): Promise<{ value: unknown } | undefined> {
  try {
    const { uid, mode } = await stat(path)
    if (uid !== process.getuid?.() || (mode & 0o022) !== 0) return undefined
    const file = await readFile(path, 'utf8')
    const at = file.indexOf('\n')
    const text = file.slice(at + 1)
    if (file.slice(0, at) !== digestOfParsed(key, text)) return undefined
    const value: unknown = JSON.parse(text)
    await touch(path)
    return { value }
  } catch {
    return undefined
  }
}

const digestOfParsed = (key: string, text: string): string =>
  createHash('sha256').update(key).update('\n').update(text).digest('hex')

/** Downloads the first URL that exists: some mirrors announce by-hash paths and lack them (apt does the same). */
async function downloadFirst(
  [url, ...others]: readonly string[],
  limit: number,
  options: IndexOptions,
): Promise<Buffer> {
  try {
    return await downloadAll(url!, limit, options)
  } catch (error) {
    const isMissing = error instanceof GeneratorError && error.code === 'not_found_upstream'
    if (!isMissing || others.length === 0) throw error
    return await downloadFirst(others, limit, options)
  }
}

async function cachedFile(cache: string, checksum: Checksum): Promise<Buffer | undefined> {
  const path = join(cache, checksum.hex)
  const bytes = await readFile(path).catch(() => undefined)
  if (!bytes || digestOf(bytes, checksum) !== checksum.hex) return undefined
  await touch(path)
  return bytes
}

const digestOf = (bytes: Uint8Array, { algorithm }: Checksum): string =>
  createHash(algorithm).update(bytes).digest('hex')

/** Writes a file of the cache. A cache that cannot be written is not an error. */
async function write(path: string, bytes: Uint8Array | string): Promise<void> {
  const temporary = `${path}.${process.pid}`
  const cache = dirname(path)
  await mkdir(cache, { recursive: true })
    .then(() => writeFile(temporary, bytes))
    .then(() => rename(temporary, path))
    .then(() => removeOld(cache))
    .catch(() => {})
}

/** Marks a file as used. */
async function touch(path: string): Promise<void> {
  const now = new Date()
  await utimes(path, now, now).catch(() => {})
}

/** Caches from which this process has removed old files. */
const cleaned = new Set<string>()

/** Removes old files, but only those named as this module names them: the directory may have others. */
async function removeOld(cache: string): Promise<void> {
  if (cleaned.has(cache)) return
  cleaned.add(cache)
  for (const name of await readdir(cache)) {
    const path = join(cache, name)
    const isOurs = /^[0-9a-f]{40,128}(\.json)?(\.\d+)?$/.test(name)
    if (isOurs && (await stat(path)).mtimeMs < Date.now() - MAX_AGE) await rm(path)
  }
}

function defaultCache(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'btfmill', 'index')
}
