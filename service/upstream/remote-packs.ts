/*
 * The packs of another btfmill, for a mirror. A pack that is wanted as a whole is copied: it grows in a file of the cache, so
 * that a killed run goes on where it was, and the frames that a pack of the store has already are copied from there. Of
 * other packs only the chains of wanted kernels are read, as ranges.
 *
 * Nothing in a pack is trusted: the file has the digest of its name, and each kernel the digest that the index names, before
 * the store gets it. A signed catalog that names the packs of its store excludes all others. Without it, whoever is on the
 * way may list packs of his own. So a pack is no larger than the wanted kernels in it, and packs without wanted kernels are
 * not looked at for ever.
 */
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import {
  decodePackHeader,
  decodePackMembers,
  PACK_HEADER,
  type PackMember,
  PackMembers,
  type PackSource,
  packKey,
  packsOf,
  type Store,
  StoreError,
} from '../../storage/index.ts'
import {
  FetchError,
  type RequestOptions,
  requestRange,
  requestWithRetry,
} from '../client/request.ts'
import { packFile } from '../pack/pack.ts'

/** The most packs of a service that are looked at. */
const MAX_PACKS = 10_000
/** Bytes of other members between two ranges that are rather read. */
const MAX_GAP = 32 * 1024

/** A pack, as `/v1/packs` lists it. */
export interface RemotePack {
  /** of the whole file, in hex */
  digest: string
  /** bytes of the file, and of its header and index */
  size: number
  indexSize: number
}

export interface RemotePacksOptions {
  /** the only packs that may be read, with their sizes; all if undefined */
  named: ReadonlyMap<string, number> | undefined
  /** `http://HOST:PORT`, without a final slash */
  base: string
  request: RequestOptions
  /** called with the bytes of each piece */
  onRead: (bytes: number) => void
}

export class RemotePacks {
  readonly #options: RemotePacksOptions

  constructor(options: RemotePacksOptions) {
    this.#options = options
  }

  /** The packs of the service, the largest first; none if it has no such route. Errors: `FetchError`. */
  async list(): Promise<RemotePack[]> {
    const { base, request, named, onRead } = this.#options
    if (named?.size === 0) return []
    try {
      const listed = await requestWithRetry(
        new URL(`${base}/v1/packs`),
        (bytes) => {
          onRead(bytes.length)
          return packsIn(bytes).sort((a, b) => b.size - a.size)
        },
        { ...request, encoding: 'identity' },
      )
      return listed.filter(({ digest, size }) => !named || named.get(digest) === size)
    } catch (error) {
      if (error instanceof FetchError && error.problem === 'not_found') return []
      throw error
    }
  }

  /** Reads the header and the index of a pack; undefined if the service has it no more. Errors: `invalid_pack`; `FetchError`. */
  async open(pack: RemotePack): Promise<OpenedPack | undefined> {
    const source = this.#sourceOf(pack)
    const start = await source.read(0, pack.indexSize, collect).catch((error: unknown) => {
      if (!(error instanceof FetchError) || error.problem !== 'not_found') throw error
    })
    if (!start) return undefined
    const header = decodePackHeader(start)
    if (start.length !== pack.indexSize || pack.indexSize !== PACK_HEADER + header.indexSize)
      throw new StoreError('invalid_pack', 'invalid pack: its index has another size than listed')
    const members = decodePackMembers(header, start.subarray(PACK_HEADER))
    const end = members.at(-1)
    if (end && end.offset + end.length !== pack.size)
      throw new StoreError('invalid_pack', 'invalid pack: it has another size than listed')
    return { pack, start, members: new PackMembers(source, members) }
  }

  /**
   * Copies a pack into the store, with frames of the store's own packs where they are the same. Errors: `invalid_pack`;
   * `FetchError`; those of the store and of the system.
   */
  async copy(opened: OpenedPack, store: Store, directory: string): Promise<void> {
    const { pack } = opened
    const path = join(directory, `${pack.digest}.part`)
    await mkdir(directory, { recursive: true })
    await removeParts(directory, path)
    await this.#complete(opened, store, path)
    const members = new PackMembers(packFile(path), opened.members.members)
    for await (const { member, result } of members.readAll()) {
      if (!(result instanceof StoreError)) continue
      await rm(path, { force: true }) // the next run begins again
      throw new StoreError('invalid_pack', `BTF ${member.sha256}: ${result.message}`)
    }
    try {
      await store.put(packKey(pack.digest), createReadStream(path), { sha256: pack.digest })
    } catch (error) {
      const isOther = error instanceof StoreError && error.code === 'digest_mismatch'
      if (!isOther) throw error
      await rm(path, { force: true }) // the next run begins again
      throw new StoreError('invalid_pack', `invalid pack: its digest is not ${pack.digest}`)
    }
    await rm(path, { force: true })
    await packsOf(store).refresh()
  }

