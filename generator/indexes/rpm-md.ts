/*
 * rpm-md repositories (createrepo_c(8)): repomd.xml has the digest of the primary index, which has the digest of each
 * package. If the distribution signs repomd.xml (repomd.xml.asc) and its key is on this machine, the signature
 * authenticates all of them. Otherwise they are as trustworthy as the connection.
 */

import { Readable } from 'node:stream'
import { showable, withoutCredentials } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { type Compression, capped, decompress } from '../packages/decompress.ts'
import { findKeyrings, verifyDetached } from '../signature.ts'
import { fileBelow, fileOnServer, linkBelow } from '../sources/location.ts'
import { type NamingRule, namingOf } from '../sources/naming.ts'
import type { Checksum, Trust } from '../sources/source.ts'
import { usableEntries } from './entries.ts'
import { type IndexOptions, readExact, readIndex, readParsed } from './index-cache.ts'
import { type RpmEntry, readPrimaryXml } from './primary.ts'
import { readPrimarySqlite } from './primary-sqlite.ts'
import { readXml } from './xml.ts'

/** bytes */
const MAX_REPOMD = 4 * 1024 * 1024
const MAX_SIGNATURE = 64 * 1024
/** Bytes of the primary index as it is sent, and decompressed. Those of distributions have about 100 MB. */
const MAX_INDEX = 256 * 1024 * 1024
const MAX_DECOMPRESSED = 1024 ** 3

/** The compressions that we read, by file name extension. */
const EXTENSIONS: Readonly<Record<string, Compression>> = {
  gz: 'gz',
  zst: 'zst',
  xz: 'xz',
  bz2: 'bz2',
  xml: 'none',
  sqlite: 'none',
}

export interface RpmRepository {
  /** URL, without a trailing slash */
  base: string
  /** paths of keyrings for the signature of repomd.xml; missing files are ignored */
  keyrings: readonly string[]
  /** repomd.xml is always signed: without its signature it is rejected */
  signed: boolean
  /** it gets no updates: a key that has expired since is accepted if it was valid when it signed */
  endOfLife?: boolean
}

export interface RpmPackage {
  name: string
  epoch: string
  version: string
  revision: string
  arch: string
  url: string
  size: number
  checksum: Checksum
}

/**
 * Reads the packages of a repository that match the rules, and what authenticates them. Invalid entries are left out.
 * Errors: `invalid_signature`, `expired_signature`, `no_keyring`, `invalid_index`, `too_large`; those of `readIndex` and
 * `readExact`.
 */
export async function readRpmMd(
  repository: RpmRepository,
  rules: readonly NamingRule[],
  options: IndexOptions,
): Promise<{ packages: RpmPackage[]; trust: Trust }> {
  const url = `${repository.base}/repodata/repomd.xml`
  const repomd = await readIndex(url, MAX_REPOMD, options)
  const signed = await verify(repository, url, repomd, options)
  const index = chooseIndex(await parseRepomd(repomd), url)
  const entries = await readPrimary(repository, index, rules, options)
  const packages = usableEntries(entries, (entry) => packageOf(entry, repository.base), options)
  return { packages, trust: signed ? 'index' : trustOf(url) }
}

/** The trust in an unsigned index from a URL. */
export const trustOf = (url: string): Trust => (url.startsWith('http:') ? 'none' : 'digest')

/** Returns whether repomd.xml is signed. Errors: `invalid_signature` and others if the signature does not verify. */
async function verify(
  { keyrings, signed, endOfLife = false }: RpmRepository,
  url: string,
  repomd: Buffer,
  options: IndexOptions,
): Promise<boolean> {
  if (keyrings.length === 0) return false
  if (!signed && (await findKeyrings(keyrings)).length === 0) return false
  const signature = await readIndex(`${url}.asc`, MAX_SIGNATURE, options).catch((error) => {
    if (error instanceof GeneratorError && error.code === 'not_found_upstream') return undefined
    throw error
  })
  if (signature === undefined) {
    if (signed)
      throw new GeneratorError(
        'invalid_signature',
        `${showable(url)}: its signature does not exist`,
      )
    return false
  }
  await verifyDetached(signature, repomd, { keyrings, endOfLife, signal: options.signal })
  return true
}

/** An index that repomd.xml names (its element `data`). */
export interface RepomdData {
  type: string
  href: string
  /** bytes as it is sent, and decompressed; empty if not given */
  size: string
  openSize: string
  checksum: { type: string; hex: string }
}

/** Reads the indexes that repomd.xml names. Errors: `invalid_index`. */
export async function parseRepomd(bytes: Buffer): Promise<RepomdData[]> {
  const found: RepomdData[] = []
  let data: RepomdData | undefined
  await readXml(Readable.from([bytes]), 'repomd', {
    open(path, attributes) {
      if (path === 'repomd/data') {
        const { type = '' } = attributes
        data = { type, href: '', size: '', openSize: '', checksum: { type: '', hex: '' } }
        found.push(data)
      }
      if (path === 'repomd/data/checksum') data!.checksum.type = attributes.type ?? ''
      if (path === 'repomd/data/location') data!.href = attributes.href ?? ''
    },
    close(path, text) {
      if (path === 'repomd/data/checksum') data!.checksum.hex = text.trim()
      if (path === 'repomd/data/size') data!.size = text.trim()
      if (path === 'repomd/data/open-size') data!.openSize = text.trim()
    },
  })
  return found
}

