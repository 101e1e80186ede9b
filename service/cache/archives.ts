/*
 * A kernel's BTF as btfhub-archive has it, `<release>.btf.tar.xz`. The archive tree of the store has it, if somebody
 * keeps one; else it is packed when it is asked for, by xz as a child process, once for all who wait.
 *
 * Datadog's catalogue names the SHA-256 of each archive, and its client takes no other bytes. Packing takes a second
 * or two of a processor, so the digest of what was packed is kept, with the version of xz, on which the bytes depend;
 * digests that are not known yet are found one by one from the first time that somebody reads the catalogue.
 */
import { buffer } from 'node:stream/consumers'
import {
  type ArchiveManifest,
  archiveArch,
  archiveKey,
  type BuildRecord,
  type Catalog,
  findInManifest,
  kernelPrefix,
  packArchive,
  readManifest,
  removeFromManifest,
  type Store,
  StoreError,
  sha256Of,
  xzVersion,
} from '../../storage/index.ts'
import { memoizeFor, Semaphore, SingleFlight } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import { type Available, type BuildChoice, selectBuild } from '../kernel/lookup.ts'
import type { Body, BodyCache } from './body-cache.ts'
import type { Bodies } from './btf-bodies.ts'
import { Journal } from './journal.ts'

/** Children at a time, and how many archives wait for one. */
const CHILDREN = 2
const WAITING = 64
/** Milliseconds between two looks at the manifest, and for which a catalogue is the same. */
const MANIFEST_AGE = 30_000
const CATALOGUE_AGE = 2000
/** Those that Datadog's client runs on, as it calls them. */
const DATADOG_ARCHS: readonly string[] = ['x86_64', 'arm64']

interface ArchivesOptions {
  store: Store
  catalog: Catalog
  memory: BodyCache
  bodies: Bodies
  onError: (error: unknown) => void
}

/** By a chain of names, the last of which has the digest of an archive. */
interface Level {
  [name: string]: Level | string
}

export interface CatalogueAnswer extends Body {
  /** kernels whose archives' digests are not known yet */
  missing: number
}

export class Archives {
  readonly #parts: ArchivesOptions
  readonly #gate = new Semaphore(CHILDREN, WAITING)
  readonly #stop = new AbortController()
  readonly #reading = new SingleFlight<void>()
  /** digests of what was packed, by release and BTF */
  readonly #digests = new Map<string, string>()
  readonly #sure = memoizeFor(CATALOGUE_AGE, () => this.#catalogue({}))
  readonly #newest = memoizeFor(CATALOGUE_AGE, () => this.#catalogue({ newest: true }))
  #journal: Journal | undefined
  #manifest: ArchiveManifest | undefined
  /** when the manifest is to be looked at again */
  #due = 0
  #filling: Promise<void> | undefined
  /** since the start */
  readonly counts = { packed: 0 }

  private constructor(parts: ArchivesOptions) {
    this.#parts = parts
  }

