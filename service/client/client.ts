/*
 * The agent's side: BTF for a kernel, as a file to pass to a loader. The kernel's own BTF comes first, then the cache,
 * then the server or a pack. The SHA-256 of each response is checked, and the file is written by one rename. A file in the cache is
 * named after its SHA-256, which is checked again on each read.
 *
 * This file is also the entry point of the package `@btfmill/client` and of `btfmill/client`, for agents in Node: it
 * loads neither the HTTP service nor S3.
 *
 * With a public key, the server is not trusted: the signed snapshot of the catalog says which SHA-256 the kernel's BTF
 * has. A snapshot older than one that was seen before, or than `maxAge`, is refused.
 */
import { access, readdir } from 'node:fs/promises'
import type { IncomingHttpHeaders } from 'node:http'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { BtfError, DIALECTS, type Dialect, parseBtf, toDialect } from '../../bpf/index.ts'
import {
  Catalog,
  encodeName,
  type Kernel,
  openStore,
  SNAPSHOT_KEY,
  StoreError,
  sha256Of,
  signatureKey,
} from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { ServiceError } from '../error.ts'
import { FOUND_BY, type FoundBy, foundBy, type LookupChoice, lookUp } from '../kernel/lookup.ts'
import { pathOf } from '../kernel/name.ts'
import { Pack, type PackSource, packFile } from '../pack/pack.ts'
import { type CheckedBytes, readChecked } from './body.ts'
import { cachedNear, isDelta, readDelta, readRegular } from './delta.ts'
import { type HostKernel, KERNEL_BTF, thisKernel } from './host.ts'
import {
  FetchError,
  isToken,
  type Reader,
  type RetryOptions,
  requestRange,
  requestWithRetry,
} from './request.ts'
import { requireRecent, verifySnapshot } from './signed-catalog.ts'

export type { Kernel } from '../../storage/index.ts'
export { type HostKernel, thisKernel } from './host.ts'
export {
  type InstalledBtf,
  type InstallOptions,
  installBtf,
  uninstallBtf,
} from './install.ts'
export type { Loader } from './place.ts'
export { FetchError, type FetchErrorCode } from './request.ts'

/** Milliseconds for a whole fetch, without and with `wait`. */
const DEADLINE = 5 * 60 * 1000
const DEADLINE_WITH_WAIT = 60 * 60 * 1000
/** The longest time that a timer takes, in milliseconds. */
const MAX_TIMER = 2 ** 31 - 1

export interface FetchOptions extends RetryOptions, NoKernelParts {
  /** `http://host:port`; without a server, only the kernel's own BTF and the cache are used */
  server?: string
  /** a pack to read instead of asking a server: a path, or an `http://` or `https://` URL of a file with ranges */
  pack?: string
  /** bearer token for a private server; it is not sent to an address that the server redirects to */
  token?: string
  /** the kernel (default: this machine's, whose own BTF is preferred) */
  kernel?: HostKernel
  /** output file (default: a file in the cache) */
  output?: string
  /**
   * where the server has no BTF of the whole kernel, take partial BTF, made from kernel headers: it lacks many types that
   * the kernel has. It is in the cache apart from the others, and is asked for again each time
   */
  partial?: boolean
  /** convert the BTF for an older loader, that of this machine's kernel too (default: as it is) */
  dialect?: Dialect
  /** directory of the cache (default: `$XDG_CACHE_HOME/btfmill/btf`) */
  cache?: string
  /** the text of a minisign public key: accept only BTF that the catalog signed with it names */
  publicKey?: string
  /** with a public key: seconds since the catalog was signed, at most (default: any) */
  maxAge?: number
  /** milliseconds for the whole fetch (default: 5 minutes, or an hour with `wait`) */
  deadline?: number
  /** directory below which the machine's files are read (default: /) */
  root?: string
}

/** The parts of a kernel's name belong into `kernel`; beside it they would be taken for this machine's. */
type NoKernelParts = { [Part in keyof HostKernel]?: never }

/** The names of all options, to find misspelt ones. */
const OPTIONS: Readonly<Record<Exclude<keyof FetchOptions, keyof HostKernel>, true>> = {
  server: true,
  pack: true,
  token: true,
  kernel: true,
  output: true,
  partial: true,
  dialect: true,
  cache: true,
  publicKey: true,
  maxAge: true,
  deadline: true,
  root: true,
  wait: true,
  onPending: true,
  attempts: true,
  timeout: true,
  minDelay: true,
  signal: true,
}
const KERNEL_PARTS: Readonly<Record<keyof HostKernel, 'required' | 'optional'>> = {
  distro: 'required',
  version: 'required',
  arch: 'required',
  release: 'required',
  buildId: 'optional',
  unameVersion: 'optional',
  like: 'optional',
  codename: 'optional',
}

