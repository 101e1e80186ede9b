/*
 * Moves the BTF of a store's kernels from blobs into packs. The kernels of one distribution and architecture share packs,
 * since only those of a pack can be stored as differences from each other; a pack that is large enough is not continued.
 *
 * Nothing is lost if the process is killed, or if others write to the store meanwhile. A pack is stored as a whole, and
 * each of its members is read back from the store before a blob of it is removed. A pack is never changed or removed
 * here: a new one has all members of those that it replaces, and garbage collection removes these later. A writer that
 * needs a blob just then writes it again, as it does beside garbage collection.
 */
import {
  blobKey,
  type Catalog,
  isPackError,
  type KernelFilter,
  newestOfSeries,
  type ObjectInfo,
  packFrames,
  packKey,
  packsOf,
  replacementsOf,
  type Store,
  type StoredPack,
  StoreError,
  type StorePacks,
  sha256Of,
} from '../../storage/index.ts'
import type { Available } from '../kernel/lookup.ts'
import { inOrder } from './family.ts'
import { PackWriter, type ReadRaw } from './writer.ts'

/** Bytes of a pack from which on it is not continued: the range that covers a chain has no more. */
const MAX_SIZE = 16 * 1024 * 1024
/** Milliseconds after which a pack that blobs are removed for is written again: well below the age that gc waits for. */
const FRESH = 12 * 3600 * 1000
/** For estimates: bytes of the first kernel of a pack, and of each other one, as a part of its blob's. */
const FIRST_PART = 0.75
const NEXT_PART = 0.02

/** The kernels that stay blobs too, for those who ask for them often: the newest of each series, all or none. */
export type Keep = { newest: number } | 'all'

export interface PackingOptions {
  store: Store
  catalog: Catalog
  filter: KernelFilter
  keep: Keep
  /** reads raw BTF, and says which errors concern one kernel alone */
  read: ReadRaw
  isDamaged: (error: unknown) => boolean
  /** default: 16 MiB */
  maxSize?: number
  signal?: AbortSignal
}

/** The kernels that share packs. */
export interface PackGroup {
  distro: string
  arch: string
}

/** What happened to kernels of a group. */
export type PackingEvent =
  | {
      state: 'packed'
      digest: string
      /** bytes of the pack */
      size: number
      /** different BTF in it, and how many of them no pack had before */
      members: number
      added: number
    }
  | { state: 'removed'; key: string; size: number }
  | { state: 'left out'; kernel: Available['kernel']; message: string }
  | { state: 'failed'; code: string; message: string }

/** What `packKernels` would do for a group. */
export interface PackPlan extends PackGroup {
  /** different BTF that no pack has */
  add: number
  /** blobs that would be removed, and their bytes */
  blobs: number
  bytes: number
  /** bytes by which packs would grow, estimated */
  packs: number
}

/** Says what `packKernels` would do. Errors: those of `Store`. */
export async function planPacking(options: PackingOptions): Promise<PackPlan[]> {
  const state = await look(options)
  return state.groups.map((group) => {
    const { kernels } = group
    const isPacked = ({ btf }: Available) => state.packs.isKnown(btf.sha256)
    const missing = distinct(kernels).filter((record) => !isPacked(record))
    const isNew = openPacks(state, group, options.maxSize).length === 0
    const add = isNew && missing.length < 2 ? [] : missing
    const removable = distinct(kernels).filter(
      (record) => isRemovable(state, record) && (isPacked(record) || add.length > 0),
    )
    const sizes = add.map(({ btf }) => state.blobs.get(blobKey(btf.sha256))?.size ?? 0)
    const [first = 0, ...next] = sizes
    const bytes = first * (isNew ? FIRST_PART : NEXT_PART) + sum(next) * NEXT_PART
    return {
      ...{ distro: group.distro, arch: group.arch, add: add.length, blobs: removable.length },
      bytes: sum(removable.map(({ btf }) => state.blobs.get(blobKey(btf.sha256))!.size)),
      packs: Math.round(bytes),
    }
  })
}

/**
 * Packs the kernels that match, and removes the blobs of those that need none. Yields what was done, as it is done. A
 * group whose pack is damaged fails, and the others go on. Errors: those of `Store`; the signal's reason.
 */
export async function* packKernels(
  options: PackingOptions,
): AsyncGenerator<PackGroup & PackingEvent> {
  const state = await look(options)
  for (const group of state.groups) {
    const { distro, arch } = group
    try {
      for await (const event of packGroup(state, group, options)) yield { distro, arch, ...event }
    } catch (error) {
      if (!isPackError(error)) throw error
      yield { ...{ distro, arch, state: 'failed' }, code: error.code, message: error.message }
    }
  }
}

