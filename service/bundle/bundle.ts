/*
 * A bundle: an archive with the BTF of many kernels, in the format that one consumer reads. The BTF is whole, or
 * minimised to what given BPF objects need.
 *
 * The archive is a stream. A few kernels are prepared ahead of the writer, so memory does not grow with the number of
 * kernels. If the reader goes away, the work stops. Kernels are sorted for compression. Equal BTF is stored once if the
 * consumer supports hard links. The manifest is the last entry, since it lists what was left out.
 */
import { posix } from 'node:path'
import { PassThrough, pipeline, type Readable } from 'node:stream'
import type { Dialect } from '../../bpf/index.ts'
import {
  type Catalog,
  type KernelFilter,
  mapOrdered,
  type Store,
  sha256Of,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { nameOf } from '../kernel/name.ts'
import { namedWarnings, warningsOf } from '../objects/warnings.ts'
import type { Pool } from '../threads/pool.ts'
import type { FindAlike } from '../threads/shared-answers.ts'
import type { ObjectSummary } from '../threads/worker.ts'
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
  /** BPF objects to minimise for; without any the BTF is whole */
  objects?: readonly ObjectFile[]
  /** the form of all BTF; default: as it is */
  dialect?: Dialect
  /** default: `skip` */
  unsupported?: BundlePolicy
  /** zstd instead of xz; not every profile supports it */
  zstd?: boolean
  /** largest window of the compressor, in bytes; default: that of the consumer */
  window?: number
  /** tells which kernels have the same minimised BTF (default: each is worked on) */
  findAlike?: FindAlike | undefined
  /** minisign secret key: signs the manifest */
  secretKey?: string
}

/** The outcome of a bundle. */
export interface BundleResult {
  manifest: Buffer
  /** minisign signature; undefined without a key */
  signature: Buffer | undefined
  /** number of kernels in the bundle */
  kernels: number
  /** number of kernels that are left out */
  leftOut: number
  /** those of objects, `unsupported`, only up to a few megabytes */
  findings: readonly BundleFinding[]
  /** number of findings that are not kept */
  findingsOmitted: number
}

/** kernels that are prepared in addition to one per thread */
const AHEAD = 2
/** bytes that a kernel's minimised BTF rarely exceeds; an estimate for the compressor's window */
const MINIMIZED_SIZE = 64 * 1024

const EXTENSIONS: Readonly<Record<BundleCompression, string>> = {
  none: '',
  gz: '.gz',
  xz: '.xz',
  zstd: '.zst',
}
const MEDIA_TYPES: Readonly<Record<BundleCompression, string>> = {
  none: 'application/x-tar',
  gz: 'application/gzip',
  xz: 'application/x-xz',
  zstd: 'application/zstd',
}

type BundleForm = Pick<BundleOptions, 'profile' | 'zstd'>

const compressionOf = ({ profile, zstd }: BundleForm): BundleCompression =>
  zstd ? 'zstd' : PROFILES[profile].compression

/** The default name of a bundle's file. */
export function fileNameOf(form: BundleForm): string {
  const { file, zstd } = PROFILES[form.profile]
  return zstd ? `${file}${EXTENSIONS[compressionOf(form)]}` : file
}

export class Bundle {
  readonly #options: BundleOptions
  readonly #profile: Profile
  readonly #selection: Selection
  readonly #objects: readonly ObjectFile[]
  /** of each object */
  readonly #summaries: readonly ObjectSummary[]
  readonly #stop = new AbortController()
  readonly #result = Promise.withResolvers<BundleResult>()

  private constructor(
    options: BundleOptions,
    selection: Selection,
    summaries: readonly ObjectSummary[],
  ) {
    this.#options = options
    this.#profile = PROFILES[options.profile]
    this.#selection = selection
    this.#objects = options.objects ?? []
    this.#summaries = summaries
    this.#result.promise.catch(() => {}) // the reader of the archive gets the error, too
  }

