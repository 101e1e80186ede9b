/*
 * A bundle: the BTF of many kernels in one archive, whole or with what some objects need, as one consumer reads it. It is
 * made as a stream: kernels are made ready a few ahead of what is written, in an order that compresses well, so memory
 * does not depend on how many there are; when nobody reads any more, what is under way is ended. Equal BTF is there once
 * where the consumer makes hard links. The manifest comes last, when all is known.
 */
import { posix } from 'node:path'
import { PassThrough, pipeline, type Readable } from 'node:stream'
import { type Catalog, type KernelFilter, type Store, sha256Of } from '../../storage/index.ts'
import { mapOrdered } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Pool } from '../threads/pool.ts'
import { VERSION } from '../version.ts'
import { compress } from './compress.ts'
import {
  type BundledKernel,
  type BundleFinding,
  encodeManifest,
  MANIFEST,
  SIGNATURE,
  signManifest,
} from './manifest.ts'
import { type BundleMember, Members, type ObjectFile, type PreparedMember } from './member.ts'
import {
  type BundleCompression,
  type BundlePolicy,
  PROFILES,
  type Profile,
  type ProfileName,
} from './profile.ts'
import { type Selected, type Selection, select } from './selection.ts'
import { type TarEntry, tarOf } from './tar.ts'

export interface BundleOptions {
  store: Store
  catalog: Catalog
  pool: Pool
  profile: ProfileName
  filter: KernelFilter
  /** without any, BTF is whole */
  objects?: readonly ObjectFile[]
  /** else `skip` */
  unsupported?: BundlePolicy
  /** zstd in place of xz, where the profile allows it */
  zstd?: boolean
  /** signs the manifest */
  secretKey?: string
}

/** What became of a bundle. */
export interface BundleResult {
  manifest: Buffer
  /** as minisign has it, where there is a key */
  signature: Buffer | undefined
  /** so many are in it */
  kernels: number
  findings: readonly BundleFinding[]
}

/** How many kernels are made ready, beside those that the threads work on. */
const AHEAD = 2
/** Whole BTF has some megabytes; what objects need of it mostly less than this, which chooses a window. */
const MINIMIZED = 64 * 1024

const ENDINGS: Readonly<Record<BundleCompression, string>> = {
  none: '',
  gz: '.gz',
  xz: '.xz',
  zstd: '.zst',
}
const TYPES: Readonly<Record<BundleCompression, string>> = {
  none: 'application/x-tar',
  gz: 'application/gzip',
  xz: 'application/x-xz',
  zstd: 'application/zstd',
}

export class Bundle {
  readonly #options: BundleOptions
  readonly #profile: Profile
  readonly #selection: Selection
  readonly #objects: readonly ObjectFile[]
  readonly #stop = new AbortController()
  readonly #result = Promise.withResolvers<BundleResult>()

  private constructor(options: BundleOptions, selection: Selection) {
    this.#options = options
    this.#profile = PROFILES[options.profile]
    this.#selection = selection
    this.#objects = options.objects ?? []
    this.#result.promise.catch(() => {}) // who reads the archive hears of it, too
  }

  /**
   * Errors: `invalid_request` where the profile does not go with the kernels or the compression; `unknown_kernel` where none
   * with BTF matches; those of `openObject`, as `BtfError`; `too_complex`, `busy`; `unsupported`, with what was found,
   * where that was to fail.
   */
  static async open(options: BundleOptions, signal?: AbortSignal): Promise<Bundle> {
    const { catalog, filter, profile, objects = [], pool } = options
    if (options.zstd && !PROFILES[profile].zstd)
      throw new ServiceError('invalid_request', `nobody reads a ${profile} bundle with zstd`)
    if (objects.length > 0)
      await pool.run('open', { objects: objects.map(({ bytes }) => bytes) }, signal)
    const selection = select(catalog, filter, PROFILES[profile])
    if (selection.kernels.length + selection.notRepresentable.length === 0)
      throw new ServiceError('unknown_kernel', 'no kernel with BTF matches')
    const bundle = new Bundle(options, selection)
    if (options.unsupported === 'fail') await bundle.#failOnFindings(signal)
    return bundle
  }

  /** What the archive is called. */
  get file(): string {
    const { file, zstd } = this.#profile
    return zstd ? `${file}${ENDINGS[this.#compression]}` : file
  }