interface GroupKernels extends PackGroup {
  /** of the filter */
  kernels: readonly Available[]
}

interface PackingState {
  catalog: Catalog
  packs: StorePacks
  /** by key, without those that were removed */
  blobs: Map<string, ObjectInfo>
  /** digests of BTF that stays a blob */
  hot: ReadonlySet<string>
  groups: readonly GroupKernels[]
}

async function look({ store, catalog, filter, keep }: PackingOptions): Promise<PackingState> {
  const packs = packsOf(store)
  await packs.refresh()
  const blobs = new Map<string, ObjectInfo>()
  for await (const info of store.list('blobs/')) blobs.set(info.key, info)
  const groups = Object.values(
    Object.groupBy(available(catalog, filter), ({ kernel: { distro, arch } }) =>
      JSON.stringify([distro, arch]),
    ),
  ).map((kernels = []) => {
    const { distro, arch } = kernels[0]!.kernel
    return { distro, arch, kernels: inOrder(kernels) }
  })
  return { catalog, packs, blobs, hot: hotDigests(catalog, keep), groups }
}

const available = (catalog: Catalog, filter?: KernelFilter): Available[] =>
  [...catalog.list(filter)]
    .map(({ record }) => record)
    .filter((record): record is Available => record.btf !== undefined)

/** The digests of BTF that stays a blob. */
function hotDigests(catalog: Catalog, keep: Keep): Set<string> {
  const all = available(catalog)
  if (keep === 'all') return new Set(all.map(({ btf }) => btf.sha256))
  const hot = newestOfSeries(all, keep.newest, ({ kernel }) => kernel)
  return new Set(hot.map(({ btf }) => btf.sha256))
}

const isRemovable = ({ hot, blobs }: PackingState, { btf: { sha256 } }: Available): boolean =>
  !hot.has(sha256) && blobs.has(blobKey(sha256))

/** One record for each BTF. */
const distinct = (records: readonly Available[]): Available[] => [
  ...new Map(records.map((record) => [record.btf.sha256, record])).values(),
]

async function* packGroup(
  state: PackingState,
  group: GroupKernels,
  options: PackingOptions,
): AsyncGenerator<PackingEvent> {
  const { store, signal } = options
  /** the packs whose members were all read back, by digest */
  const checked = new Set<string>()
  for await (const event of addPacks(state, group, options)) {
    if (event.state === 'packed') checked.add(event.digest)
    yield event
  }
  await state.packs.refresh()
  const isChecked = ({ digest }: StoredPack) => checked.has(digest)
  const packs = state.packs.list()
  for (const pack of [...packs.filter(isChecked), ...packs.filter((one) => !isChecked(one))]) {
    const removable = distinct(group.kernels).filter(
      (record) => isRemovable(state, record) && pack.members.has(record.btf.sha256),
    )
    if (removable.length === 0) continue
    const wanted = new Set(removable.map(({ btf }) => btf.sha256))
    if (!isChecked(pack)) {
      await keepFresh(store, pack)
      await check(pack, wanted)
    }
    for (const sha256 of wanted) {
      signal?.throwIfAborted()
      const key = blobKey(sha256)
      await store.delete(key)
      const { size } = state.blobs.get(key)!
      state.blobs.delete(key)
      yield { state: 'removed', key, size }
    }
  }
}

/** Stores the packs that a group lacks, and reads all of their members back. */
async function* addPacks(
  state: PackingState,
  group: GroupKernels,
  options: PackingOptions,
): AsyncGenerator<PackingEvent> {
  const { store, read, isDamaged, maxSize = MAX_SIZE, signal } = options
  const { catalog, packs } = state
  const open = openPacks(state, group, maxSize)
  const [largest, ...others] = open
  const missing = group.kernels.filter(({ btf }) => !packs.isKnown(btf.sha256))
  if (missing.length === 0 && others.length === 0) return
  const base = largest && isWorthwhile(catalog, largest) ? largest : undefined
  // as many as fit: a pack whose kernels went into two others could not be removed
  let room = maxSize - (base?.info.size ?? 0)
  const merged = open
    .filter((pack) => {
      if (pack === base || pack.info.size > room) return false
      room -= pack.info.size
      return true
    })
    .flatMap(({ members }) => members.members.map(({ sha256 }) => recordOf(catalog, sha256)))
    .filter((record) => record !== undefined)
  const all = distinct([...inOrder(merged), ...inOrder(missing)])
  if (!base && all.length < 2) return // a pack of one kernel saves nothing
  const wanted = new Set(missing.map(({ btf }) => btf.sha256))
  let writer = new PackWriter(read)
  let [added, full] = [0, false]
  if (base) await continueFrom(catalog, writer, base)
  for (const [i, record] of all.entries()) {
    signal?.throwIfAborted()
    try {
      await writer.add(record)
      if (wanted.has(record.btf.sha256)) added++
    } catch (error) {
      if (!isDamaged(error) && !(error instanceof RangeError)) throw error
      yield { state: 'left out', kernel: record.kernel, message: (error as Error).message }
    }
    if (writer.size < maxSize || i === all.length - 1) continue
    yield await put(store, catalog, writer, added)
    writer = new PackWriter(read)
    added = 0
    full = true
  }
  const grown = writer.members.length - (base && !full ? base.members.members.length : 0)
  if (grown > 0) yield await put(store, catalog, writer, added)
}

