/*
 * The packs of a store. BTF that has no blob is read from a pack that has its digest: an index in memory says which. The
 * index is of packs that are never changed, so only new packs are read. It is brought up to date when a digest is not in
 * it, since another process may have put BTF into a pack and removed the blob.
 *
 * A pack that cannot be read, or whose member is damaged, is passed over where another pack has the same BTF.
 */
import type { Readable } from 'node:stream'
import type { DeltaChainCache } from '../bpf/index.ts'
import { isDamagedObject, isUnreadable, StoreError } from './error.ts'
import { digestOfPack, PACKS, packKey } from './name.ts'
import { decodePackIndex, decodePackMembers, invalidPack } from './pack.ts'
import { type PackedBtf, PackMembers, type PackSource, readPackIndex } from './pack-members.ts'
import type { RecordEntry } from './records.ts'
import type { ByteRange, ObjectInfo, Store } from './store.ts'

/** Bytes of other members between two ranges: to read them takes less time than another request. */
const MAX_GAP = 256 * 1024
/** Chains that are kept for the next kernels of their series, and the milliseconds after which they are dropped. */
const CHAINS = 6
const CHAINS_AGE = 5000

/** A pack of a store. */
export interface StoredPack {
  /** of the whole file, in hex */
  digest: string
  info: ObjectInfo
  source: PackSource
  members: PackMembers
  /** Opens the bytes of the file, or of a range of it. Errors: those of `Store.get`. */
  open(range?: ByteRange): Promise<Readable>
}

/** A pack of a store that cannot be read. */
export interface UnusablePack {
  info: ObjectInfo
  error: StoreError
}

export class StorePacks {
  readonly #store: Store
  /** by key */
  readonly #packs = new Map<string, StoredPack>()
  /** packs beside those of the store, by the keys that they would have */
  readonly #attached = new Map<string, StoredPack>()
  readonly #unusable = new Map<string, UnusablePack>()
  /** by digest of BTF */
  #byBtf = new Map<string, StoredPack[]>()
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined
  #chains: DeltaChainCache | undefined
  #dropping: NodeJS.Timeout | undefined

  constructor(store: Store) {
    this.#store = store
  }

