/*
 * The BTF of kernels in the format of btfhub-archive, `<release>.btf.tar.xz`. An archive comes from the archive tree of
 * the store, if the tree has it. Otherwise a child process, xz, packs it on request; concurrent requests share one
 * child.
 *
 * Datadog's catalogue lists the SHA-256 of each archive, and Datadog's client rejects other bytes. Packing takes one or
 * two seconds of CPU time, so a journal keeps the digests of packed archives. It keeps the version of xz too, because
 * the bytes depend on it. The first request for the catalogue starts to pack the archives with unknown digests, one by
 * one.
 */
import { buffer } from 'node:stream/consumers'
import type { Dialect } from '../../bpf/index.ts'
import {
  type ArchiveManifest,
  archiveArch,
  archiveKey,
  type Catalog,
  findInManifest,
  isDamagedObject,
  kernelPrefix,
  packArchive,
  readManifest,
  removeFromManifest,
  type Store,
  StoreError,
  sentArchive,
  sha256Of,
  xzVersion,
} from '../../storage/index.ts'
import { memoizeFor, Semaphore, SingleFlight } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import { type Available, type BuildChoice, selectBuild } from '../kernel/lookup.ts'
import { archivesAtOnce } from '../memory.ts'
import type { Body, BodyCache } from './body-cache.ts'
import type { Bodies } from './btf-bodies.ts'
import { Journal } from './journal.ts'

/** The number of archives that may wait for a child process. */
const MAX_WAITING = 64
/** Milliseconds before the manifest is read again, and before a catalogue is built again. */
const MANIFEST_AGE = 30_000
const CATALOGUE_AGE = 2000
/** The architectures of Datadog's client, by its own names. */
const DATADOG_ARCHS: readonly string[] = ['x86_64', 'arm64']

interface ArchivesOptions {
  store: Store
  catalog: Catalog
  cache: BodyCache
  bodies: Bodies
  onError: (error: unknown) => void
}

/** A level of the catalogue: levels by name; the innermost ones have the digest of an archive as `sha256`. */
interface Level {
  [name: string]: Level | string
}

export interface CatalogueAnswer extends Body {
  /** number of kernels whose archives have no known digest yet */
  missing: number
}

export class Archives {
  readonly #options: ArchivesOptions
  readonly #gate = new Semaphore(archivesAtOnce(), MAX_WAITING)
  readonly #stop = new AbortController()
  readonly #reading = new SingleFlight<void>()
  /** digests of packed archives, by `keyOf` */
  readonly #digests = new Map<string, string>()
  /** digests of archives that were taken over and are in the tree, whether the manifest lists them or not */
  readonly #seen = new Set<string>()
  readonly #unambiguous = memoizeFor(CATALOGUE_AGE, () => this.#buildCatalogue({}))
  readonly #newest = memoizeFor(CATALOGUE_AGE, () => this.#buildCatalogue({ newest: true }))
  #journal: Journal | undefined
  #manifest: ArchiveManifest | undefined
  /** time at which the manifest is read again, in milliseconds since the epoch */
  #due = 0
  #packing: Promise<void> | undefined
  /** since the start */
  readonly counts = { packed: 0 }

  private constructor(options: ArchivesOptions) {
    this.#options = options
  }

