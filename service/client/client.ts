/*
 * The client of an agent: gets the BTF of a kernel as a file for a loader. It tries the kernel's own BTF, the cache and
 * the server, in this order. A response is checked against its SHA-256, and the file is written atomically. A cached
 * file is named after its SHA-256, and is used only if it still matches.
 *
 * With a public key the server is not trusted: the SHA-256 comes from the signed snapshot of the catalog.
 *
 * This is the entry point `btfmill/client`. It loads neither the HTTP service nor S3.
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

/** bytes of decompressed BTF */
const MAX_BTF = 256 * 1024 * 1024

export interface FetchOptions extends RetryOptions {
  /** URL of the service; without it only the kernel's own BTF and the cache are used */
  server?: string
  /** default: the kernel of this machine, whose own BTF is preferred */
  kernel?: Kernel
  /** output file; default: a file in the cache */
  output?: string
  /** cache directory; default: `$XDG_CACHE_HOME/btfmill/btf` */
  cache?: string
  /** text of a minisign public key: accept only BTF in a catalog signed with it */
  publicKey?: string
  /** root directory of the machine's files; default: `/` */
  root?: string
}

export interface FetchedBtf {
  path: string
  origin: 'kernel' | 'cache' | 'server'
  /** hex; undefined for the kernel's own BTF */
  sha256?: string
}

/** Gets the BTF of a kernel, and returns its path. Errors: `FetchError`; the signal's reason. */
export async function fetchBtf(options: FetchOptions = {}): Promise<FetchedBtf> {
  const own = options.kernel ? undefined : await findOwnBtf(options.root)
  if (own) return { path: own, origin: 'kernel' }
  const kernel = options.kernel ?? thisKernel(options.root)
  const directory = cacheDirectory(options, kernel)
  const cached = await readCache(directory)
  const { raw, sha256 } = cached ?? (await download(kernel, options))
  const path = options.output ?? join(directory, `${sha256}.btf`)
  if (options.output || !cached) await write(path, raw)
  return { path, origin: cached ? 'cache' : 'server', sha256 }
}

interface FetchedBytes {
  raw: Buffer
  sha256: string
}

async function findOwnBtf(root = '/'): Promise<string | undefined> {
  const path = join(root, KERNEL_BTF)
  return await access(path).then(
    () => path,
    () => undefined,
  )
}

/** Returns a directory for this kernel and public key only, so that no other kernel's file is taken for it. */
function cacheDirectory({ cache, publicKey }: FetchOptions, kernel: Kernel): string {
  const root =
    cache ?? join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'btfmill', 'btf')
  const { distro, version, arch, release, buildId, unameVersion } = kernel
  const names = [distro, version, arch, release, buildId ?? unameVersion ?? 'any'].map(encodeName)
  const key = publicKey === undefined ? [] : [`by-${sha256Of(publicKey).slice(0, 16)}`]
  return join(root, ...names, ...key)
}

async function readCache(directory: string): Promise<FetchedBytes | undefined> {
  for (const name of await readdir(directory).catch(() => [])) {
    const [, sha256] = /^([0-9a-f]{64})\.btf$/.exec(name) ?? []
    const raw = sha256 && (await readFile(join(directory, name)).catch(() => undefined))
    if (raw && sha256Of(raw) === sha256) return { raw, sha256 }
  }
  return undefined
}

async function download(kernel: Kernel, options: FetchOptions): Promise<FetchedBytes> {
  const { server, publicKey } = options
  if (!server) throw new FetchError('unreachable', 'no BTF in the cache, and no server is given')
  const { buildId: build, unameVersion } = kernel
  const choice = { ...(build && { build }), ...(unameVersion && { unameVersion }) }
  const url = btfUrl(server, kernel, choice)
  if (publicKey === undefined) return await requestWithRetry(url, readBtf, options)
  const lookUpSigned = () => signedSha256(server, kernel, choice, publicKey, options)
  const sha256 = await lookUpSigned().catch(async (error: unknown) => {
    const mayWait =
      options.wait && error instanceof FetchError && error.problem === 'unknown_kernel'
    if (!mayWait) throw error
    await requestWithRetry(url, readBtf, options) // the server generates the BTF, and signs the catalog
    return await lookUpSigned()
  })
  return await requestWithRetry(urlOf(server, `v1/btf/sha256/${sha256}`), readBtf, options)
}

const urlOf = (server: string, path: string): URL =>
  new URL(`${server.replace(/\/+$/, '')}/${path}`)

function btfUrl(server: string, kernel: Kernel, { build, unameVersion }: BuildChoice): URL {
  const url = urlOf(server, `v1/btf/${pathOf(kernel)}`)
  if (build) url.searchParams.set('build', build)
  else if (unameVersion) url.searchParams.set('uname-version', unameVersion)
  return url
}

/** Returns the SHA-256 of a kernel's BTF from the signed catalog. Errors: `invalid_signature`, `refused`. */
async function signedSha256(
  server: string,
  kernel: Kernel,
  choice: BuildChoice,
  publicKey: string,
  options: FetchOptions,
): Promise<string> {
  const snapshot = await requestWithRetry(
    urlOf(server, `v1/${SNAPSHOT_KEY}`),
    async (bytes) => {
      const url = urlOf(server, `v1/${signatureKey(SNAPSHOT_KEY)}`)
      const signature = await requestWithRetry(url, (text) => text.toString('utf8'), options)
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

/** Decompresses a response, and checks it against the SHA-256 in its ETag. Errors: `digest_mismatch`. */
async function readBtf(bytes: Buffer, headers: Headers): Promise<FetchedBytes> {
  const [, expected] = /^"([0-9a-f]{64})(?:-\w+)?"$/.exec(String(headers.etag)) ?? []
  const raw =
    headers['content-encoding'] === 'zstd'
      ? await promisify(zstdDecompress)(bytes, { maxOutputLength: MAX_BTF })
      : bytes
  const sha256 = sha256Of(raw)
  if (sha256 === expected) return { raw, sha256 }
  const message = `the response has the SHA-256 ${sha256}, but its ETag has ${expected ?? 'none'}`
  throw new FetchError('digest_mismatch', message)
}

async function write(path: string, bytes: Buffer): Promise<void> {
  try {
    await writeWhole(path, bytes)
  } catch (cause) {
    throw new FetchError('not_writable', `${path}: ${(cause as Error).message}`, { cause })
  }
}