export interface FetchedBtf {
  path: string
  origin: 'kernel' | 'cache' | 'server' | 'pack'
  /** hex; absent for the kernel's own BTF */
  sha256?: string
  /** it has some of the kernel's types only: what it was made of, as the server says */
  partial?: string
  /** the kernel whose BTF the server has sent or the pack has, and how it was found */
  found?: KernelMatch
}

export interface KernelMatch {
  /** `DISTRO/VERSION/ARCH/RELEASE` */
  name: string
  by: FoundBy
}

/** Fetches BTF for a kernel and returns its path. Errors: `FetchError`; the signal's reason. */
export async function fetchBtf(options: FetchOptions = {}): Promise<FetchedBtf> {
  validate(options)
  const { deadline = options.wait ? DEADLINE_WITH_WAIT : DEADLINE } = options
  const end = AbortSignal.timeout(Math.min(deadline, MAX_TIMER))
  const signal = options.signal ? AbortSignal.any([options.signal, end]) : end
  try {
    return await fetchUntilAborted({ ...options, signal })
  } catch (cause) {
    if (cause !== end.reason) throw cause
    throw new FetchError('timeout', `no BTF within ${deadline / 1000} seconds`, { cause })
  }
}

/** Refuses what the types forbid and JavaScript allows. Errors: `invalid_options`. */
function validate(options: FetchOptions): void {
  const { server, token, kernel, dialect, ...rest } = options
  const { pack, publicKey, wait } = options
  if (pack !== undefined && (server || publicKey !== undefined || wait))
    throw invalidOptions('a pack is read without server, publicKey and wait')
  if (options.partial && (pack !== undefined || publicKey !== undefined))
    throw invalidOptions('partial BTF is fetched without pack and publicKey: no catalog signs it')
  for (const name of Object.keys(rest)) {
    if (Object.hasOwn(KERNEL_PARTS, name))
      throw invalidOptions(`option ${name} at the wrong depth: expected { kernel: { ${name} } }`)
    if (!Object.hasOwn(OPTIONS, name))
      throw invalidOptions(
        `unknown option ${name}: expected some of ${Object.keys(OPTIONS).join(', ')}`,
      )
  }
  if (server && !/^https?:$/.test(URL.parse(server)?.protocol ?? ''))
    throw invalidOptions('invalid server: expected http://HOST:PORT')
  if (token !== undefined && !isToken(token))
    throw invalidOptions('invalid token: expected one line, as printed')
  if (dialect !== undefined && !Object.hasOwn(DIALECTS, dialect))
    throw invalidOptions(
      `invalid dialect "${dialect}": expected one of ${Object.keys(DIALECTS).join(', ')}`,
    )
  if (kernel !== undefined) validateKernel(kernel)
}

function validateKernel(kernel: HostKernel): void {
  for (const name of Object.keys(kernel))
    if (!Object.hasOwn(KERNEL_PARTS, name))
      throw invalidOptions(
        `unknown kernel.${name}: expected some of ${Object.keys(KERNEL_PARTS).join(', ')}`,
      )
  for (const [name, need] of Object.entries(KERNEL_PARTS)) {
    const value = kernel[name as keyof HostKernel]
    if (value === undefined && need === 'optional') continue
    if (typeof value !== 'string' || value === '')
      throw invalidOptions(`invalid kernel.${name} ${JSON.stringify(value)}: expected a string`)
  }
}

const invalidOptions = (message: string): FetchError => new FetchError('invalid_options', message)

async function fetchUntilAborted(options: FetchOptions): Promise<FetchedBtf> {
  const { dialect, output } = options
  const own = options.kernel ? undefined : await findOwnBtf(options.root)
  if (own && !dialect) return { path: own, origin: 'kernel' }
  const kernel = options.kernel ?? thisKernel(options.root)
  const directory = cacheDirectory(options, kernel)
  if (own && dialect) {
    const raw = await readOwnBtf(own)
    return await writeConverted(raw, dialect, directory, { origin: 'kernel', output })
  }
  const cached = await readCache(directory)
  const away = options.pack === undefined ? 'server' : 'pack'
  const fetched = () =>
    options.pack === undefined
      ? fetchFromServer(kernel, options)
      : fetchFromPack(options.pack, kernel, options)
  if (options.partial && !cached) return await fetchWithPartial(kernel, directory, options)
  const { raw, sha256, found } = cached ?? (await fetched())
  const origin: FetchedBtf['origin'] = cached ? 'cache' : away
  // the cache keeps what the server sent, whose SHA-256 is known: it serves every dialect
  if (!cached && (dialect || !output)) await write(join(directory, `${sha256}.btf`), raw)
  const at = { origin, output, found }
  if (dialect) return await writeConverted(raw, dialect, directory, at)
  if (output) await write(output, raw)
  const path = output ?? join(directory, `${sha256}.btf`)
  return { path, origin, sha256, ...(found && { found }) }
}

