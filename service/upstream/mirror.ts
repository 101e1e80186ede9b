/*
 * Takes over the kernels of another btfmill. What its catalog has and the store lacks is read: out of packs where they are,
 * else as single BTF. Records keep names, build-ids, packages, authenticity and tools; `takenFrom` tells the service, and the
 * key that vouches for it. What was made or imported here is never replaced.
 *
 * BTF comes before its record, so a record names BTF that is there, whenever a run is killed. The next run reads the rest: a
 * record that is there is not read again.
 */
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import {
  type Btf,
  BtfError,
  DeltaChainCache,
  describeKernelBtf,
  parseBtf,
} from '../../bpf/index.ts'
import {
  type BuildRecord,
  blobKey,
  buildOf,
  Catalog,
  getBlob,
  type KernelFilter,
  mapOrdered,
  type PackMember,
  packKey,
  packsOf,
  putBlob,
  putRecord,
  recordKey,
  type Store,
  StoreError,
  sha256Of,
  type TakenFrom,
} from '../../storage/index.ts'
import { readChecked } from '../client/body.ts'
import { FetchError, type RequestOptions, requestWithRetry } from '../client/request.ts'
import { nameOf } from '../kernel/name.ts'
import { takenRecord } from './btfmill.ts'
import { conditionFor } from './keep.ts'
import { readRemoteCatalog } from './remote-catalog.ts'
import { type OpenedPack, RemotePacks } from './remote-packs.ts'

/** Blobs that are read at a time. */
const CONCURRENT = 4
/** The share of a pack's kernels that must be wanted, or be in a pack here, for it to be copied as a whole. */
const MIN_SHARE = 0.8
/** A service that is being started again is waited for, a minute on average. */
const PATIENCE: RequestOptions = { attempts: 8, timeout: 60_000 }
/** Kernels after which the catalog is published, so that others see a part of a long run. */
const PUBLISH_EVERY = 200

export interface MirrorOptions {
  store: Store
  /** `http://HOST:PORT` of the service */
  server: string
  /** directory for what is remembered between runs */
  cache: string
  token?: string | undefined
  /** the text of a minisign public key that must have signed the catalog */
  publicKey?: string | undefined
  /** with a public key: seconds since the catalog was signed, at most */
  maxAge?: number | undefined
  /** signs the catalog of the store */
  secretKey?: string | undefined
  /** attempts and their delays */
  request?: RequestOptions
}

/** What became of a kernel. */
export type Mirrored = {
  /** DISTRO/VERSION/ARCH/RELEASE */
  name: string
} & (
  | { state: 'taken' | 'updated' | 'present' | 'made here' | 'due' }
  | { state: 'refused'; code: string; message: string }
)

/** A build that is to be taken over. */
interface Due {
  name: string
  record: BuildRecord & { btf: NonNullable<BuildRecord['btf']> }
}

export class ServiceMirror {
  /** the catalog of the service */
  readonly catalog: Catalog
  /** the address without credentials */
  readonly url: string
  readonly #options: MirrorOptions
  readonly #request: RequestOptions
  readonly #base: string
  readonly #directory: string
  /** bytes of bodies that were read */
  bytes = 0

  private constructor(options: MirrorOptions, where: RemotePlace, catalog: Catalog, bytes: number) {
    this.#options = options
    this.#request = where.request
    this.#base = where.base
    this.#directory = where.directory
    this.url = where.url
    this.catalog = catalog
    this.bytes = bytes
  }

  /** Reads the catalog of the service. Errors: those of `readRemoteCatalog`; `invalid_options` for an invalid address. */
  static async open(options: MirrorOptions): Promise<ServiceMirror> {
    const where = placeOf(options)
    const { base, directory: cache, request } = where
    const { publicKey, maxAge } = options
    let bytes = 0
    const onRead = (read: number) => {
      bytes += read
    }
    const remote = { base, cache, publicKey, maxAge, request, onRead }
    const catalog = await readRemoteCatalog(remote)
    return new ServiceMirror(options, where, catalog, bytes)
  }

  /**
   * Takes over the kernels that match a filter, and yields what became of each; with `dryRun`, only what is due. Errors:
   * `FetchError` if the service does not answer any more; those of the store.
   */
  async *run(filter: KernelFilter = {}, { dryRun = false } = {}): AsyncGenerator<Mirrored> {
    const { store, secretKey } = this.#options
    const known = await Catalog.open(store)
    const records = new Map([...known.list()].map(({ key, record }) => [key, record]))
    const due: Due[] = []
    for (const { record: offered } of this.catalog.list(filter)) {
      if (!offered.btf) continue
      const record = this.#taken(offered)
      const name = nameOf(record.kernel)
      const state = stateOf(record, records.get(recordKey(record.kernel, buildOf(record))))
      if (state !== 'due') yield { name, state }
      else if (dryRun) yield { name, state }
      else due.push({ name, record })
    }
    if (dryRun) return
    try {
      let count = 0
      for await (const mirrored of this.#take(due)) {
        yield mirrored
        if (++count % PUBLISH_EVERY === 0) await Catalog.publish(store, secretKey)
      }
    } finally {
      await Catalog.publish(store, secretKey)
    }
  }

