/*
 * rpm-md repositories (createrepo_c(8)): repomd.xml names the digest of the primary index, which names that of each
 * package. Where the distribution signs repomd.xml (repomd.xml.asc) and its key is on this machine, all of that is
 * vouched for; else it is as good as the connection.
 */
import { Readable } from 'node:stream'
import { GeneratorError } from '../error.ts'
import { type Compression, capped, decompress } from '../packages/decompress.ts'
import { findKeyrings, verifyDetached } from '../signature.ts'
import { fileBelow, linkBelow } from '../sources/location.ts'
import { type NamingRule, namingOf } from '../sources/naming.ts'
import type { Checksum, Trust } from '../sources/source.ts'
import { type IndexOptions, readExact, readIndex } from './index-cache.ts'
import { type RpmEntry, readPrimaryXml } from './primary.ts'
import { readPrimarySqlite } from './primary-sqlite.ts'
import { readXml } from './xml.ts'

const MAX_REPOMD = 4 * 1024 * 1024
const MAX_SIGNATURE = 64 * 1024
/** bytes of the primary index as it is sent, and as it is read; those of distributions have some 100 MB */
const MAX_INDEX = 256 * 1024 * 1024
const MAX_OPEN = 1024 ** 3

/** Compressions that we read, by the endings of names. */
const ENDINGS: Readonly<Record<string, Compression>> = {
  gz: 'gz',
  zst: 'zst',
  xz: 'xz',
  bz2: 'bz2',
  xml: 'none',
  sqlite: 'none',
}

export interface RpmRepository {
  /** URL, without a slash at its end */
  base: string
  /** paths of the keyrings that repomd.xml is signed with, of which those that are there count */
  keyrings: readonly string[]
  /** it is always signed: without its signature it is refused */
  signed: boolean
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
 * The packages of a repository that rules take, and by whom they are vouched for. Errors: those of `readIndex` and
 * `readExact`, `invalid_signature`, `expired_signature`, `no_keyring`, `invalid_index`, `too_large`.
 */
export async function readRpmMd(
  repository: RpmRepository,
  rules: readonly NamingRule[],
  options: IndexOptions,
): Promise<{ packages: RpmPackage[]; trust: Trust }> {
  const url = `${repository.base}/repodata/repomd.xml`
  const repomd = await readIndex(url, MAX_REPOMD, options)
  const signed = await verify(repository, url, repomd, options)
  const index = choose(await parseRepomd(repomd), url)
  const entries = await readPrimary(repository, index, rules, options)
  const packages = entries.map((entry) => packageOf(entry, repository.base))
  return { packages, trust: signed ? 'index' : trustOf(url) }
}

/** How far what came unsigned from a URL is vouched for. */
export const trustOf = (url: string): Trust => (url.startsWith('http:') ? 'none' : 'digest')

/** Whether repomd.xml is signed, and rightly. */
async function verify(
  { keyrings, signed }: RpmRepository,
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
    if (signed) throw new GeneratorError('invalid_signature', `${url} has no signature`)
    return false
  }
  await verifyDetached(signature, repomd, { keyrings, signal: options.signal })
  return true
}

/** An index that repomd.xml names. */
interface Data {
  type: string
  href: string
  /** bytes, as it is sent, and as it is read; empty where it does not say */
  size: string
  openSize: string
  checksum: { type: string; hex: string }
}

async function parseRepomd(bytes: Buffer): Promise<Data[]> {
  const found: Data[] = []
  let data: Data | undefined
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

interface Index extends Data {
  form: 'xml' | 'sqlite'
  compression: Compression
}

/** The primary index to read: XML before SQLite. */
function choose(all: readonly Data[], url: string): Index {
  for (const [type, form] of [
    ['primary', 'xml'],
    ['primary_db', 'sqlite'],
  ] as const) {
    for (const data of all) {
      const compression = ENDINGS[/[^./]*$/.exec(data.href)?.[0] ?? '']
      if (data.type === type && compression) return { ...data, form, compression }
    }
  }
  throw new GeneratorError('invalid_index', `${url} names no primary index that we read`)
}

async function readPrimary(
  { base }: RpmRepository,
  { href, size, openSize, checksum, form, compression }: Index,
  rules: readonly NamingRule[],
  options: IndexOptions,
): Promise<RpmEntry[]> {
  const promised = bounded(size, MAX_INDEX, href)
  const opened = bounded(openSize, MAX_OPEN, href)
  const urls = [fileBelow(base, href)]
  const bytes = await readExact({ urls, checksum: checksumOf(checksum), size: promised }, options)
  const plain = capped(decompress(Readable.from([bytes]), compression), opened, href)
  const open = Readable.from(plain, { objectMode: false })
  if (form === 'sqlite') return await readPrimarySqlite(open, rules, options.signal)
  const naming = namingOf(rules)
  return await readPrimaryXml(open, (name) => naming(name) !== undefined)
}

/** A size that repomd.xml says, else the limit. Errors: `too_large` over it. */
function bounded(text: string, limit: number, what: string): number {
  const size = text === '' ? limit : Number(text)
  if (size <= limit) return size
  throw new GeneratorError('too_large', `${what} has ${text} bytes, more than ${limit}`)
}

/** The names that RPM's tools have for algorithms, and how many hex digits each gives. */
const ALGORITHMS: Readonly<Record<string, [Checksum['algorithm'], number]>> = {
  sha: ['sha1', 40],
  sha1: ['sha1', 40],
  sha256: ['sha256', 64],
  sha384: ['sha384', 96],
  sha512: ['sha512', 128],
}

/** Errors: `invalid_index` for what is no digest that we take. */
function checksumOf({ type, hex }: { type: string; hex: string }): Checksum {
  const [algorithm, digits] = (Object.hasOwn(ALGORITHMS, type) && ALGORITHMS[type]) || []
  if (algorithm && hex.length === digits && /^[0-9a-f]+$/.test(hex)) return { algorithm, hex }
  throw new GeneratorError(
    'invalid_index',
    `no digest: ${JSON.stringify(`${type} ${hex}`.slice(0, 80))}`,
  )
}

/** Errors: `invalid_index`. */
function packageOf(entry: RpmEntry, base: string): RpmPackage {
  const { name, epoch, version, revision, arch, size } = entry
  const word = (text: string) => /^[\w.+~^-]{1,128}$/.test(text)
  const sound = [name, version, revision, arch].every(word) && /^\d{0,9}$/.test(epoch)
  if (!sound || !Number.isSafeInteger(size) || size < 0) {
    const said = JSON.stringify(`${name} ${version} ${revision} ${arch} ${size}`.slice(0, 120))
    throw new GeneratorError('invalid_index', `no package: ${said}`)
  }
  const under = entry.base === undefined ? base : baseBelow(base, entry.base)
  const url = fileBelow(under, entry.path)
  const checksum = checksumOf(entry.checksum)
  return { name, epoch: epoch || '0', version, revision, arch, url, size, checksum }
}

/** What `xml:base` says, where that is below the repository. */
function baseBelow(base: string, other: string): string {
  const link = linkBelow(base, other)
  if (link) return link.url.replace(/\/+$/, '')
  throw new GeneratorError(
    'invalid_index',
    `packages elsewhere: ${JSON.stringify(other.slice(0, 80))}`,
  )
}