  /** Reads what a file lacks of a pack. */
  async #complete({ pack, start, members }: OpenedPack, store: Store, path: string): Promise<void> {
    const file = await open(path, 'a')
    try {
      let at = (await stat(path)).size
      if (at > pack.size) {
        await file.truncate(0)
        at = 0
      }
      const write = async (bytes: Uint8Array) => {
        await file.appendFile(bytes)
        at += bytes.length
      }
      if (at < start.length) await write(start.subarray(at))
      const own = samePrefix(store, members.members)
      if (own && at < own.end)
        await own.source.read(at - own.shift, own.end - own.shift, async (bytes) => {
          for await (const piece of bytes) await write(piece)
        })
      while (at < pack.size) {
        const before = at
        await this.#sourceOf(pack).read(at, pack.size, async (bytes) => {
          // after a failure the range is read again from its start
          let skip = at - before
          for await (const piece of bytes) {
            const rest = piece.subarray(skip)
            skip = Math.max(skip - piece.length, 0)
            if (rest.length > 0) await write(rest)
          }
          if (at < pack.size) throw new FetchError('invalid_response', 'the pack is cut off')
        })
      }
      await file.sync()
    } finally {
      await file.close()
    }
  }

  #sourceOf({ digest }: RemotePack): PackSource {
    const { base, request, onRead } = this.#options
    const url = new URL(`${base}/v1/packs/${digest}`)
    return {
      maxGap: MAX_GAP,
      read: (start, end, take) =>
        requestRange(url, { start, end }, (bytes) => take(counted(bytes, onRead)), request),
    }
  }
}

/** Removes parts of packs that the service may not have any more. */
async function removeParts(directory: string, kept: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name)
    if (name.endsWith('.part') && path !== kept) await rm(path, { force: true })
  }
}

/** A pack whose index was read. */
export interface OpenedPack {
  pack: RemotePack
  /** its header and index */
  start: Buffer
  members: PackMembers
}

/** The frames at the start of a pack that a pack of the store has too, in the same order. */
function samePrefix(
  store: Store,
  members: readonly PackMember[],
): { source: PackSource; end: number; shift: number } | undefined {
  let best: { source: PackSource; end: number; shift: number } | undefined
  for (const { source, members: own } of packsOf(store).list()) {
    let count = 0
    while (count < members.length && isSame(members[count]!, own.members[count])) count++
    if (count === 0) continue
    const last = members[count - 1]!
    const end = last.offset + last.length
    const shift = members[0]!.offset - own.members[0]!.offset
    if (!best || end > best.end) best = { source, end, shift }
  }
  return best
}

const isSame = (one: PackMember, other: PackMember | undefined): boolean =>
  other !== undefined &&
  one.sha256 === other.sha256 &&
  one.length === other.length &&
  one.parent === other.parent &&
  one.unpacked === other.unpacked

function packsIn(bytes: Buffer): RemotePack[] {
  const invalid = () => new FetchError('invalid_response', 'the list of packs is invalid')
  let packs: unknown
  try {
    packs = JSON.parse(bytes.toString('utf8')).packs
  } catch {
    throw invalid()
  }
  if (!Array.isArray(packs) || packs.length > MAX_PACKS) throw invalid()
  return packs.map((pack) => {
    const { digest, size, indexSize } = Object(pack)
    const isValid =
      /^[0-9a-f]{64}$/.test(String(digest)) &&
      [size, indexSize].every((count) => Number.isSafeInteger(count) && count >= PACK_HEADER) &&
      indexSize <= size
    if (!isValid) throw invalid()
    return { digest: String(digest), size, indexSize }
  })
}

async function collect(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(bytes))
}

async function* counted(
  bytes: AsyncIterable<Uint8Array>,
  onRead: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const piece of bytes) {
    onRead(piece.length)
    yield piece
  }
}
