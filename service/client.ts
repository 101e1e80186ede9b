/*
 * The agent's side: BTF for a kernel, as a file to give to a loader. The kernel's own comes first, then the cache, then
 * the server, which is asked with time-outs and growing pauses. What arrives is compared with its SHA-256 and put in
 * place in one step; a file in the cache is named after its SHA-256, and is believed only while that is right.
 */
import { createHash, randomUUID } from 'node:crypto'
import { access, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { zstdDecompress } from 'node:zlib'
import { request } from 'undici'
import { encodeName, type Kernel } from '../storage/index.ts'
import { KERNEL_BTF, thisKernel } from './machine.ts'
import { pathOf } from './name.ts'

const MAX_BODY = 64 * 1024 * 1024
const MAX_BTF = 256 * 1024 * 1024

export type FetchErrorCode =
  | 'unreachable' // no answer, after all tries
  | 'refused' // the server has none: `problem` says why
  | 'digest_mismatch' // what arrived is not what was announced, after all tries
  | 'not_writable' // the file or the cache cannot be written

/** Why there is no BTF. */
export class FetchError extends Error {
  override readonly name = 'FetchError'
  readonly code: FetchErrorCode
  /** the `code` of the server's problem document */
  readonly problem: string | undefined

  constructor(
    code: FetchErrorCode,
    message: string,
    options: ErrorOptions & { problem?: string } = {},
  ) {
    super(message, options)
    this.code = code
    this.problem = options.problem
  }
}

export interface FetchOptions {
  /** `http://host:port`; without it only the kernel's own and the cache are looked at */
  server?: string
  /** the kernel; else this machine's, and then its own BTF is preferred */
  kernel?: Kernel
  /** where to write; else into the cache */
  output?: string
  /** else `$XDG_CACHE_HOME/btfmill/btf` */
  cache?: string
  /** wait while the server says that it is being made */
  wait?: boolean
  /** tries in all */
  attempts?: number
  /** milliseconds to wait for an answer to begin, and between two pieces of it */
  timeout?: number
  /** milliseconds before the second try; doubled for each further one, with jitter */
  pause?: number
  /** directory below which the machine's files are read */
  root?: string
  signal?: AbortSignal
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
  const directory = cacheDirectory(options.cache, kernel)
  const cached = await readCache(directory)
  const answer = cached ?? (await ask(kernel, options))
  const path = options.output ?? join(directory, `${answer.sha256}.btf`)
  if (options.output || !cached) await writeAtomically(path, answer.raw)
  return { path, origin: cached ? 'cache' : 'server', sha256: answer.sha256 }
}

interface Answer {
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

/** One directory for each kernel, so that a file in it can only be that kernel's. */
function cacheDirectory(cache: string | undefined, kernel: Kernel): string {
  const root =
    cache ?? join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'btfmill', 'btf')
  const { distro, version, arch, release, buildId, unameVersion } = kernel
  const build = buildId ?? unameVersion ?? 'any'
  return join(root, ...[distro, version, arch, release, build].map(encodeName))
}

async function readCache(directory: string): Promise<Answer | undefined> {
  for (const name of await readdir(directory).catch(() => [])) {
    const [, sha256] = /^([0-9a-f]{64})\.btf$/.exec(name) ?? []
    const raw = sha256 && (await readFile(join(directory, name)).catch(() => undefined))
    if (raw && digest(raw) === sha256) return { raw, sha256 }
  }
  return undefined
}

/** Tries until there is an answer that is final. */
async function ask(kernel: Kernel, options: FetchOptions): Promise<Answer> {
  const { server, attempts = 5, pause = 500, signal } = options
  if (!server)
    throw new FetchError('unreachable', 'no server is named, and nothing is in the cache')
  let last: FetchError | undefined
  for (let attempt = 0; attempt < attempts; ) {
    const answer = await askOnce(addressOf(server, kernel), options)
    if (answer.kind === 'btf') return answer
    if (answer.kind === 'final') throw answer.error
    last = answer.error
    // a server that is making it is waited for as long as it says so
    if (answer.kind === 'again') attempt++
    const growing = pause * 2 ** attempt * (0.5 + Math.random())
    if (attempt < attempts) await sleep(answer.after ?? growing, undefined, signal && { signal })
  }
  throw last ?? new FetchError('unreachable', `${server} does not answer`)
}

function addressOf(server: string, kernel: Kernel): URL {
  const url = new URL(`${server.replace(/\/+$/, '')}/v1/btf/${pathOf(kernel)}`)
  if (kernel.buildId) url.searchParams.set('build', kernel.buildId)
  else if (kernel.unameVersion) url.searchParams.set('uname-version', kernel.unameVersion)
  return url
}

type Attempt =
  | ({ kind: 'btf' } & Answer)
  | { kind: 'final'; error: FetchError }
  | { kind: 'again' | 'pending'; error: FetchError; after?: number }

async function askOnce(
  url: URL,
  { timeout = 10_000, wait = false, signal }: FetchOptions,
): Promise<Attempt> {
  try {
    const { statusCode, headers, body } = await request(url, {
      headers: { 'accept-encoding': 'zstd' },
      headersTimeout: timeout,
      bodyTimeout: timeout,
      ...(signal && { signal }),
    })
    const bytes = await readBody(body)
    const after = Number(headers['retry-after'])
    const pausing =
      Number.isFinite(after) && after >= 0 ? { after: Math.min(after, 60) * 1000 } : {}
    if (statusCode === 200) return await verify(bytes, headers)
    const error = refusal(url, statusCode, bytes)
    if (statusCode === 202)
      return wait ? { kind: 'pending', error, ...pausing } : { kind: 'final', error }
    if (statusCode === 429 || statusCode >= 500) return { kind: 'again', error, ...pausing }
    return { kind: 'final', error }
  } catch (cause) {
    signal?.throwIfAborted()
    const why = (cause as Error).message
    return {
      kind: 'again',
      error: new FetchError('unreachable', `${url.origin}: ${why}`, { cause }),
    }
  }
}

async function readBody(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of body) {
    size += piece.length
    if (size > MAX_BODY) throw new Error(`more than ${MAX_BODY} bytes`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

/** Compares what arrived with the SHA-256 in its ETag. */
async function verify(
  bytes: Buffer,
  headers: Record<string, string | string[] | undefined>,
): Promise<Attempt> {
  const [, announced] = /^"([0-9a-f]{64})(?:-\w+)?"$/.exec(String(headers.etag)) ?? []
  const raw =
    headers['content-encoding'] === 'zstd'
      ? await promisify(zstdDecompress)(bytes, { maxOutputLength: MAX_BTF })
      : bytes
  const sha256 = digest(raw)
  if (sha256 === announced) return { kind: 'btf', raw, sha256 }
  const message = `what arrived has SHA-256 ${sha256}, announced was ${announced ?? 'none'}`
  return { kind: 'again', error: new FetchError('digest_mismatch', message) }
}

function refusal(url: URL, status: number, body: Buffer): FetchError {
  let problem: { code?: unknown; detail?: unknown } = {}
  try {
    problem = JSON.parse(body.toString('utf8'))
  } catch {} // another server's page
  const detail =
    typeof problem.detail === 'string' ? problem.detail : `${url.origin} answers ${status}`
  const code = typeof problem.code === 'string' ? { problem: problem.code } : {}
  return new FetchError('refused', detail, code)
}

async function writeAtomically(path: string, bytes: Buffer): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    await mkdir(dirname(path), { recursive: true })
    await writeFile(temporary, bytes, { flush: true })
    await rename(temporary, path)
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {}) // what went wrong first is what is told
    throw new FetchError('not_writable', `${path}: ${(cause as Error).message}`, { cause })
  }
}

const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