/** The packs of a group that are not full and that no other replaces, the one with most members first. */
function openPacks(
  { catalog, packs }: PackingState,
  { distro, arch }: PackGroup,
  maxSize = MAX_SIZE,
): StoredPack[] {
  const all = packs.list()
  const isNeeded = (sha256: string) => recordOf(catalog, sha256) !== undefined
  return all
    .filter(({ info }) => info.size < maxSize)
    .filter((pack) => replacementsOf(pack, all, isNeeded).length === 0)
    .filter((pack) => {
      const group = groupOf(catalog, pack)
      return group?.distro === distro && group.arch === arch
    })
    .sort((a, b) => b.members.members.length - a.members.members.length)
}

/** The group of a pack: that of most of its kernels; undefined if the catalog has none of them. */
function groupOf(catalog: Catalog, { members }: StoredPack): PackGroup | undefined {
  const counts = new Map<string, number>()
  for (const { sha256 } of members.members) {
    const record = recordOf(catalog, sha256)
    if (!record) continue
    const name = JSON.stringify([record.kernel.distro, record.kernel.arch])
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  const [most] = [...counts].sort(([, a], [, b]) => b - a)
  if (!most) return undefined
  const [distro, arch] = JSON.parse(most[0])
  return { distro, arch }
}

const recordOf = (catalog: Catalog, sha256: string): Available | undefined =>
  catalog.findBy('sha256', sha256)[0] as Available | undefined

/** Tells whether most members of a pack have a record: others are only carried along. */
function isWorthwhile(catalog: Catalog, { members: { members } }: StoredPack): boolean {
  const needed = members.filter(({ sha256 }) => recordOf(catalog, sha256))
  return needed.length * 2 > members.length
}

async function continueFrom(
  catalog: Catalog,
  writer: PackWriter,
  { source, members: { members } }: StoredPack,
): Promise<void> {
  const frames = await packFrames(source, members)
  writer.continue({ members, frames, recordOf: (sha256) => recordOf(catalog, sha256) })
}

/** Stores a pack, and reads all of its members back. Errors: `invalid_pack` if one differs; those of `Store`. */
async function put(
  store: Store,
  catalog: Catalog,
  writer: PackWriter,
  added: number,
): Promise<PackingEvent> {
  const digests = writer.members.map(({ sha256 }) => sha256)
  const records = digests.flatMap((sha256) => catalog.findBy('sha256', sha256))
  const bytes = Buffer.concat(await writer.finish(records))
  const digest = sha256Of(bytes)
  await store.put(packKey(digest), bytes, { sha256: digest })
  await packsOf(store).refresh()
  const stored = packsOf(store).find(digest)
  if (!stored) throw new StoreError('invalid_pack', `the pack ${digest} cannot be read back`)
  await check(stored, new Set(digests))
  const { length } = digests
  return { state: 'packed', digest, size: bytes.length, members: length, added }
}

/** Reads members of a pack from the store, and compares their digests. Errors: `invalid_pack`; those of `Store.get`. */
async function check({ digest, members }: StoredPack, wanted: ReadonlySet<string>): Promise<void> {
  for await (const { member, result } of members.readAll(wanted))
    if (result instanceof StoreError)
      throw new StoreError(
        'invalid_pack',
        `the pack ${digest} is damaged at ${member.sha256}: ${result.message}`,
        { cause: result },
      )
}

/** Writes an old pack again: garbage collection may just have found that no record needed it. */
async function keepFresh(store: Store, { digest, info }: StoredPack): Promise<void> {
  if (info.modified.getTime() > Date.now() - FRESH) return
  const { body } = await store.get(info.key)
  await store.put(info.key, body, { sha256: digest })
}

const sum = (numbers: readonly number[]): number => numbers.reduce((all, one) => all + one, 0)
