/*
 * Index files, read once: what a server says has not changed (ETag, Last-Modified) is taken from disk, and what is
 * named by its digest is not even asked for. Contents lie under their digests and are never trusted: one that does
 * not have its digest is read again. Within a run each URL is asked once, whoever wants it. What nobody has wanted for a
 * month is removed by the next who writes.
 */
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { sha256Of } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import {
  type DownloadOptions,
  downloadAll,
  downloadUnless,
  type Validators,
} from '../packages/download.ts'
import type { Checksum } from '../sources/source.ts'

/** in milliseconds */
const KEPT = 30 * 24 * 3600 * 1000

export interface IndexOptions extends DownloadOptions {
  /** where index files are kept between runs; else below the user's cache directory */
  cache?: string
  /** what this run has asked for already, by URL */
  asked?: Map<string, Promise<Buffer>>
}

/** What is kept of an answer. */
const Answer = Compile(
  Type.Object({
    url: Type.String(),
    sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    etag: Type.Optional(Type.String()),
    lastModified: Type.Optional(Type.String()),
  }),
)

export interface ReadOptions extends IndexOptions {
  /** it never changes: what was read once is not asked for again */
  immutable?: boolean
}

/** What is at a URL now. Errors: those of `download`, `too_large` over `limit` bytes. */
export async function readIndex(url: string, limit: number, options: ReadOptions): Promise<Buffer> {
  if (!/^https?:/.test(url)) return await downloadAll(url, limit, options)
  const { asked } = options
  const reading = asked?.get(url) ?? readAnswer(url, limit, options)
  asked?.set(url, reading)
  return await reading
}

async function readAnswer(url: string, limit: number, options: ReadOptions): Promise<Buffer> {
  const { cache = defaultCache(), immutable = false } = options
  const path = join(cache, `${sha256Of(Buffer.from(url))}.json`)
  const known = await knownAnswer(path, url, cache)
  if (known && immutable) return known.bytes
  const answer = await downloadUnless(url, known?.validators ?? {}, limit, options)
  if (!answer) {
    if (known) return known.bytes
    throw new GeneratorError('unreachable', `${url}: the server answers 304 to who has nothing`)
  }
  const { bytes, validators } = answer
  if (!immutable && Object.keys(validators).length === 0) return bytes
  const sha256 = sha256Of(bytes)
  await keep(join(cache, sha256), bytes)
  await keep(path, JSON.stringify({ url, sha256, ...validators }))
  return bytes
}

/** What is known of a URL; undefined where it does not read, or is not what was kept. */
async function knownAnswer(
  path: string,
  url: string,
  cache: string,
): Promise<{ bytes: Buffer; validators: Validators } | undefined> {
  try {
    const answer: unknown = JSON.parse(await readFile(path, 'utf8'))
    if (!Answer.Check(answer) || answer.url !== url) return undefined
    const { sha256, url: _, ...validators } = answer
    const bytes = await known(cache, { algorithm: 'sha256', hex: sha256 })
    await wanted(path)
    return bytes && { bytes, validators }
  } catch {
    return undefined
  }
}

export interface ExactFile {
  /** where it may be; those after the first where a server does not have it there */
  urls: readonly string[]
  checksum: Checksum
  /** bytes, or the most that it may have */
  size: number
}

/**
 * The file that has a digest. Errors: those of `download`, `too_large`, `index_mismatch` where the server has another.
 */
export async function readExact(
  { urls, checksum, size }: ExactFile,
  options: IndexOptions,
): Promise<Buffer> {
  const { cache = defaultCache() } = options
  const kept = await known(cache, checksum)
  if (kept) return kept
  const bytes = await downloadEither(urls, size, options)
  if (digestOf(bytes, checksum) !== checksum.hex) {
    throw new GeneratorError(
      'index_mismatch',
      `${urls.at(-1)} is not the file that its index names`,
    )
  }
  await keep(join(cache, checksum.hex), bytes)
  return bytes
}

/** The first of these URLs that is there: not every mirror or proxy has what it says by hash (apt's rule, too). */
async function downloadEither(
  [url, ...others]: readonly string[],
  limit: number,
  options: IndexOptions,
): Promise<Buffer> {
  try {
    return await downloadAll(url!, limit, options)
  } catch (error) {
    if (
      others.length === 0 ||
      !(error instanceof GeneratorError) ||
      error.code !== 'not_found_upstream'
    )
      throw error
    return await downloadEither(others, limit, options)
  }
}

async function known(cache: string, checksum: Checksum): Promise<Buffer | undefined> {
  const path = join(cache, checksum.hex)
  const bytes = await readFile(path).catch(() => undefined)
  if (!bytes || digestOf(bytes, checksum) !== checksum.hex) return undefined
  await wanted(path)
  return bytes
}

const digestOf = (bytes: Uint8Array, { algorithm }: Checksum): string =>
  createHash(algorithm).update(bytes).digest('hex')

/** A cache that cannot be written is no reason to fail. */
async function keep(path: string, bytes: Uint8Array | string): Promise<void> {
  const temporary = `${path}.${process.pid}`
  const cache = dirname(path)
  await mkdir(cache, { recursive: true })
    .then(() => writeFile(temporary, bytes))
    .then(() => rename(temporary, path))
    .then(() => removeOld(cache))
    .catch(() => {})
}

async function wanted(path: string): Promise<void> {
  const now = new Date()
  await utimes(path, now, now).catch(() => {})
}

/** Caches that this process has cleaned. */
const cleaned = new Set<string>()

/** Of the names that this file gives alone, lest the directory be somebody else's, too. */
async function removeOld(cache: string): Promise<void> {
  if (cleaned.has(cache)) return
  cleaned.add(cache)
  for (const name of await readdir(cache)) {
    const path = join(cache, name)
    const ours = /^[0-9a-f]{40,128}(\.json)?(\.\d+)?$/.test(name)
    if (ours && (await stat(path)).mtimeMs < Date.now() - KEPT) await rm(path)
  }
}

function defaultCache(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'btfmill', 'index')
}