  /** A record of the service as it is kept here. Names of functions are not published. */
  #taken({ symbols: _, ...offered }: BuildRecord): Due['record'] {
    const { publicKey } = this.#options
    const from: Omit<TakenFrom, 'takenAt'> = {
      kind: 'btfmill',
      url: this.url,
      vouched: publicKey === undefined ? 'digest' : 'signature',
      ...(publicKey !== undefined && { publicKey: publicKey.trim().split('\n').at(-1)! }),
    }
    return takenRecord(offered, from, { complete: true }) as Due['record']
  }

  async *#take(due: readonly Due[]): AsyncGenerator<Mirrored> {
    /** what is still to be read, by the digest of its BTF */
    const missing = Map.groupBy(due, ({ record }) => record.btf.sha256)
    await packsOf(this.#options.store).refresh()
    for (const [sha256, builds] of missing) {
      if (!(await this.#has(sha256))) continue
      missing.delete(sha256)
      const raw = getBlob(this.#options.store, sha256)
      yield* await this.#keep(builds, raw, { packed: true })
    }
    if (missing.size > 0) yield* this.#takePacked(missing)
    const rest = [...missing]
    for await (const kept of mapOrdered(rest, CONCURRENT, ([sha256, builds]) =>
      this.#keep(builds, this.#blob(sha256), { packed: false }),
    ))
      yield* kept
  }

  /** Tells whether the store has BTF: it may be that of another kernel, or of a run that was killed. */
  async #has(sha256: string): Promise<boolean> {
    const { store } = this.#options
    const blob = await store.head(blobKey(sha256)).catch(ignoreMissing)
    return blob !== undefined || packsOf(store).isKnown(sha256)
  }

  /** Takes out of packs what they have; it is deleted from `missing`. */
  async *#takePacked(missing: Map<string, Due[]>): AsyncGenerator<Mirrored> {
    const { store } = this.#options
    const onRead = (read: number) => {
      this.bytes += read
    }
    const named = this.#namedPacks()
    const packs = new RemotePacks({ base: this.#base, request: this.#request, named, onRead })
    let useless = 0
    for (const pack of await packs.list()) {
      if (missing.size === 0 || useless > sizeOf(missing)) return
      try {
        const opened = await packs.open(pack)
        if (!opened) continue
        const members = opened.members.members.filter(({ sha256 }) => missing.has(sha256))
        if (members.length === 0) useless += pack.indexSize
        if (members.length === 0 || !members.every((member) => isOffered(member, missing))) continue
        const isWhole = this.#isWanted(opened, missing)
        if (isWhole && !(await store.head(packKey(pack.digest)).catch(ignoreMissing)))
          await packs.copy(opened, store, this.#directory)
        const cache = new DeltaChainCache(4)
        for (const { sha256 } of members) {
          const reading = isWhole ? getBlob(store, sha256) : opened.members.read(sha256, cache)
          const raw = await reading.catch(ignoreInvalidPack)
          if (!raw) continue // another pack, or a blob, may be good
          const builds = missing.get(sha256)!
          missing.delete(sha256)
          yield* await this.#keep(builds, Promise.resolve(raw), { packed: isWhole })
        }
      } catch (error) {
        ignoreInvalidPack(error)
        useless += pack.size
      }
    }
  }

  /** The packs that a signed catalog names; undefined if none is signed, or it does not tell. */
  #namedPacks(): ReadonlyMap<string, number> | undefined {
    return this.#options.publicKey === undefined || !this.catalog.packs
      ? undefined
      : new Map(this.catalog.packs)
  }

  /**
   * Tells whether nearly all of a pack is wanted, or in a pack of the store already, and the file is no larger than that: it
   * is a hundredth of it.
   */
  #isWanted(
    { pack, members: { members } }: OpenedPack,
    missing: ReadonlyMap<string, unknown>,
  ): boolean {
    const packs = packsOf(this.#options.store)
    const ours = members.filter(({ sha256 }) => missing.has(sha256) || packs.isKnown(sha256))
    const rebuilt = ours.reduce((sum, { size }) => sum + size, pack.indexSize)
    return ours.length >= members.length * MIN_SHARE && pack.size <= rebuilt
  }

  /** Reads BTF by its digest. Errors: `FetchError`. */
  async #blob(sha256: string): Promise<Buffer> {
    return await requestWithRetry(
      new URL(`${this.#base}/v1/btf/sha256/${sha256}`),
      async (bytes, headers) => {
        this.bytes += bytes.length
        const { raw, sha256: actual } = await readChecked(bytes, headers)
        if (actual === sha256) return raw
        const message = `the response has the SHA-256 ${actual}: the catalog says ${sha256}`
        throw new FetchError('digest_mismatch', message)
      },
      this.#request,
    )
  }

  /** Checks BTF and keeps the records that name it; `packed` BTF is in the store already. */
  async #keep(
    builds: readonly Due[],
    reading: Promise<Buffer>,
    { packed }: { packed: boolean },
  ): Promise<Mirrored[]> {
    const kept: Mirrored[] = []
    for (const { name, record } of builds) {
      try {
        const raw = await reading
        const described = { ...describeKernelBtf(raw, record.kernel.arch), sha256: sha256Of(raw) }
        if (described.sha256 !== record.btf.sha256)
          throw new StoreError('digest_mismatch', `its BTF has the SHA-256 ${described.sha256}`)
        await this.#takeModules(record, raw)
        kept.push({ name, state: await this.#put({ ...record, btf: described }, raw, packed) })
      } catch (error) {
        kept.push({ name, state: 'refused', ...reasonOf(error) })
      }
    }
    return kept
  }

  async #put(
    record: BuildRecord,
    raw: Buffer,
    packed: boolean,
  ): Promise<'taken' | 'updated' | 'made here'> {
    const { store } = this.#options
    const condition = await conditionFor(store, recordKey(record.kernel, buildOf(record)))
    if (!condition) return 'made here'
    if (!packed) await putBlob(store, raw)
    await putRecord(store, record, condition).catch((error: unknown) => {
      // another mirror was faster
      if (!(error instanceof StoreError) || error.code !== 'precondition_failed') throw error
    })
    // gc may have removed an equal blob, or a pack, before the record named its BTF
    if (!packed || !(await this.#has(record.btf!.sha256))) await putBlob(store, raw)
    return 'ifAbsent' in condition ? 'taken' : 'updated'
  }

  /** Reads the BTF of a build's modules that the store lacks. */
  async #takeModules({ modules = {} }: BuildRecord, raw: Buffer): Promise<void> {
    const { store } = this.#options
    let base: Btf | undefined
    for (const { sha256 } of Object.values(modules)) {
      if (await this.#has(sha256)) continue
      base ??= parseBtf(raw)
      const module = await this.#blob(sha256)
      for (const _ of parseBtf(module, { base }).types());
      await putBlob(store, module)
    }
  }
}

interface RemotePlace {
  base: string
  url: string
  directory: string
  request: RequestOptions
}

function placeOf({ server, cache, token, request = {} }: MirrorOptions): RemotePlace {
  const url = URL.parse(server)
  if (!url || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '')
    throw new FetchError('invalid_options', 'invalid address: expected http://HOST:PORT')
  const base = url.href.replace(/\/+$/, '')
  url.username = ''
  url.password = ''
  const shown = `${url.href.replace(/\/+$/, '')}/`
  return {
    base,
    url: shown,
    directory: join(cache, sha256Of(shown).slice(0, 16)),
    request: { ...PATIENCE, ...request, ...(token !== undefined && { token }) },
  }
}

/** What is to be done with a record that a service has, beside the one here. */
function stateOf(
  offered: BuildRecord,
  known: BuildRecord | undefined,
): 'present' | 'made here' | 'due' {
  if (!known?.btf) return 'due'
  const isSameBtf = known.btf.sha256 === offered.btf?.sha256
  if (!known.takenFrom) return isSameBtf ? 'present' : 'made here'
  return isSameBtf && isDeepStrictEqual(plain(known), plain(offered)) ? 'present' : 'due'
}

/** A record without the time at which it was taken over, and what is found out here. */
function plain({ takenFrom = [], btf, symbols: _, ...record }: BuildRecord) {
  const [first, ...others] = takenFrom
  return { ...record, takenFrom: [{ ...first, takenAt: '' }, ...others] }
}

/** Tells whether a member has the size that the catalog says. */
const isOffered = (
  { sha256, size }: PackMember,
  missing: ReadonlyMap<string, readonly Due[]>,
): boolean => missing.get(sha256)?.[0]?.record.btf.size === size

/** Bytes of the BTF that is missing. */
const sizeOf = (missing: ReadonlyMap<string, readonly Due[]>): number =>
  missing.values().reduce((sum, [due]) => sum + due!.record.btf.size, 0)

/** Why a kernel is refused. Errors: others, which concern all kernels. */
function reasonOf(error: unknown): { code: string; message: string } {
  const ofOne =
    error instanceof BtfError ||
    (error instanceof StoreError && OF_ONE.has(error.code)) ||
    (error instanceof FetchError &&
      ['refused', 'digest_mismatch', 'invalid_response'].includes(error.code))
  if (!ofOne) throw error
  const { code, message } = error
  return { code, message }
}

/** Errors of the store that concern one kernel. */
const OF_ONE: ReadonlySet<string> = new Set([
  'digest_mismatch',
  'invalid_key',
  'invalid_pack',
  'invalid_record',
  'not_found',
])

/** For `catch`: a pack that is wrong, or that gc has removed. Errors: others. */
function ignoreInvalidPack(error: unknown): undefined {
  const isOfPack = error instanceof StoreError && OF_PACK.has(error.code)
  if (!isOfPack) throw error
}
const OF_PACK: ReadonlySet<string> = new Set(['invalid_pack', 'digest_mismatch', 'not_found'])

function ignoreMissing(error: unknown): undefined {
  if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
}