  /**
   * Selects the kernels and checks the objects. Errors: `invalid_request` if the profile does not support the kernels or
   * the compression; `unknown_kernel` if no kernel with BTF matches; `too_complex`, `busy`; `unsupported`, with
   * `details.findings`, for the policy `fail`; those of `openObject`, as `BtfError`.
   */
  static async open(options: BundleOptions, signal?: AbortSignal): Promise<Bundle> {
    const { catalog, filter, profile, objects = [], pool } = options
    if (options.zstd && !PROFILES[profile].zstd)
      throw new ServiceError('invalid_request', `the profile ${profile} does not support zstd`)
    const opened =
      objects.length > 0
        ? await pool.run('open', { objects: objects.map(({ bytes }) => bytes) }, signal)
        : []
    const selection = select(catalog, filter, PROFILES[profile])
    if (selection.kernels.length + selection.notRepresentable.length === 0)
      throw new ServiceError('unknown_kernel', 'no kernel with BTF matches')
    const bundle = new Bundle(options, selection, opened)
    if (options.unsupported === 'fail') await bundle.#failOnFindings(signal)
    return bundle
  }

  /** The default name of the archive's file. */
  get file(): string {
    return fileNameOf(this.#options)
  }

  /** What the objects ask for and minimized BTF cannot give. */
  get warnings(): string[] {
    return namedWarnings(
      this.#objects.map(({ name }, n) => ({ name, warnings: this.#warningsOf(n) })),
    )
  }

  /** The warnings of the nth object. */
  #warningsOf(n: number): string[] {
    const summary = this.#summaries[n]
    return summary ? warningsOf(summary) : []
  }