/** The directory of a cache, and the value of the header, for partial BTF that was fetched before. */
const PARTIAL = 'partial'

/**
 * Fetches BTF of a kernel that may be partial. What the server has comes first, since it may have the whole BTF by now; if
 * it cannot be reached, partial BTF in the cache is taken.
 */
async function fetchWithPartial(
  kernel: HostKernel,
  directory: string,
  options: FetchOptions,
): Promise<FetchedBtf> {
  const { dialect, output } = options
  const apart = join(directory, PARTIAL)
  let origin: FetchedBtf['origin'] = 'server'
  const bytes = await fetchFromServer(kernel, options).catch(async (error: unknown) => {
    const kept = await readCache(apart)
    if (!kept || !(error instanceof FetchError) || error.code !== 'unreachable') throw error
    origin = 'cache'
    return { ...kept, partial: PARTIAL }
  })
  const { raw, sha256, found, partial } = bytes
  const place = partial === undefined ? directory : apart
  if (origin === 'server' && (dialect || !output)) await write(join(place, `${sha256}.btf`), raw)
  const told = { ...(found && { found }), ...(partial !== undefined && { partial }) }
  if (dialect)
    return { ...(await writeConverted(raw, dialect, place, { origin, output, found })), ...told }
  if (output) await write(output, raw)
  return { path: output ?? join(place, `${sha256}.btf`), origin, sha256, ...told }
}

/** Writes BTF in a dialect to the output file, else into the cache. Errors: `unsupported_btf`, `not_writable`. */
async function writeConverted(
  raw: Buffer,
  dialect: Dialect,
  directory: string,
  {
    origin,
    output,
    found,
  }: { origin: FetchedBtf['origin']; output: string | undefined; found?: FetchedBtf['found'] },
): Promise<FetchedBtf> {
  const converted = convert(raw, dialect)
  const sha256 = sha256Of(converted)
  const path = output ?? join(directory, dialect, `${sha256}.btf`)
  await write(path, converted)
  return { path, origin, sha256, ...(found && { found }) }
}

function convert(raw: Buffer, dialect: Dialect): Buffer {
  try {
    return Buffer.from(toDialect(parseBtf(raw), dialect))
  } catch (cause) {
    if (!(cause instanceof BtfError)) throw cause
    throw new FetchError('unsupported_btf', `cannot convert to ${dialect}: ${cause.message}`, {
      cause,
    })
  }
}

/** Reads the kernel's own BTF. Errors: `unsupported_btf` if it cannot be read. */
async function readOwnBtf(path: string): Promise<Buffer> {
  try {
    return await readRegular(path)
  } catch (cause) {
    throw new FetchError('unsupported_btf', `${path}: ${(cause as Error).message}`, { cause })
  }
}

interface FetchedBytes extends CheckedBytes {
  found?: KernelMatch
  partial?: string
}

async function findOwnBtf(root = '/'): Promise<string | undefined> {
  const path = join(root, KERNEL_BTF)
  return await access(path).then(
    () => path,
    () => undefined,
  )
}

const cacheRoot = ({ cache }: FetchOptions): string =>
  cache ?? join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'btfmill', 'btf')

/** Where the time of the newest catalog by a key is remembered. */
const catalogsOf = (options: FetchOptions, publicKey: string): string =>
  join(cacheRoot(options), 'catalogs', directoryOfKey(publicKey))

const directoryOfKey = (publicKey: string): string => `by-${sha256Of(publicKey).slice(0, 16)}`

/** Each kernel and each public key has its own directory, so a file in it fits that kernel and was signed by that key. */
function cacheDirectory(options: FetchOptions, kernel: Kernel): string {
  const { publicKey } = options
  const { distro, version, arch, release, buildId, unameVersion } = kernel
  const names = [distro, version, arch, release, buildId ?? unameVersion ?? 'any'].map(encodeName)
  const key = publicKey === undefined ? [] : [directoryOfKey(publicKey)]
  return join(cacheRoot(options), ...names, ...key)
}

