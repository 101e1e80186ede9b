/*
 * The members of a pack, read from wherever it is. A member takes the frames of its chain, which lie in one range of the
 * file. Each result has the SHA-256 that the index says, or is an error.
 */
import type { DeltaChain, DeltaChainCache } from '../bpf/index.ts'
import { sha256Of } from './body.ts'
import { StoreError } from './error.ts'
import {
  decodePackHeader,
  invalidPack,
  MAX_PACK_INDEX,
  PACK_HEADER,
  type PackHeader,
  type PackMember,
  unpackFrame,
} from './pack.ts'

/** Chains that are kept while all members of a pack are read in their order. */
const CHAINS = 6

/** Consumes bytes, and may stop before their end. */
export type Take<T> = (bytes: AsyncIterable<Uint8Array>) => Promise<T>

/** Where a pack is. */
export interface PackSource {
  /**
   * Gives the bytes from `start` up to `end`, or to the end of the file if that is earlier, to `take`; after a failure it
   * may do so again. Errors: those of the source and of `take`.
   */
  read<T>(start: number, end: number, take: Take<T>): Promise<T>
  /**
   * Bytes of other members that are better read than left out by another range (default: all, so that a chain is one
   * range)
   */
  readonly maxGap?: number
}

/** One step of a chain that was read and not yet applied. */
export interface PackedStep {
  /** hex, of the result of this step */
  sha256: string
  /** one zstd frame */
  frame: Uint8Array
  /** bytes of the decompressed frame */
  unpacked: number
  /** whether several other members continue this one */
  isShared: boolean
}

/** BTF as a pack has it: whoever needs it applies the steps. */
export interface PackedBtf {
  steps: readonly PackedStep[]
  /** of the raw bytes, in hex */
  sha256: string
  /** of the raw bytes */
  size: number
}

/** A member that was read, or why it cannot be. */
export interface ReadMember {
  member: PackMember
  result: Buffer | StoreError
}

/** Reads the header and the index of a pack, as one range. Errors: `invalid_pack`; those of the source. */
export async function readPackIndex(
  source: PackSource,
): Promise<{ header: PackHeader; bytes: Buffer }> {
  return await source.read(0, PACK_HEADER + MAX_PACK_INDEX, takeIndex)
}

export class PackMembers {
  readonly members: readonly PackMember[]
  readonly #source: PackSource
  /** numbers of the members, by digest */
  readonly #numbers: ReadonlyMap<string, number>
  /** by number: how many members continue this one */
  readonly #children: Uint32Array

  constructor(source: PackSource, members: readonly PackMember[]) {
    this.#source = source
    this.members = members
    this.#numbers = new Map(members.map(({ sha256 }, number) => [sha256, number]))
    this.#children = new Uint32Array(members.length)
    for (const { parent } of members) if (parent !== undefined) this.#children[parent]!++
  }

  /** Tells whether the pack has the BTF with a digest. */
  has(sha256: string): boolean {
    return this.#numbers.has(sha256)
  }

  /** Reads the steps of the BTF with a digest. Errors: `not_found`, `invalid_pack`; those of the source. */
  async steps(sha256: string): Promise<PackedBtf> {
    const line = this.#lineOf(this.#numberOf(sha256))
    return await this.#packed(line, line)
  }