  /** Its media type. */
  get type(): string {
    return TYPES[this.#compression]
  }

  /** Where the manifest goes. */
  get manifestPlace(): Profile['manifest'] {
    return this.#profile.manifest
  }

  /** What became of it; once what `archive` or `survey` gives has come to its end. */
  get result(): Promise<BundleResult> {
    return this.#result.promise
  }

  /** The archive. Destroying it ends the work. It fails as the store and the threads do. */
  archive(): Readable {
    const { size, kernels } = this.#selection
    const about = this.#objects.length > 0 ? Math.min(size, kernels.length * MINIMIZED) : size
    const pieces = compress(tarOf(this.#entries()), this.#compression, about)
    const output = new PassThrough()
    output.once('close', () => this.#stop.abort(new Error('nobody reads the bundle')))
    pipeline(pieces, output, (error) => {
      if (error) this.#result.reject(error)
    })
    return output
  }

  /** Does all but make the archive. */
  async survey(signal?: AbortSignal): Promise<BundleResult> {
    signal?.addEventListener('abort', () => this.#stop.abort(signal.reason), { once: true })
    for await (const _ of this.#entries());
    return await this.result
  }

  get #compression(): BundleCompression {
    return this.#options.zstd ? 'zstd' : this.#profile.compression
  }

  async #failOnFindings(signal: AbortSignal | undefined): Promise<void> {
    const survey = new Bundle({ ...this.#options, unsupported: 'skip' }, this.#selection)
    const { findings } = await survey.survey(signal)
    if (findings.length === 0) return
    const some = findings.length === 1 ? 'a kernel' : `${findings.length} kernels`
    throw new ServiceError('unsupported', `there is ${some} for which the bundle cannot be made`, {
      details: { findings },
    })
  }

  async *#entries(): AsyncGenerator<TarEntry> {
    const kernels: BundledKernel[] = []
    const findings: BundleFinding[] = this.#selection.notRepresentable.map(
      ({ kernel, message }) => {
        return { kernel, code: 'not_representable', message, included: false }
      },
    )
    const paths = new Paths(this.#profile.links)
    const [first] = this.#selection.kernels
    if (first) yield* paths.above(first.path) // for who waits, before any BTF is read
    for await (const { member, findings: found } of this.#prepared()) {
      findings.push(...found)
      if (!member) continue
      yield* paths.entries(member)
      kernels.push(described(member))
    }
    const manifest = encodeManifest({
      schema: 1,
      btfmill: VERSION,
      profile: this.#options.profile,
      objects: this.#objects.map(({ name, bytes }) => ({
        ...{ name, sha256: sha256Of(bytes), size: bytes.length },
      })),
      kernels,
      findings,
    })
    const { secretKey } = this.#options
    const signature = secretKey ? signManifest(manifest, secretKey) : undefined
    if (this.#profile.manifest === 'inside') {
      yield { kind: 'file', path: MANIFEST, content: manifest }
      if (signature) yield { kind: 'file', path: SIGNATURE, content: signature }
    }
    this.#result.resolve({ manifest, signature, kernels: kernels.length, findings })
  }

  #prepared(): AsyncGenerator<PreparedMember> {
    const { store, pool, unsupported } = this.#options
    const members = new Members({
      ...{ store, pool, profile: this.#profile, objects: this.#objects },
      policy: unsupported === 'include' ? 'include' : 'skip',
      signal: this.#stop.signal,
    })
    const prepare = (kernel: Selected) => {
      this.#stop.signal.throwIfAborted()
      return members.prepare(kernel)
    }
    return mapOrdered(this.#selection.kernels, pool.threads + AHEAD, prepare)
  }
}

/** Paths that are taken in an archive, and what they hold. */
class Paths {
  readonly #links: boolean
  readonly #directories = new Set<string>()
  /** by the digest of what it holds, the first path of all that hold it */
  readonly #firsts = new Map<string, string>()

  /** Who makes hard links unpacks the archive, and is given its directories. */
  constructor(links: boolean) {
    this.#links = links
  }

  *entries({ path, sha256, bytes }: BundleMember): Generator<TarEntry> {
    yield* this.above(path)
    const target = this.#firsts.get(sha256)
    if (this.#links && target !== undefined) yield { kind: 'link', path, target }
    else if (bytes) yield { kind: 'file', path, content: bytes }
    else throw new ServiceError('internal', `${path} has no bytes, and no member before has them`)
    if (this.#links && target === undefined) this.#firsts.set(sha256, path)
  }

  /** The directories above a path that are not there yet. */
  *above(path: string): Generator<TarEntry> {
    const directory = posix.dirname(path)
    if (!this.#links || directory === '.' || this.#directories.has(directory)) return
    yield* this.above(directory)
    this.#directories.add(directory)
    yield { kind: 'directory', path: directory }
  }
}

function described({ path, sha256, size, record }: BundleMember): BundledKernel {
  const { kernel, package: from, btf, tool } = record
  return {
    path: path.replace(/^\.\//, ''),
    sha256,
    size,
    kernel,
    package: from.version,
    btf: { sha256: btf.sha256, size: btf.size },
    tool: { name: tool.name, version: tool.version },
  }
}