async function readCache(directory: string): Promise<FetchedBytes | undefined> {
  for (const name of await readdir(directory).catch(() => [])) {
    const [, sha256] = /^([0-9a-f]{64})\.btf$/.exec(name) ?? []
    const raw = sha256 && (await readRegular(join(directory, name)).catch(() => undefined))
    if (raw && sha256Of(raw) === sha256) return { raw, sha256 }
  }
  return undefined
}

async function fetchFromServer(kernel: HostKernel, options: FetchOptions): Promise<FetchedBytes> {
  const { server, publicKey } = options
  if (!server)
    throw new FetchError('unreachable', 'no BTF in the cache, and no server or pack to ask')
  const choice = choiceOf(kernel)
  const url = btfUrl(server, kernel, choice)
  if (options.partial) {
    url.searchParams.set('partial', 'allow')
    return await requestWithRetry(url, readAnyBtf, options)
  }
  if (publicKey === undefined) return await requestBtf(url, kernel, options)
  const findDigest = () => signedDigest(server, kernel, choice, publicKey, options)
  const sha256 = await findDigest().catch(async (error: unknown) => {
    const isUnknown = error instanceof FetchError && error.problem === 'unknown_kernel'
    if (!options.wait || !isUnknown) throw error
    // the server generates it; it may have signed the catalog some moments after it has the BTF
    const read: Reader<string> = async (bytes, headers) => {
      await readBtf(bytes, headers)
      return await findDigest()
    }
    return await requestWithRetry(url, read, options)
  })
  return await requestBtf(urlBelow(server, `v1/btf/sha256/${sha256}`), kernel, options, sha256)
}

/**
 * Requests BTF, as a delta to BTF of the cache if the server has one. `sha256` is what a signed catalog says. Errors:
 * those of `requestWithRetry`.
 */
async function requestBtf(
  url: URL,
  kernel: HostKernel,
  options: FetchOptions,
  sha256?: string,
): Promise<FetchedBytes> {
  const required = (fetched: FetchedBytes): FetchedBytes => {
    if (sha256 === undefined || fetched.sha256 === sha256) return fetched
    const message = `the response has SHA-256 ${fetched.sha256}: the signed catalog says ${sha256}`
    throw new FetchError('digest_mismatch', message)
  }
  const whole: Reader<FetchedBytes> = async (bytes, headers) =>
    required(await readBtf(bytes, headers))
  const have = await cachedNear(cacheRoot(options), kernel)
  if (have.length === 0) return await requestWithRetry(url, whole, options)
  const withHave = new URL(url)
  withHave.searchParams.set('have', have.map((cached) => cached.sha256).join())
  const read: Reader<FetchedBytes | undefined> = async (bytes, headers) => {
    if (!isDelta(headers)) return await whole(bytes, headers)
    const made = await readDelta(bytes, headers, have)
    return made && (sha256 === undefined || made.sha256 === sha256)
      ? { ...made, ...foundIn(headers) }
      : undefined
  }
  const fetched = await requestWithRetry(withHave, read, options).catch((error: unknown) => {
    // an older server knows no such parameter
    const isOlder = error instanceof FetchError && error.problem === 'invalid_request'
    if (!isOlder) throw error
  })
  return fetched ?? (await requestWithRetry(url, whole, options))
}

function choiceOf({ buildId: build, unameVersion, like, codename }: HostKernel): LookupChoice {
  return {
    ...(build && { build }),
    ...(unameVersion && { unameVersion }),
    ...(like && { like }),
    ...(codename && { codename }),
  }
}

/** Reads a kernel's BTF out of a pack. Errors: `invalid_pack`, `refused`; `unreachable` if it cannot be read. */
async function fetchFromPack(
  pack: string,
  kernel: HostKernel,
  options: FetchOptions,
): Promise<FetchedBytes> {
  try {
    const opened = await Pack.open(sourceOfPack(pack, options))
    const choice = choiceOf(kernel)
    const record = await lookUp(opened.index.catalog, kernel, choice)
    const { sha256 } = record.btf
    const raw = await opened.read(sha256)
    const by = foundBy(kernel, choice, record)
    return { raw, sha256, found: { name: pathOf(record.kernel), by } }
  } catch (cause) {
    if (cause instanceof FetchError) throw cause
    options.signal?.throwIfAborted()
    const { message } = cause as Error
    if (cause instanceof ServiceError)
      throw new FetchError('refused', message, { cause, problem: cause.code })
    if (cause instanceof StoreError) throw new FetchError('invalid_pack', message, { cause })
    throw new FetchError('unreachable', message, { cause })
  }
}