  /**
   * Reads the raw BTF with a digest. With a cache, only the steps are applied that no chain of it has. Errors:
   * `not_found`, `invalid_pack`; those of the source.
   */
  async read(sha256: string, cache?: DeltaChainCache): Promise<Buffer> {
    const line = this.#lineOf(this.#numberOf(sha256))
    const chains = cache ?? (await noCache())
    const { chain, applied } = chains.take(
      line.map((member) => ({ name: member.sha256, isShared: this.#isShared(member.sha256) })),
    )
    const { steps } = await this.#packed(line, line.slice(applied))
    await applySteps(chain, steps)
    const result = await resultOf(chain, line.at(-1)!)
    chains.keep(sha256, chain)
    return result
  }

  /**
   * Reads all members, or those with wanted digests, in their order. A damaged member stops no other that does not continue it. Errors: those of the
   * source.
   */
  async *readAll(wanted?: ReadonlySet<string>): AsyncGenerator<ReadMember> {
    const { DeltaChainCache } = await import('../bpf/index.ts')
    const cache = new DeltaChainCache(CHAINS)
    for (const member of this.members) {
      if (wanted && !wanted.has(member.sha256)) continue
      try {
        yield { member, result: await this.read(member.sha256, cache) }
      } catch (error) {
        if (!(error instanceof StoreError) || error.code !== 'invalid_pack') throw error
        yield { member, result: error }
      }
    }
  }

  #isShared(sha256: string): boolean {
    return this.#children[this.#numbers.get(sha256)!]! > 1
  }

  #numberOf(sha256: string): number {
    const number = this.#numbers.get(sha256)
    if (number !== undefined) return number
    throw new StoreError('not_found', `the pack has no BTF with the SHA-256 ${sha256}`)
  }

  /** The chain of a member, from its root on. */
  #lineOf(number: number): PackMember[] {
    const line: PackMember[] = []
    for (let at: number | undefined = number; at !== undefined; at = this.members[at]!.parent)
      line.unshift(this.members[at]!)
    return line
  }

  async #packed(line: readonly PackMember[], wanted: readonly PackMember[]): Promise<PackedBtf> {
    const frames = await this.#frames(wanted)
    const steps = wanted.map(({ sha256, unpacked }, i) => ({
      ...{ sha256, unpacked, isShared: this.#isShared(sha256) },
      frame: frames[i]!,
    }))
    const { sha256, size } = line.at(-1)!
    return { steps, sha256, size }
  }

  /** Reads the frames of members, which are in the order of the file. */
  async #frames(members: readonly PackMember[]): Promise<Buffer[]> {
    const { maxGap = Number.POSITIVE_INFINITY } = this.#source
    const frames: Buffer[] = []
    let group: PackMember[] = []
    for (const member of members) {
      const before = group.at(-1)
      if (before && member.offset - before.offset - before.length > maxGap) {
        frames.push(...(await packFrames(this.#source, group)))
        group = []
      }
      group.push(member)
    }
    return [...frames, ...(await packFrames(this.#source, group))]
  }
}

/**
 * Reads the frames of members, which are in the order of the file, as one range. Frames of others in it are dropped as
 * they arrive. Errors: `invalid_pack`; those of the source.
 */
export async function packFrames(
  source: PackSource,
  members: readonly PackMember[],
): Promise<Buffer[]> {
  const last = members.at(-1)
  if (!last) return []
  const start = members[0]!.offset
  const end = last.offset + last.length
  return await source.read(start, end, async (bytes) => {
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

/** A cache that keeps nothing. bpf/ is loaded when a delta is applied: most commands apply none. */
async function noCache(): Promise<DeltaChainCache> {
  const { DeltaChainCache } = await import('../bpf/index.ts')
  return new DeltaChainCache(0)
}

async function takeIndex(bytes: AsyncIterable<Uint8Array>) {
  const pieces: Uint8Array[] = []
  let size = 0
  let wanted = PACK_HEADER
  let header: PackHeader | undefined
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

async function applySteps(chain: DeltaChain, steps: readonly PackedStep[]): Promise<void> {
  for (const { frame, unpacked } of steps) {
    const delta = await unpackFrame(frame, { unpacked })
    try {
      chain.apply(delta)
    } catch (cause) {
      throw await damagedBy(cause)
    }
  }
}

/** The BTF of a chain, with the digest of its member. Errors: `invalid_pack`. */
async function resultOf(chain: DeltaChain, { sha256, size }: PackMember): Promise<Buffer> {
  let bytes: Uint8Array
  try {
    bytes = chain.bytes()
  } catch (cause) {
    throw await damagedBy(cause)
  }
  const result = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const digest = sha256Of(result)
  if (digest === sha256 && result.length === size) return result
  throw invalidPack(`a member has the SHA-256 ${digest}: expected ${sha256}`)
}

async function damagedBy(cause: unknown): Promise<unknown> {
  const { BtfError } = await import('../bpf/index.ts')
  return cause instanceof BtfError ? invalidPack(cause.message, cause) : cause
}