  /** `path` is the journal of digests; without it, the process keeps them in memory only. Errors: the system's. */
  static async open(options: ArchivesOptions, path?: string): Promise<Archives> {
    const archives = new Archives(options)
    if (path === undefined) return archives
    const version = await xzVersion().catch(() => 'none')
    archives.#journal = await Journal.open(path, {
      read: (value) => archives.#readLine(value as string[], version),
      state: () => archives.#lines(version),
      onError: options.onError,
    })
    return archives
  }

  /**
   * Returns the archive of a record's BTF, and the digest of its bytes; in a dialect it is always packed here. Errors: `busy`; those of `Bodies.get` and of
   * `packArchive`.
   */
  async get(record: Available, dialect?: Dialect): Promise<Body> {
    if (dialect) return await this.#converted(record, dialect)
    await this.#refreshManifest()
    return (await this.#stored(record)) ?? (await this.#packed(record))
  }

  /** Returns Datadog's catalogue of all archives with a known digest. Errors: none. */
  async catalogue(choice: BuildChoice): Promise<CatalogueAnswer> {
    await this.#refreshManifest()
    return choice.newest ? this.#newest() : this.#unambiguous()
  }

  /** Aborts the packing. */
  async close(): Promise<void> {
    this.#stop.abort(new ServiceError('unavailable', 'the service is shutting down'))
    await this.#packing
    await this.#journal?.close()
  }

  /** Reads the store's manifest, unless it was read less than `MANIFEST_AGE` ago. */
  async #refreshManifest(): Promise<void> {
    if (this.#due > Date.now()) return
    await this.#reading.run('manifest', async () => {
      try {
        this.#manifest = await readManifest(this.#options.store)
      } catch (error) {
        this.#options.onError(error) // the last manifest stays in use
      }
      this.#due = Date.now() + MANIFEST_AGE
    })
  }

  /** Returns the archive of the store's tree; undefined if the tree has none of this BTF. */
  async #stored(record: Available): Promise<Body | undefined> {
    const { kernel } = record
    // an archive that was just taken over is not in the manifest yet
    const file = this.#listed(record) ?? sentArchive(record)
    if (!file) return undefined
    try {
      return await this.#options.cache.body(`archive ${file.sha256}`, async () => {
        const { body, size } = await this.#options.store.get(archiveKey(kernel))
        if (size !== file.size) body.destroy()
        else {
          const bytes = await buffer(body)
          if (sha256Of(bytes) === file.sha256) return { bytes, sha256: file.sha256 }
        }
        throw new StoreError(
          'digest_mismatch',
          `${archiveKey(kernel)} differs from its size or SHA-256 in the manifest or record`,
        )
      })
    } catch (error) {
      if (!isDamagedObject(error)) throw error
      this.#seen.delete(file.sha256)
      if (this.#manifest) removeFromManifest(this.#manifest, kernel) // until it is read again
      return undefined
    }
  }

  /** The archive of a record's BTF in the manifest. */
  #listed({ kernel, btf }: Available) {
    const file = this.#manifest && findInManifest(this.#manifest, kernel)
    return file?.btf === btf.sha256 ? file : undefined
  }

  #packed(record: Available): Promise<Body> {
    return this.#options.cache.body(`archive ${keyOf(record)}`, () => this.#pack(record))
  }

  /** The archive in a dialect. The catalogue does not list it, so its digest is not kept. */
  #converted(record: Available, dialect: Dialect): Promise<Body> {
    return this.#options.cache.body(`archive ${dialect} ${keyOf(record)}`, async () => {
      const bytes = await this.#archiveOf(record, { dialect })
      return { bytes, sha256: sha256Of(bytes) }
    })
  }

  async #archiveOf(
    { kernel, btf: { sha256 } }: Available,
    form: { dialect?: Dialect } = {},
  ): Promise<Buffer> {
    const signal = this.#stop.signal
    const bytes = await this.#gate.run(async () => {
      signal.throwIfAborted()
      const raw = await this.#options.bodies.get({ sha256, ...form }, 'identity')
      return await packArchive(kernel.release, raw.bytes, signal)
    })
    this.counts.packed++
    return bytes
  }

  async #pack(record: Available): Promise<Body> {
    const bytes = await this.#archiveOf(record)
    const sha256 = sha256Of(bytes)
    if (this.#digests.get(keyOf(record)) !== sha256) {
      this.#digests.set(keyOf(record), sha256)
      await this.#journal?.append([await xzVersion(), keyOf(record), sha256])
    }
    return { bytes, sha256 }
  }

  #buildCatalogue(choice: BuildChoice): CatalogueAnswer {
    const { catalogue, missing } = this.#describe(choice)
    const bytes = Buffer.from(JSON.stringify(catalogue))
    if (missing.length > 0) this.#packInBackground(missing)
    return { bytes, sha256: sha256Of(bytes), missing: missing.length }
  }

  #describe(choice: BuildChoice): { catalogue: Level; missing: Available[] } {
    const catalogue = levelOf(DATADOG_ARCHS)
    const missing: Available[] = []
    for (const record of servedRecords(this.#options.catalog, choice)) {
      const { distro, version, arch, release } = record.kernel
      const archive = archiveArch(arch)
      if (!DATADOG_ARCHS.includes(archive)) continue
      const sha256 = this.#digestOf(record)
      if (sha256 === undefined) missing.push(record)
      else addDigest(catalogue, [archive, distro, version, release], sha256)
    }
    return { catalogue, missing }
  }

  #digestOf(record: Available): string | undefined {
    const sent = sentArchive(record)?.sha256
    if (sent !== undefined && this.#seen.has(sent)) return sent
    return this.#listed(record)?.sha256 ?? this.#digests.get(keyOf(record))
  }

  /** Packs archives one by one, to learn their digests. */
  #packInBackground(records: readonly Available[]): void {
    this.#packing ??= (async () => {
      for (const record of records) {
        if (this.#stop.signal.aborted) return
        if (this.#digests.has(keyOf(record))) continue
        await this.#learnDigest(record).catch((error) => this.#options.onError(error))
      }
    })().finally(() => {
      this.#packing = undefined
    })
  }

  async #learnDigest(record: Available): Promise<void> {
    const stored = await this.#stored(record)
    if (stored) this.#seen.add(stored.sha256)
    else await this.#pack(record)
  }

  #readLine(line: string[], version: string): void {
    const [xz, key = '', sha256 = ''] = line
    if (xz === version && /^[0-9a-f]{64}$/.test(sha256)) this.#digests.set(key, sha256)
  }

  *#lines(version: string): Generator<string[]> {
    const { catalog } = this.#options
    for (const [key, sha256] of this.#digests) {
      const btf = key.slice(0, key.indexOf(' '))
      // an empty catalog is not loaded yet
      const inUse = catalog.size === 0 || catalog.findBy('sha256', btf).length > 0
      if (inUse) yield [version, key, sha256]
    }
  }
}

/** A level with empty levels below it. It has no prototype: names come from outside, and may be `__proto__`. */
const levelOf = (names: readonly string[] = []): Level =>
  Object.assign(Object.create(null), Object.fromEntries(names.map((name) => [name, levelOf()])))

function addDigest(catalogue: Level, names: readonly string[], sha256: string): void {
  let level = catalogue
  for (const name of names) {
    const next = (level[name] ?? levelOf()) as Level
    level[name] = next
    level = next
  }
  level.sha256 = sha256
}

/** Kernels with equal BTF and one release share an archive, whatever their distribution. */
const keyOf = ({ kernel, btf }: Available): string => `${btf.sha256} ${kernel.release}`

/** Yields the record that is served for each kernel, if there is one: see `selectBuild`. */
export function* servedRecords(catalog: Catalog, choice: BuildChoice): Generator<Available> {
  let previous: string | undefined
  // the records of one kernel are neighbours in the list
  for (const { record } of catalog.list()) {
    const prefix = kernelPrefix(record.kernel)
    if (prefix === previous) continue
    previous = prefix
    const served = selectBuild(catalog.find(record.kernel), choice)
    if (served) yield served
  }
}