  /** The archive's media type. */
  get type(): string {
    return MEDIA_TYPES[this.#compression]
  }

  /** Tells whether the manifest belongs inside the archive or beside it. */
  get manifestPlace(): Profile['manifest'] {
    return this.#profile.manifest
  }

  /** The outcome; resolves at the end of the stream of `archive`, or of `dryRun`. */
  get result(): Promise<BundleResult> {
    return this.#result.promise
  }

  /** Returns the archive. Destroying the stream stops the work. Errors: those of the store and of `Pool.run`. */
  archive(): Readable {
    const { size, kernels } = this.#selection
    const minimizedSize = kernels.length * MINIMIZED_SIZE
    const estimate = this.#objects.length > 0 ? Math.min(size, minimizedSize) : size
    const chunks = compress(
      tarOf(this.#entries()),
      this.#compression,
      estimate,
      this.#options.window,
    )
    const output = new PassThrough()
    output.once('close', () =>
      this.#stop.abort(new Error('the reader of the bundle closed the stream')),
    )
    pipeline(chunks, output, (error) => {
      if (error) this.#result.reject(error)
    })
    return output
  }

  /** Prepares every kernel without writing an archive, and returns the outcome. Errors: those of `archive`. */
  async dryRun(signal?: AbortSignal): Promise<BundleResult> {
    signal?.addEventListener('abort', () => this.#stop.abort(signal.reason), { once: true })
    for await (const _ of this.#entries());
    return await this.result
  }

  get #compression(): BundleCompression {
    return compressionOf(this.#options)
  }

  async #failOnFindings(signal: AbortSignal | undefined): Promise<void> {
    const trial = new Bundle(
      { ...this.#options, unsupported: 'skip' },
      this.#selection,
      this.#summaries,
    )
    const { findings, findingsOmitted, leftOut } = await trial.dryRun(signal)
    if (findings.length === 0) return
    const kernels = leftOut === 1 ? '1 kernel' : `${leftOut} kernels`
    const message = `the bundle cannot hold ${kernels}: see the findings`
    throw new ServiceError('unsupported', message, {
      details: { findings, ...(findingsOmitted > 0 && { findingsOmitted }) },
    })
  }

  async *#entries(): AsyncGenerator<TarEntry> {
    const kernels: BundledKernel[] = []
    const kept = new Findings()
    for (const { kernel, message } of this.#selection.notRepresentable)
      kept.add({ kernel, code: 'not_representable', message, included: false })
    const paths = new Paths(this.#profile.hardLinks)
    const [first] = this.#selection.kernels
    // the first bytes reach the reader before any BTF is read
    if (first) yield* paths.parents(first.path)
    // a kernel may have several members, with the same findings for each
    const leftOut = new Set(this.#selection.notRepresentable.map(({ kernel }) => nameOf(kernel)))
    for await (const { member, findings: memberFindings } of this.#preparedMembers()) {
      for (const finding of memberFindings) {
        kept.add(finding)
        if (!member) leftOut.add(nameOf(finding.kernel))
      }
      if (!member) continue
      yield* paths.entries(member)
      kernels.push(toBundledKernel(member))
    }
    const { findings, omitted: findingsOmitted } = kept
    const { dialect } = this.#options
    const manifest = encodeManifest({
      schema: 1,
      btfmill: VERSION,
      profile: this.#options.profile,
      ...(dialect && { dialect }),
      objects: this.#objects.map(({ name, bytes }, n) => {
        const warnings = this.#warningsOf(n)
        const content = { name, sha256: sha256Of(bytes), size: bytes.length }
        return warnings.length > 0 ? { ...content, warnings } : content
      }),
      kernels,
      findings,
      ...(findingsOmitted > 0 && { findingsOmitted }),
    })
    const { secretKey } = this.#options
    const signature = secretKey ? signManifest(manifest, secretKey) : undefined
    if (this.#profile.manifest === 'inside') {
      yield { kind: 'file', path: MANIFEST, content: manifest }
      if (signature) yield { kind: 'file', path: SIGNATURE, content: signature }
    }
    const names = new Set(kernels.map(({ kernel }) => nameOf(kernel)))
    const outcome = { kernels: names.size, leftOut: leftOut.size, findings, findingsOmitted }
    this.#result.resolve({ manifest, signature, ...outcome })
  }

  #preparedMembers(): AsyncGenerator<PreparedMember> {
    const { store, pool, unsupported, dialect, findAlike } = this.#options
    const members = new Members({
      store,
      pool,
      profile: this.#profile,
      objects: this.#objects,
      policy: unsupported === 'include' ? 'include' : 'skip',
      usesRelease: this.#summaries.some(({ usesRelease }) => usesRelease),
      ...{ dialect, findAlike },
      signal: this.#stop.signal,
    })
    const prepare = (kernel: Selected) => {
      this.#stop.signal.throwIfAborted()
      return members.prepare(kernel)
    }
    return mapOrdered(this.#selection.kernels, pool.threads + AHEAD, prepare)
  }
}

/** Characters of all findings about objects in a bundle; beyond them, findings are counted only. */
const MAX_FINDINGS = 4 * 1024 * 1024

/**
 * The findings of a bundle. Those about objects are bounded: a request may have dozens of objects that fail on each of
 * thousands of kernels. The others are one for each kernel at most.
 */
class Findings {
  readonly findings: BundleFinding[] = []
  omitted = 0
  readonly #seen = new Set<string>()
  #left = MAX_FINDINGS

  /** Adds a finding, unless it is one that another member of its kernel has. */
  add(finding: BundleFinding): void {
    const text = JSON.stringify(finding)
    if (this.#seen.has(text)) return
    if (finding.code === 'unsupported') this.#left -= text.length
    if (finding.code === 'unsupported' && this.#left < 0) this.omitted++
    else {
      this.#seen.add(text)
      this.findings.push(finding)
    }
  }
}

/** The paths in an archive. Archives with hard links are unpacked to disk, and get entries for their directories, too. */
class Paths {
  readonly #hardLinks: boolean
  readonly #directories = new Set<string>()
  /** key: SHA-256 of the content; value: the first path with that content */
  readonly #firstPaths = new Map<string, string>()

  constructor(hardLinks: boolean) {
    this.#hardLinks = hardLinks
  }

  *entries({ path, sha256, bytes }: BundleMember): Generator<TarEntry> {
    yield* this.parents(path)
    const target = this.#firstPaths.get(sha256)
    if (this.#hardLinks && target !== undefined) yield { kind: 'link', path, target }
    else if (bytes) yield { kind: 'file', path, content: bytes }
    else throw new ServiceError('internal', `${path} has no bytes and no earlier copy`)
    if (this.#hardLinks && target === undefined) this.#firstPaths.set(sha256, path)
  }

  /** Yields the parent directories of a path that have no entry yet. */
  *parents(path: string): Generator<TarEntry> {
    const directory = posix.dirname(path)
    if (!this.#hardLinks || directory === '.' || this.#directories.has(directory)) return
    yield* this.parents(directory)
    this.#directories.add(directory)
    yield { kind: 'directory', path: directory }
  }
}

function toBundledKernel({ path, sha256, size, record }: BundleMember): BundledKernel {
  const { kernel, package: from, btf, tool } = record
  return {
    path: path.replace(/^\.\//, ''),
    sha256,
    size,
    kernel,
    package: from.version,
    btf: { sha256: btf.sha256, size: btf.size },
    tool: { name: tool.name, version: tool.version },
    ...(record.origin === 'headers' && { partial: true }),
  }
}
