/*
 * Fetching the keys of sources. Whoever answers at an address, only keys with a fingerprint of the source are taken from
 * the answer; the rest is left out. All addresses are asked, since old copies of a key end earlier: the newest is kept.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type FailureCode, mapConcurrent, showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { type OpenPgpKey, readOpenPgpKeys } from '../openpgp.ts'
import { type DownloadOptions, downloadAll } from '../packages/download.ts'
import { keyPath } from '../signature.ts'
import type { Source } from '../sources/source.ts'

/** Bytes of a file of keys. Fedora's, with the keys of four releases, has 20 kB. */
const MAX_KEYS = 1024 ** 2
/** Addresses that are asked at once. */
const CONCURRENCY = 8
/** Seconds for an answer, with all retries. */
const MAX_TIME = 30
const RETRY = { timeout: 10_000, retries: 2, minDelay: 500, maxDelay: 4000 }

export interface KeyFetchOptions extends DownloadOptions {
  /** seconds for an answer, with all retries (default: 30) */
  maxTime?: number
}

export interface KeyFetch {
  keys: FetchedKey[]
  /** addresses that gave no key */
  failures: { url: string; code: FailureCode; message: string }[]
}

export interface FetchedKey {
  fingerprint: string
  /** ids of the sources that it is a key of */
  sources: string[]
  /**
   * `written`; `unchanged`: the same as the copy that is there; `outdated`: older than that copy, which is kept;
   * `missing`: no address gave it
   */
  state: 'written' | 'unchanged' | 'outdated' | 'missing'
  /** the file */
  path: string
  /** the address that it came from */
  url?: string
}

/**
 * Fetches the keys of sources, and writes each to a file of its own in a directory. Addresses that fail are in the
 * result. Errors: those of the file system; the signal's reason.
 */
export async function fetchKeys(
  sources: readonly Source[],
  directory: string,
  options: KeyFetchOptions = {},
): Promise<KeyFetch> {
  const pinned = new Map<string, Set<string>>()
  const owners = new Map<string, string[]>()
  for (const source of sources) {
    if (!('fingerprints' in source)) continue
    const { id, fingerprints = [], keyUrls = [] } = source
    for (const key of fingerprints) owners.set(key, [...(owners.get(key) ?? []), id])
    for (const url of keyUrls)
      pinned.set(url, new Set([...(pinned.get(url) ?? []), ...fingerprints]))
  }
  const failures: KeyFetch['failures'] = []
  const answers = await mapConcurrent(pinned, CONCURRENCY, async ([url, expected]) => {
    try {
      return (await keysAt(url, expected, options)).map((key) => ({ ...key, url }))
    } catch (error) {
      if (!(error instanceof GeneratorError)) throw error
      failures.push({ url: showable(url), code: error.code, message: error.message })
      return []
    }
  })
  const found = answers.flat()
  const keys: FetchedKey[] = []
  for (const [fingerprint, ids] of owners) {
    const copies = found.filter((key) => key.fingerprint === fingerprint)
    const [newest] = copies.sort((a, b) => b.signedAt - a.signedAt)
    const path = keyPath(directory, fingerprint)
    const state = newest ? await keep(newest, path) : 'missing'
    const from = newest && { url: newest.url }
    keys.push({ fingerprint, sources: ids, state, path, ...from })
  }
  return { keys, failures }
}

/**
 * Downloads a file of keys, and returns those with an expected fingerprint. Errors: `untrusted_key` if it has none of
 * them, `invalid_key`; those of `downloadAll`; the signal's reason.
 */
async function keysAt(
  url: string,
  expected: ReadonlySet<string>,
  { signal, maxTime = MAX_TIME, ...options }: KeyFetchOptions,
): Promise<OpenPgpKey[]> {
  const deadline = AbortSignal.timeout(maxTime * 1000)
  const ended = AbortSignal.any([deadline, ...(signal ? [signal] : [])])
  const file = await downloadAll(url, MAX_KEYS, {
    retry: RETRY,
    ...options,
    signal: ended,
  }).catch((cause) => {
    if (!deadline.aborted || signal?.aborted) throw cause
    const message = `${showable(url)}: no complete answer within ${maxTime} s`
    throw new GeneratorError('stalled', message, { cause })
  })
  const keys = parseKeys(url, file)
  const known = keys.filter(({ fingerprint }) => expected.has(fingerprint))
  if (known.length > 0) return known
  const others = keys.slice(0, 3).map(({ fingerprint }) => fingerprint)
  throw new GeneratorError(
    'untrusted_key',
    `${showable(url)}: expected the key ${[...expected].join(' or ')}, found ${others.join(', ') || 'none of version 4'}`,
  )
}

function parseKeys(url: string, file: Buffer): OpenPgpKey[] {
  try {
    return readOpenPgpKeys(file)
  } catch (error) {
    if (!(error instanceof GeneratorError)) throw error
    throw new GeneratorError(error.code, `${showable(url)}: ${error.message}`, { cause: error })
  }
}

/** Writes a key in one step, unless the file has the same or a newer copy of it. */
async function keep(key: OpenPgpKey, path: string): Promise<FetchedKey['state']> {
  const there = await copyAt(path, key.fingerprint)
  if (there?.bytes.equals(key.bytes)) return 'unchanged'
  if (there && there.signedAt > key.signedAt) return 'outdated'
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    await mkdir(dirname(path), { recursive: true })
    await writeFile(temporary, key.bytes, { flush: true })
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {}) // the first error is the one to report
    throw error
  }
  return 'written'
}

/** The copy of a key in a file; undefined if there is none. */
async function copyAt(path: string, fingerprint: string): Promise<OpenPgpKey | undefined> {
  try {
    return readOpenPgpKeys(await readFile(path)).find((key) => key.fingerprint === fingerprint)
  } catch {
    return undefined
  }
}