/** A pack at a URL, or in a file. */
function sourceOfPack(pack: string, options: FetchOptions): PackSource {
  const url = /^https?:\/\//i.test(pack) ? URL.parse(pack) : undefined
  if (!url) return packFile(pack)
  const { token: _, ...withoutToken } = options // it is the server's
  return {
    read: (start, end, take) =>
      requestRange(
        url,
        { start, end },
        (bytes) =>
          take(bytes).catch((cause: unknown) => {
            if (!(cause instanceof StoreError)) throw cause
            throw new FetchError('invalid_pack', cause.message, { cause })
          }),
        withoutToken,
      ),
  }
}

const urlBelow = (server: string, path: string): URL =>
  new URL(`${server.replace(/\/+$/, '')}/${path}`)

function btfUrl(server: string, kernel: Kernel, choice: LookupChoice): URL {
  const { build, unameVersion, like, codename } = choice
  const url = urlBelow(server, `v1/btf/${pathOf(kernel)}`)
  if (build) url.searchParams.set('build', build)
  else if (unameVersion) url.searchParams.set('uname-version', unameVersion)
  if (like) url.searchParams.set('like', like)
  if (codename) url.searchParams.set('codename', codename)
  return url
}

/**
 * The SHA-256 that the signed catalog has for a kernel's BTF. Errors: `invalid_signature`, `outdated_catalog`,
 * `not_writable`, `refused`.
 */
async function signedDigest(
  server: string,
  kernel: Kernel,
  choice: LookupChoice,
  publicKey: string,
  options: FetchOptions,
): Promise<string> {
  const snapshot = await requestWithRetry(
    urlBelow(server, `v1/${SNAPSHOT_KEY}`),
    async (bytes) => {
      const url = urlBelow(server, `v1/${signatureKey(SNAPSHOT_KEY)}`)
      const signature = await requestWithRetry(url, (text) => text.toString('utf8'), options)
      const time = verifySnapshot(bytes, signature, publicKey)
      await requireRecent(time, catalogsOf(options, publicKey), options.maxAge)
      return bytes
    },
    options,
  )
  const store = await openStore('memory:')
  await store.put(SNAPSHOT_KEY, snapshot)
  try {
    return (await lookUp(await Catalog.openSnapshot(store), kernel, choice)).btf.sha256
  } catch (cause) {
    if (!(cause instanceof ServiceError)) throw cause
    throw new FetchError('refused', cause.message, { cause, problem: cause.code })
  }
}

/** Reads BTF that may be partial. Errors: `digest_mismatch`. */
async function readAnyBtf(bytes: Buffer, headers: IncomingHttpHeaders): Promise<FetchedBytes> {
  const partial = partialIn(headers)
  const told = partial !== undefined && { partial }
  return { ...(await readChecked(bytes, headers)), ...foundIn(headers), ...told }
}

/** What a response says of partial BTF; undefined for BTF of a whole kernel. */
function partialIn({ 'btf-partial': value }: IncomingHttpHeaders): string | undefined {
  if (value === undefined) return undefined
  return /^[\x20-\x7e]{1,200}$/.test(String(value)) ? String(value) : PARTIAL
}

/**
 * The BTF of a response, and the kernel that it is of. Errors: `digest_mismatch`; `invalid_response` if it is partial, which
 * was not asked for.
 */
async function readBtf(bytes: Buffer, headers: IncomingHttpHeaders): Promise<FetchedBytes> {
  if (partialIn(headers) !== undefined)
    throw new FetchError(
      'invalid_response',
      'the server sends partial BTF, which was not asked for',
    )
  return { ...(await readChecked(bytes, headers)), ...foundIn(headers) }
}

/** What the headers of a response tell of the kernel that was found. */
function foundIn(headers: IncomingHttpHeaders): Pick<FetchedBytes, 'found'> {
  const { 'btfmill-kernel': name, 'btfmill-found-by': by } = headers
  const isName = typeof name === 'string' && /^[\w.%+~/-]{1,1024}$/.test(name)
  const isKnown = FOUND_BY.find((way) => way === by)
  return isName && isKnown ? { found: { name, by: isKnown } } : {}
}

async function write(path: string, bytes: Buffer): Promise<void> {
  try {
    await writeWhole(path, bytes)
  } catch (cause) {
    throw new FetchError('not_writable', `${path}: ${(cause as Error).message}`, { cause })
  }
}