export interface PrimaryIndex extends RepomdData {
  form: 'xml' | 'sqlite'
  compression: Compression
}

/** Chooses the primary index to read: XML before SQLite. Errors: `invalid_index`. */
export function chooseIndex(all: readonly RepomdData[], url: string): PrimaryIndex {
  for (const [type, form] of [
    ['primary', 'xml'],
    ['primary_db', 'sqlite'],
  ] as const) {
    for (const data of all) {
      const compression = EXTENSIONS[/\.([^./]*)$/.exec(data.href)?.[1] ?? '']
      if (data.type === type && compression) return { ...data, form, compression }
    }
  }
  throw new GeneratorError(
    'invalid_index',
    `${showable(url)}: it names no primary index in XML or SQLite with a supported compression`,
  )
}

/** Changes whenever the readers of the primary index give other entries for the same file. */
const PARSER = 'primary 1'

/** Reads the entries that match the rules: parsed, or from the cache. */
async function readPrimary(
  repository: RpmRepository,
  index: PrimaryIndex,
  rules: readonly NamingRule[],
  options: IndexOptions,
): Promise<RpmEntry[]> {
  return await readParsed(
    {
      id: [PARSER, index, rules],
      checksum: checksumOf(index.checksum),
      parse: () => parsePrimary(repository, index, rules, options),
    },
    options,
  )
}

async function parsePrimary(
  { base }: RpmRepository,
  { href, size, openSize, checksum, form, compression }: PrimaryIndex,
  rules: readonly NamingRule[],
  options: IndexOptions,
): Promise<RpmEntry[]> {
  const maxSize = parseSize(size, MAX_INDEX, href)
  const maxDecompressed = parseSize(openSize, MAX_DECOMPRESSED, href)
  const urls = [fileBelow(base, href)]
  const bytes = await readExact({ urls, checksum: checksumOf(checksum), size: maxSize }, options)
  const plain = capped(decompress(Readable.from([bytes]), compression), maxDecompressed, href)
  const open = Readable.from(plain, { objectMode: false })
  if (form === 'sqlite') return await readPrimarySqlite(open, rules, options.signal)
  const naming = namingOf(rules)
  return await readPrimaryXml(open, (name) => naming(name) !== undefined)
}

/** Parses a size in repomd.xml; without one, returns the limit. Errors: `too_large` over the limit. */
function parseSize(text: string, limit: number, file: string): number {
  const size = text === '' ? limit : Number(text)
  if (size <= limit) return size
  throw new GeneratorError('too_large', `${file}: ${text} bytes, more than ${limit}`)
}

/** Hash algorithms by RPM's names, and the number of hex digits of each. */
const ALGORITHMS: Readonly<Record<string, [Checksum['algorithm'], number]>> = {
  sha: ['sha1', 40],
  sha1: ['sha1', 40],
  sha256: ['sha256', 64],
  sha384: ['sha384', 96],
  sha512: ['sha512', 128],
}

/** Checks a digest. Errors: `invalid_index` if it is invalid, or its algorithm is not supported. */
function checksumOf({ type, hex }: { type: string; hex: string }): Checksum {
  const [algorithm, digits] = (Object.hasOwn(ALGORITHMS, type) && ALGORITHMS[type]) || []
  if (algorithm && hex.length === digits && /^[0-9a-f]+$/.test(hex)) return { algorithm, hex }
  throw new GeneratorError(
    'invalid_index',
    `invalid or unsupported digest ${JSON.stringify(`${type} ${hex}`.slice(0, 80))}`,
  )
}

/** Checks an entry and resolves its URL. Errors: `invalid_index`. */
export function packageOf(entry: RpmEntry, base: string): RpmPackage {
  const { name, epoch, version, revision, arch, size } = entry
  const isWord = (text: string) => /^[\w.+~^-]{1,128}$/.test(text)
  const isNamed = [name, version, revision, arch].every(isWord) && /^\d{0,9}$/.test(epoch)
  if (!isNamed || !Number.isSafeInteger(size) || size < 0) {
    const fields = [name, epoch, version, revision, arch, size].join(' ')
    throw new GeneratorError(
      'invalid_index',
      `invalid package ${JSON.stringify(fields.slice(0, 120))}: ` +
        'expected name, epoch, version, release, architecture and size',
    )
  }
  const packageBase = entry.base === undefined ? base : baseBelow(base, entry.base)
  const url = fileOnServer(packageBase, entry.path)
  const checksum = checksumOf(entry.checksum)
  return { name, epoch: epoch || '0', version, revision, arch, url, size, checksum }
}

/** Resolves `xml:base`. Errors: `invalid_index` if it leads out of the repository. */
function baseBelow(base: string, other: string): string {
  const link = linkBelow(base, other)
  if (link) return link.url.replace(/\/+$/, '')
  throw new GeneratorError(
    'invalid_index',
    `the index names packages outside its repository: ${JSON.stringify(withoutCredentials(other).slice(0, 80))}`,
  )
}
