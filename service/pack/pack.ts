/*
 * Reads packs. storage/pack.md specifies the file, bpf/delta.md its members. A kernel takes two ranges of the file: the
 * header with the index, and one that covers its chain. Frames of other members in that range are dropped as they
 * arrive. Each result has the SHA-256 that the index says, or is an error.
 */
import { open } from 'node:fs/promises'
import { BtfError, DeltaChain } from '../../bpf/index.ts'
import {
  decodePackHeader,
  decodePackIndex,
  invalidPack,
  isPack,
  MAX_PACK_INDEX,
  PACK_HEADER,
  type PackIndex,
  type PackMember,
  StoreError,
  sha256Of,
  unpackFrame,
} from '../../storage/index.ts'

/** Consumes bytes, and may stop before their end. */
export type Take<T> = (bytes: AsyncIterable<Uint8Array>) => Promise<T>

/** Where a pack is. */
export interface PackSource {
  /**
   * Gives the bytes from `start` up to `end`, or to the end of the file if that is earlier, to `take`; after a failure it
   * may do so again. Errors: those of the source and of `take`.
   */
  read<T>(start: number, end: number, take: Take<T>): Promise<T>
}

/** A pack in a file. The errors are the system's. */
export function packFile(path: string): PackSource {
  return {
    async read(start, end, take) {
      const file = await open(path)
      try {
        return await take(file.createReadStream({ start, end: end - 1, autoClose: false }))
      } finally {
        await file.close()
      }
    },
  }
}

/** Tells whether a file begins as a pack does. Errors: the system's. */
export async function isPackFile(path: string): Promise<boolean> {
  const file = await open(path)
  try {
    if (!(await file.stat()).isFile()) return false
    const { buffer, bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0)
    return isPack(buffer.subarray(0, bytesRead))
  } finally {
    await file.close()
  }
}

/** A member that was read, or why it cannot be. */
export interface ReadMember {
  member: PackMember
  result: Buffer | StoreError
}

export class Pack {
  readonly index: PackIndex
  readonly #source: PackSource
  /** numbers of the members, by digest */
  readonly #numbers: ReadonlyMap<string, number>

  private constructor(source: PackSource, index: PackIndex) {
    this.#source = source
    this.index = index
    this.#numbers = new Map(index.members.map(({ sha256 }, number) => [sha256, number]))
  }

  /** Reads the header and the index, as one range. Errors: `invalid_pack`; those of the source. */
  static async open(source: PackSource): Promise<Pack> {
    const { header, bytes } = await source.read(0, PACK_HEADER + MAX_PACK_INDEX, readIndex)
    return new Pack(source, await decodePackIndex(header, bytes))
  }

  /** Reads the raw BTF with a digest, as one range. Errors: `not_found`, `invalid_pack`; those of the source. */
  async read(sha256: string): Promise<Buffer> {
    const number = this.#numbers.get(sha256)
    if (number === undefined)
      throw new StoreError('not_found', `the pack has no BTF with the SHA-256 ${sha256}`)
    return resultOf(await this.#chainOf(number), this.index.members[number]!)
  }

  /**
   * Reads all members in their order. A damaged member stops no other that does not continue it. Errors: those of the
   * source.
   */
  async *readAll(): AsyncGenerator<ReadMember> {
    let chain = new DeltaChain()
    let last: number | undefined
    for (const [number, member] of this.index.members.entries()) {
      try {
        if (member.parent === undefined || member.parent === last) {
          const [frame] = await this.#frames([member])
          apply(chain, await unpackFrame(frame!, member))
        } else chain = await this.#chainOf(number)
        last = number
        yield { member, result: resultOf(chain, member) }
      } catch (error) {
        if (!(error instanceof StoreError) || error.code !== 'invalid_pack') throw error
        chain = new DeltaChain() // the other one is broken
        last = undefined
        yield { member, result: error }
      }
    }
  }

  /** Tells whether bytes follow the last member. Errors: those of the source. */
  async hasTrailer(): Promise<boolean> {
    const { size } = this.index
    return await this.#source.read(size, size + 1, async (bytes) => {
      for await (const piece of bytes) if (piece.length > 0) return true
      return false
    })
  }

  async #chainOf(number: number): Promise<DeltaChain> {
    const { members } = this.index
    const line: PackMember[] = []
    for (let at: number | undefined = number; at !== undefined; at = members[at]!.parent)
      line.unshift(members[at]!)
    const frames = await this.#frames(line)
    const chain = new DeltaChain()
    for (const [i, member] of line.entries()) apply(chain, await unpackFrame(frames[i]!, member))
    return chain
  }

  /** Reads the frames of members, which are in the order of the file, as one range. */
  async #frames(members: readonly PackMember[]): Promise<Buffer[]> {
    const last = members.at(-1)!
    const start = members[0]!.offset
    const end = last.offset + last.length
    return await this.#source.read(start, end, async (bytes) => {
      const frames = members.map(({ length }) => Buffer.alloc(length))
      let at = start
      let next = 0
      for await (const piece of bytes) {
        for (let i = next; i < members.length; i++) {
          const { offset, length } = members[i]!
          if (offset >= at + piece.length) break
          if (offset + length <= at + piece.length) next = i + 1
          const from = Math.max(offset, at)
          frames[i]!.set(piece.subarray(from - at, offset + length - at), from - offset)
        }
        at += piece.length
      }
      if (at < end) throw invalidPack(`the file ends at byte ${at}: expected byte ${end}`)
      return frames
    })
  }
}

async function readIndex(bytes: AsyncIterable<Uint8Array>) {
  const pieces: Uint8Array[] = []
  let size = 0
  let wanted = PACK_HEADER
  let header: ReturnType<typeof decodePackHeader> | undefined
  for await (const piece of bytes) {
    pieces.push(piece)
    size += piece.length
    if (size < wanted) continue
    if (!header) {
      const start = Buffer.concat(pieces)
      header = decodePackHeader(start)
      wanted += header.indexSize
      pieces.splice(0, pieces.length, start)
    }
    if (size >= wanted) break
  }
  const all = Buffer.concat(pieces)
  header ??= decodePackHeader(all)
  return { header, bytes: all.subarray(PACK_HEADER, wanted) }
}

function apply(chain: DeltaChain, delta: Uint8Array): void {
  try {
    chain.apply(delta)
  } catch (cause) {
    throw damagedBy(cause)
  }
}

/** The BTF of a chain, with the digest of its member. Errors: `invalid_pack`. */
function resultOf(chain: DeltaChain, { sha256, size }: PackMember): Buffer {
  let bytes: Uint8Array
  try {
    bytes = chain.bytes()
  } catch (cause) {
    throw damagedBy(cause)
  }
  const result = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const digest = sha256Of(result)
  if (digest === sha256 && result.length === size) return result
  throw invalidPack(`a member has the SHA-256 ${digest}: expected ${sha256}`)
}

function damagedBy(cause: unknown): unknown {
  return cause instanceof BtfError ? invalidPack(cause.message, cause) : cause
}