  /**
   * Reads the index of packs that are new, and forgets those that are gone. A call never joins a run that began before
   * it. Errors: those of `Store` that concern more than one object.
   */
  async refresh(): Promise<void> {
    if (!this.#running) {
      this.#running = this.#read().finally(() => {
        this.#running = undefined
      })
      return await this.#running
    }
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = undefined
        return this.refresh()
      })
    return await this.#next
  }

  /** Takes a pack that is elsewhere for one of the store. */
  attach(pack: StoredPack): void {
    this.#attached.set(pack.info.key, pack)
    this.#index()
  }

  /** The packs as they were at the last `refresh`, in the order of their digests. */
  list(): StoredPack[] {
    const all = new Map([...this.#attached, ...this.#packs])
    return [...all.values()].sort((a, b) => (a.digest < b.digest ? -1 : 1))
  }

  /** A pack as it was at the last `refresh`. */
  find(digest: string): StoredPack | undefined {
    const key = packKey(digest)
    return this.#packs.get(key) ?? this.#attached.get(key)
  }

  /** The packs that could not be read at the last `refresh`. */
  unusable(): UnusablePack[] {
    return [...this.#unusable.values()]
  }

  /** Tells whether the last `refresh` found a pack with this BTF. */
  isKnown(sha256: string): boolean {
    return this.#byBtf.has(sha256)
  }

  /** Tells whether a pack has this BTF. Errors: those of `refresh`. */
  async has(sha256: string): Promise<boolean> {
    if (!this.isKnown(sha256)) await this.refresh()
    return this.isKnown(sha256)
  }

  /**
   * Reads the steps of BTF, not yet checked; undefined if no pack has it. Errors: `digest_mismatch`
   * if all packs that have it are damaged; those of `Store`.
   */
  async steps(sha256: string): Promise<PackedBtf | undefined> {
    return await this.#fromAny(sha256, ({ members }) => members.steps(sha256))
  }

  /**
   * Gives the steps of BTF to `apply`, which applies and checks them elsewhere. If they turn out to be damaged, the steps of
   * another pack follow. Undefined if no pack has the BTF. Errors: those of `steps` and of `apply`.
   */
  async rebuild<T>(sha256: string, apply: (btf: PackedBtf) => Promise<T>): Promise<T | undefined> {
    return await this.#fromAny(sha256, async ({ members }) => apply(await members.steps(sha256)))
  }

  /** Reads the raw BTF with a digest, and compares it; undefined if no pack has it. Errors: those of `steps`. */
  async read(sha256: string): Promise<Buffer | undefined> {
    return await this.#fromAny(sha256, async ({ members }) => {
      const chains = await this.#openChains()
      return await members.read(sha256, chains)
    })
  }

  async #fromAny<T>(
    sha256: string,
    read: (pack: StoredPack) => Promise<T>,
  ): Promise<T | undefined> {
    if (!(await this.has(sha256))) return undefined
    let last: unknown
    // the packs may have been replaced since the last refresh: then there are others
    for (const attempt of ['known', 'refreshed']) {
      if (attempt === 'refreshed') await this.refresh()
      for (const pack of this.#byBtf.get(sha256) ?? []) {
        try {
          return await read(pack)
        } catch (cause) {
          last = damageOf(sha256, cause)
        }
      }
    }
    if (last === undefined || isGone(last)) return undefined
    throw last
  }

  async #read(): Promise<void> {
    const gone = new Set([...this.#packs.keys(), ...this.#unusable.keys()])
    for await (const info of this.#store.list(PACKS)) {
      const digest = digestOfPack(info.key)
      if (digest === undefined) continue // `verifyStore` reports it
      gone.delete(info.key)
      const known = this.#packs.get(info.key)
      if (known) this.#packs.set(info.key, { ...known, info })
      else if (this.#unusable.get(info.key)?.info.etag !== info.etag) await this.#add(digest, info)
    }
    for (const key of gone) {
      this.#packs.delete(key)
      this.#unusable.delete(key)
    }
    this.#index()
  }

  #index(): void {
    this.#byBtf = new Map()
    for (const pack of this.list())
      for (const { sha256 } of pack.members.members)
        this.#byBtf.set(sha256, [...(this.#byBtf.get(sha256) ?? []), pack])
  }

  async #add(digest: string, info: ObjectInfo): Promise<void> {
    try {
      const source = packSource(this.#store, digest)
      const { header, bytes } = await readPackIndex(source)
      const members = new PackMembers(source, decodePackMembers(header, bytes))
      const store = this.#store
      const open = async (range?: ByteRange) => (await store.get(info.key, range)).body
      this.#packs.set(info.key, { digest, info, source, members, open })
      this.#unusable.delete(info.key)
    } catch (error) {
      if (error instanceof StoreError && error.code === 'not_found') return // deleted meanwhile
      if (!isPackError(error)) throw error
      this.#unusable.set(info.key, { info, error })
    }
  }

  async #openChains(): Promise<DeltaChainCache> {
    if (!this.#chains) {
      const { DeltaChainCache } = await import('../bpf/index.ts')
      this.#chains ??= new DeltaChainCache(CHAINS)
    }
    clearTimeout(this.#dropping)
    this.#dropping = setTimeout(() => this.#chains?.clear(), CHAINS_AGE).unref()
    return this.#chains
  }
}

const known = new WeakMap<Store, StorePacks>()

/** The packs of a store. The index lives as long as the store's object. */
export function packsOf(store: Store): StorePacks {
  const packs = known.get(store) ?? new StorePacks(store)
  known.set(store, packs)
  return packs
}

/** A pack in a store. Errors of its reads: `invalid_pack` for a file that is cut off; those of `Store.get`. */
function packSource(store: Store, digest: string): PackSource {
  return {
    maxGap: MAX_GAP,
    async read(start, end, take) {
      const { body } = await store.get(packKey(digest), { start, end: end - 1 }).catch((cause) => {
        if (!(cause instanceof StoreError) || cause.code !== 'invalid_range') throw cause
        throw invalidPack(`the file ends before byte ${start}`, cause)
      })
      try {
        return await take(body)
      } finally {
        body.destroy()
      }
    },
  }
}

/** Reads the records of a pack. Errors: `invalid_pack`; those of the source. */
export async function readPackRecords(source: PackSource): Promise<RecordEntry[]> {
  const { header, bytes } = await readPackIndex(source)
  const { catalog } = await decodePackIndex(header, bytes)
  return [...catalog.list()]
}

/** Tells whether an error is of one pack alone: others can be read. */
export const isPackError = (error: unknown): error is StoreError =>
  isUnreadable(error) || (error instanceof StoreError && error.code === 'invalid_pack')

const isGone = (error: unknown): boolean =>
  error instanceof StoreError && error.code === 'not_found'

/** The error of a member, in the form of a blob's. Errors: those that concern more than one object. */
function damageOf(sha256: string, cause: unknown): StoreError {
  if (isDamagedObject(cause)) return cause
  if (!isPackError(cause)) throw cause
  return new StoreError('digest_mismatch', `BTF ${sha256} in a pack: ${cause.message}`, { cause })
}