  /** Digests are kept in the file; without one they are forgotten with the process. Errors: the system's. */
  static async open(parts: ArchivesOptions, path?: string): Promise<Archives> {
    const archives = new Archives(parts)
    if (path === undefined) return archives
    const version = await xzVersion().catch(() => 'none')
    archives.#journal = await Journal.open(path, {
      read: (value) => archives.#remember(value as string[], version),
      state: () => archives.#lines(version),
      onError: parts.onError,
    })
    return archives
  }

  /** The archive of a record's BTF, and the digest of its bytes. Errors: `busy`, those of `Bodies.get`. */
  async get(record: Available): Promise<Body> {
    await this.#look()
    return (await this.#stored(record)) ?? (await this.#packed(record))
  }

  /** What Datadog's client is told of all archives that one answers for. Errors: none but defects. */
  async catalogue(choice: BuildChoice): Promise<CatalogueAnswer> {
    await this.#look()
    return choice.newest ? this.#newest() : this.#sure()
  }

  /** Ends what is being packed. */
  async close(): Promise<void> {
    this.#stop.abort(new ServiceError('unavailable', 'the service ends'))
    await this.#filling
    await this.#journal?.close()
  }

  /** Sees to it that the manifest is that of the store, or was lately. */
  async #look(): Promise<void> {
    if (this.#due > Date.now()) return
    await this.#reading.run('manifest', async () => {
      try {
        this.#manifest = await readManifest(this.#parts.store)
      } catch (error) {
        this.#parts.onError(error) // the one before is as good
      }
      this.#due = Date.now() + MANIFEST_AGE
    })
  }

  /** The archive in the store's tree, where that is of this BTF. */
  async #stored({ kernel, btf }: Available): Promise<Body | undefined> {
    const file = this.#manifest && findInManifest(this.#manifest, kernel)
    if (file?.btf !== btf.sha256) return undefined
    try {
      return await this.#parts.memory.body(`archive ${file.sha256}`, async () => {
        const { body, size } = await this.#parts.store.get(archiveKey(kernel))
        if (size !== file.size) body.destroy()
        else {
          const bytes = await buffer(body)
          if (sha256Of(bytes) === file.sha256) return { bytes, sha256: file.sha256 }
        }
        throw new StoreError('digest_mismatch', 'the archive is not the one of the manifest')
      })
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      if (!['not_found', 'digest_mismatch'].includes(error.code)) throw error
      removeFromManifest(this.#manifest!, kernel) // until the next look
      return undefined
    }
  }

  #packed(record: Available): Promise<Body> {
    return this.#parts.memory.body(`archive ${keyOf(record)}`, () => this.#pack(record))
  }

  async #pack(record: Available): Promise<Body> {
    const { kernel, btf } = record
    const signal = this.#stop.signal
    const bytes = await this.#gate.run(async () => {
      signal.throwIfAborted()
      const raw = await this.#parts.bodies.raw(btf.sha256)
      return await packArchive(kernel.release, raw, signal)
    })
    this.counts.packed++
    const sha256 = sha256Of(bytes)
    if (this.#digests.get(keyOf(record)) !== sha256) {
      this.#digests.set(keyOf(record), sha256)
      await this.#journal?.append([await xzVersion(), keyOf(record), sha256])
    }
    return { bytes, sha256 }
  }

  #catalogue(choice: BuildChoice): CatalogueAnswer {
    const { catalogue, missing } = this.#describe(choice)
    const bytes = Buffer.from(JSON.stringify(catalogue))
    if (missing.length > 0) this.#fill(missing)
    return { bytes, sha256: sha256Of(bytes), missing: missing.length }
  }

  #describe(choice: BuildChoice): { catalogue: Level; missing: Available[] } {
    const catalogue = levelOf(DATADOG_ARCHS)
    const missing: Available[] = []
    for (const record of answering(this.#parts.catalog, choice)) {
      const { distro, version, arch, release } = record.kernel
      const archive = archiveArch(arch)
      if (!DATADOG_ARCHS.includes(archive)) continue
      const sha256 = this.#digestOf(record)
      if (sha256 === undefined) missing.push(record)
      else put(catalogue, [archive, distro, version, release], sha256)
    }
    return { catalogue, missing }
  }

  #digestOf(record: Available): string | undefined {
    const file = this.#manifest && findInManifest(this.#manifest, record.kernel)
    return file?.btf === record.btf.sha256 ? file.sha256 : this.#digests.get(keyOf(record))
  }

  /** Packs these one by one, for their digests. */
  #fill(records: readonly Available[]): void {
    this.#filling ??= (async () => {
      for (const record of records) {
        if (this.#stop.signal.aborted) return
        if (this.#digests.has(keyOf(record))) continue
        await this.#pack(record).catch((error) => this.#parts.onError(error))
      }
    })().finally(() => {
      this.#filling = undefined
    })
  }

  #remember(line: string[], version: string): void {
    const [xz, key = '', sha256 = ''] = line
    if (xz === version && /^[0-9a-f]{64}$/.test(sha256)) this.#digests.set(key, sha256)
  }

  *#lines(version: string): Generator<string[]> {
    const { catalog } = this.#parts
    for (const [key, sha256] of this.#digests) {
      const btf = key.slice(0, key.indexOf(' '))
      const gone = catalog.size > 0 && catalog.findBy('sha256', btf).length === 0
      if (!gone) yield [version, key, sha256]
    }
  }
}

/** A level with these below it, and without what every object has: names are others' texts. */
const levelOf = (names: readonly string[] = []): Level =>
  Object.assign(Object.create(null), Object.fromEntries(names.map((name) => [name, levelOf()])))

function put(catalogue: Level, names: readonly string[], sha256: string): void {
  let level = catalogue
  for (const name of names) {
    const next = (level[name] ?? levelOf()) as Level
    level[name] = next
    level = next
  }
  level.sha256 = sha256
}

/** Equal BTF under one release is one archive, whatever the distribution. */
const keyOf = ({ kernel, btf }: Available): string => `${btf.sha256} ${kernel.release}`

/** For each kernel that can be answered the record that answers. */
export function* answering(catalog: Catalog, choice: BuildChoice): Generator<Available> {
  let shelf: BuildRecord[] = []
  for (const { record } of catalog.list()) {
    const [other] = shelf
    if (other && kernelPrefix(other.kernel) !== kernelPrefix(record.kernel)) {
      const one = selectBuild(catalog.find(other.kernel), choice)
      if (one) yield one
      shelf = []
    }
    shelf.push(record)
  }
  const [last] = shelf
  const one = last && selectBuild(catalog.find(last.kernel), choice)
  if (one) yield one
}
