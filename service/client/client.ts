/*
 * The agent's side: BTF for a kernel, as a file to give to a loader. The kernel's own comes first, then the cache, then
 * the server. What arrives is compared with its SHA-256 and put in place in one step; a file in the cache is named
 * after its SHA-256, and is believed only while that is right.
 *
 * It is the door `btfmill/client`, too, for agents in Node: loading it loads neither the HTTP service nor S3.
 *
 * With a public key the server is not believed either: the signed snapshot of the catalog says which SHA-256 the
 * kernel's BTF has.
 */
import { access, readdir, readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { zstdDecompress } from 'node:zlib'
import {
  Catalog,
  encodeName,
  type Kernel,
  openStore,
  SNAPSHOT_KEY,
  StoreError,
  sha256Of,
  signatureKey,
  verifyContent,
} from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { ServiceError } from '../error.ts'
import { type BuildChoice, lookUp } from '../kernel/lookup.ts'
import { pathOf } from '../kernel/name.ts'
import { KERNEL_BTF, thisKernel } from './host.ts'
import { FetchError, type Headers, type RetryOptions, requestWithRetry } from './request.ts'

export type { Kernel } from '../../storage/index.ts'
export { thisKernel } from './host.ts'
export { FetchError, type FetchErrorCode } from './request.ts'

const MAX_BTF = 256 * 1024 * 1024

export interface FetchOptions extends RetryOptions {
  /** `http://host:port`; without it only the kernel's own and the cache are looked at */
  server?: string
  /** the kernel; else this machine's, and then its own BTF is preferred */
  kernel?: Kernel
  /** where to write; else into the cache */
  output?: string
  /** else `$XDG_CACHE_HOME/btfmill/btf` */
  cache?: string
  /** the text of a minisign public key: take only what it vouches for */
  publicKey?: string
  /** directory below which the machine's files are read */
  root?: string
}

export interface FetchedBtf {
  path: string
  origin: 'kernel' | 'cache' | 'server'
  /** hex; absent for the kernel's own */
  sha256?: string
}

/** Gets BTF for a kernel and gives its path. Errors: `FetchError`. */
export async function fetchBtf(options: FetchOptions = {}): Promise<FetchedBtf> {
  const own = options.kernel ? undefined : await kernelsOwn(options.root)
  if (own) return { path: own, origin: 'kernel' }
  const kernel = options.kernel ?? thisKernel(options.root)
  const directory = cacheDirectory(options, kernel)
  const cached = await readCache(directory)
  const answer = cached ?? (await askServer(kernel, options))
  const path = options.output ?? join(directory, `${answer.sha256}.btf`)
  if (options.output || !cached) await write(path, answer.raw)
  return { path, origin: cached ? 'cache' : 'server', sha256: answer.sha256 }
}

interface FetchedBytes {
  raw: Buffer
  sha256: string
}

async function kernelsOwn(root = '/'): Promise<string | undefined> {
  const path = join(root, KERNEL_BTF)
  return await access(path).then(
    () => path,
    () => undefined,
  )
}

/** One directory for each kernel, so that a file in it can only be that kernel's, and for each key that vouched. */
function cacheDirectory({ cache, publicKey }: FetchOptions, kernel: Kernel): string {
  const root =
    cache ?? join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'btfmill', 'btf')
  const { distro, version, arch, release, buildId, unameVersion } = kernel
  const names = [distro, version, arch, release, buildId ?? unameVersion ?? 'any'].map(encodeName)
  const vouched = publicKey === undefined ? [] : [`by-${sha256Of(publicKey).slice(0, 16)}`]
  return join(root, ...names, ...vouched)
}

async function readCache(directory: string): Promise<FetchedBytes | undefined> {
  for (const name of await readdir(directory).catch(() => [])) {
    const [, sha256] = /^([0-9a-f]{64})\.btf$/.exec(name) ?? []
    const raw = sha256 && (await readFile(join(directory, name)).catch(() => undefined))
    if (raw && sha256Of(raw) === sha256) return { raw, sha256 }
  }
  return undefined
}

async function askServer(kernel: Kernel, options: FetchOptions): Promise<FetchedBytes> {
  const { server, publicKey } = options
  if (!server)
    throw new FetchError('unreachable', 'no server is named, and nothing is in the cache')
  const { buildId: build, unameVersion } = kernel
  const choice = { ...(build && { build }), ...(unameVersion && { unameVersion }) }
  if (publicKey === undefined)
    return await requestWithRetry(addressOf(server, kernel, choice), readAnswer, options)
  const vouched = () => vouchedFor(server, kernel, choice, publicKey, options)
  const sha256 = await vouched().catch(async (error: unknown) => {
    const made = options.wait && error instanceof FetchError && error.problem === 'unknown_kernel'
    if (!made) throw error
    await requestWithRetry(addressOf(server, kernel, choice), readAnswer, options) // has it made, and signed
    return await vouched()
  })
  return await requestWithRetry(at(server, `v1/btf/sha256/${sha256}`), readAnswer, options)
}

const at = (server: string, path: string): URL => new URL(`${server.replace(/\/+$/, '')}/${path}`)

function addressOf(server: string, kernel: Kernel, { build, unameVersion }: BuildChoice): URL {
  const url = at(server, `v1/btf/${pathOf(kernel)}`)
  if (build) url.searchParams.set('build', build)
  else if (unameVersion) url.searchParams.set('uname-version', unameVersion)
  return url
}

/** The SHA-256 that the signed catalog has for a kernel's BTF. Errors: `invalid_signature`, `refused`. */
async function vouchedFor(
  server: string,
  kernel: Kernel,
  choice: BuildChoice,
  publicKey: string,
  options: FetchOptions,
): Promise<string> {
  const snapshot = await requestWithRetry(
    at(server, `v1/${SNAPSHOT_KEY}`),
    async (bytes) => {
      const address = at(server, `v1/${signatureKey(SNAPSHOT_KEY)}`)
      const signature = await requestWithRetry(address, (text) => text.toString('utf8'), options)
      return verified(bytes, signature, publicKey)
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

function verified(content: Buffer, signature: string, publicKey: string): Buffer {
  try {
    verifyContent(content, signature, publicKey)
    return content
  } catch (cause) {
    if (!(cause instanceof StoreError) || cause.code !== 'invalid_signature') throw cause
    throw new FetchError('invalid_signature', cause.message, { cause })
  }
}

/** Compares what arrived with the SHA-256 in its ETag. Errors: `digest_mismatch`. */
async function readAnswer(bytes: Buffer, headers: Headers): Promise<FetchedBytes> {
  const [, announced] = /^"([0-9a-f]{64})(?:-\w+)?"$/.exec(String(headers.etag)) ?? []
  const raw =
    headers['content-encoding'] === 'zstd'
      ? await promisify(zstdDecompress)(bytes, { maxOutputLength: MAX_BTF })
      : bytes
  const sha256 = sha256Of(raw)
  if (sha256 === announced) return { raw, sha256 }
  const message = `what arrived has SHA-256 ${sha256}, announced was ${announced ?? 'none'}`
  throw new FetchError('digest_mismatch', message)
}

async function write(path: string, bytes: Buffer): Promise<void> {
  try {
    await writeWhole(path, bytes)
  } catch (cause) {
    throw new FetchError('not_writable', `${path}: ${(cause as Error).message}`, { cause })
  }
}
