/*
 * Writes packs. Each kernel is encoded from a parent that makes it small: the one before it in its branch; for the first of
 * a branch, the same release of another flavour or distribution; for the first of a line, that of an earlier line
 * (family.ts has these words). Two bounds keep a kernel quick to read: the work of its chain, and the range of the file
 * that covers it. Frames are kept in memory until the index is known. The same kernels give the same bytes.
 *
 * A pack can be continued: a new one begins with all frames of the old one, in their order, so that whoever has the old
 * one needs only the rest.
 */
import { encodeDelta, needsParent, plainDelta } from '../../bpf/index.ts'
import {
  type BuildRecord,
  encodePackIndex,
  MAX_PACK_MEMBER,
  type PackMember,
  packFrame,
} from '../../storage/index.ts'
import type { Available } from '../kernel/lookup.ts'
import { compareNearness, inOrder, type PackPlace, placeOf } from './family.ts'

/**
 * The most work of a chain. A unit stands for 2 ms: steps with small deltas take 0.7 ms, those with deltas of builds whose
 * types are in another order up to 10 ms, and one of 600 KB 30 ms, measured with real deltas.
 */
const MAX_WORK = 32
const SHUFFLED = { bytesPerWork: 16 * 1024, most: 6 }
const BYTES_PER_WORK = 110 * 1024
/** The most work of a parent: of the next kernel of a full branch, of the first of a branch, and of the first of a line. */
const PARENT_WORK = { branch: 24, sibling: 26, line: 16 }
/** Bytes of a range that covers a chain. */
const MAX_SPAN = 16 * 1024 * 1024
/** Bytes of a frame that is small: no other parent is tried. */
const SMALL = 16 * 1024
/** Bytes of a frame from the kernel before that is so large that other parents are tried. */
const LARGE = 64 * 1024

export interface PackContent {
  /** the file: its index, then its frames */
  pieces: readonly Buffer[]
  /** bytes of all pieces */
  size: number
  /** kernels in the pack */
  kernels: number
  /** kernels whose BTF could not be read, or is too large for a pack */
  leftOut: readonly { record: Available; error: unknown }[]
}

/** Reads the raw BTF of a record. */
export type ReadRaw = (record: Available) => Promise<Uint8Array>

/**
 * Packs the BTF of records. Records lose what a pack has no content for: modules and symbols. Errors: those of `read` for
 * which `isDamaged` is false; `invalid_pack` if the index is too large.
 */
export async function makePack(
  records: readonly Available[],
  read: ReadRaw,
  isDamaged: (error: unknown) => boolean,
): Promise<PackContent> {
  const packed: BuildRecord[] = []
  const leftOut: { record: Available; error: unknown }[] = []
  const writer = new PackWriter(read)
  for (const record of inOrder(records)) {
    try {
      await writer.add(record)
      packed.push(record)
    } catch (error) {
      if (!isDamaged(error) && !(error instanceof RangeError)) throw error
      leftOut.push({ record, error })
    }
  }
  const pieces = await writer.finish(packed)
  const size = pieces.reduce((sum, { length }) => sum + length, 0)
  return { pieces, size, kernels: packed.length, leftOut }
}

/** What a pack has of a record. */
function contentOf(record: BuildRecord): BuildRecord {
  const { modules: _, wantedModules: __, moduleFailures: ___, ...rest } = record
  const { symbols: ____, inlinedFailure: _____, failure: ______, ...content } = rest
  return content
}

interface PlacedMember extends Omit<PackMember, 'offset'> {
  record: Available
  /** undefined if it has no record any more */
  place: PackPlace | undefined
  work: number
  /** bytes of all frames before this one */
  offset: number
  /** where its chain begins */
  start: number
}

interface EncodedMember {
  frame: Buffer
  unpacked: number
  /** number of the parent; undefined for a root */
  parent: number | undefined
  work: number
}

/** A pack that another continues. */
export interface ContinuedPack {
  members: readonly PackMember[]
  /** the frames of all members, in their order */
  frames: readonly Buffer[]
  /** the record of a member's BTF; undefined if there is none any more */
  recordOf(sha256: string): Available | undefined
}

export class PackWriter {
  readonly members: PlacedMember[] = []
  readonly frames: Buffer[] = []
  readonly #read: ReadRaw
  readonly #digests = new Set<string>()
  /** numbers of members, by branch and by line */
  readonly #branches = new Map<string, number[]>()
  readonly #lines = new Map<string, number[]>()
  #offset = 0
  /** the BTF that was added last */
  #last: { number: number; raw: Uint8Array } | undefined

  constructor(read: ReadRaw) {
    this.#read = read
  }

  /** Bytes of all frames so far. */
  get size(): number {
    return this.#offset
  }

  /** Begins with the members of another pack. A member without a record is kept, and nothing new continues it. */
  continue({ members, frames, recordOf }: ContinuedPack): void {
    for (const [number, { offset: _, ...member }] of members.entries()) {
      const { sha256, parent, length, unpacked } = member
      const record = recordOf(sha256)
      const above = parent === undefined ? undefined : this.members[parent]!
      this.members.push({
        ...member,
        record: record!,
        place: record && placeOf(record),
        work: above ? above.work + workOf(unpacked) : 0,
        offset: this.#offset,
        start: above?.start ?? this.#offset,
      })
      this.frames.push(frames[number]!)
      this.#digests.add(sha256)
      this.#offset += length
      this.#place(number)
    }
  }

  /** The pack in pieces, with these records: those of its members. Errors: `invalid_pack` for too large an index. */
  async finish(records: readonly BuildRecord[]): Promise<Buffer[]> {
    return [await encodePackIndex(this.members, records.map(contentOf)), ...this.frames]
  }

  #place(number: number): void {
    const { place } = this.members[number]!
    if (!place) return
    append(this.#branches, place.branch, number)
    append(this.#lines, place.line, number)
  }

  /** Adds a kernel, unless its BTF is there. Errors: `RangeError` for too much BTF; those of `read`. */
  async add(record: Available): Promise<void> {
    const { sha256, size } = record.btf
    if (this.#digests.has(sha256)) return
    if (size > MAX_PACK_MEMBER)
      throw new RangeError(`${size} bytes of BTF: expected at most ${MAX_PACK_MEMBER}`)
    const raw = await this.#read(record)
    const place = placeOf(record)
    const { frame, unpacked, parent, work } = await this.#encode(raw, place)
    const number = this.members.length
    this.members.push({
      ...{ sha256, size, parent, length: frame.length, unpacked },
      ...{ record, place, work, offset: this.#offset },
      start: parent === undefined ? this.#offset : this.members[parent]!.start,
    })
    this.frames.push(frame)
    this.#digests.add(sha256)
    this.#offset += frame.length
    this.#last = { number, raw }
    this.#place(number)
  }

  async #encode(raw: Uint8Array, place: PackPlace): Promise<EncodedMember> {
    let best: EncodedMember | undefined
    const tried = new Set<number>()
    const attempt = async (parent: number | undefined): Promise<void> => {
      if (parent === undefined || tried.has(parent)) return
      tried.add(parent)
      const encoded = await this.#encodeFrom(parent, raw)
      if (encoded && (!best || encoded.frame.length < best.frame.length)) best = encoded
    }
    const isDone = (size: number) => best !== undefined && best.frame.length <= size
    const before = this.#before(place)
    await attempt(before)
    if (isDone(LARGE)) return best!
    // the chain is full, or the compiler has changed
    if (before !== undefined) await attempt(this.#inBranch(before))
    if (isDone(SMALL)) return best!
    for (const sibling of this.#siblings(place)) await attempt(sibling)
    if (!isDone(LARGE * 2) && !this.#lines.has(place.line)) await attempt(this.#otherLine(place))
    if (!best) await attempt(this.#elsewhere(place))
    if (best) return best
    // plain: a third larger, and read in half the time, which each kernel of its chains takes
    const root = plainDelta(raw)
    const frame = await packFrame(root)
    return { frame, unpacked: root.length, parent: undefined, work: 0 }
  }

  /** Encodes from a parent; undefined if a bound does not allow it, or the result is not one from it. */
  async #encodeFrom(
    parent: number | undefined,
    raw: Uint8Array,
  ): Promise<EncodedMember | undefined> {
    const from = parent === undefined ? undefined : this.members[parent]
    if (!from?.place || from.work + 1 > MAX_WORK) return undefined
    if (this.#offset - from.start > MAX_SPAN) return undefined
    const other = this.#last?.number === parent ? this.#last!.raw : await this.#read(from.record)
    const delta = encodeDelta(raw, other)
    const work = from.work + workOf(delta.length)
    if (work > MAX_WORK || !needsParent(delta)) return undefined
    const frame = await packFrame(delta)
    if (this.#offset + frame.length - from.start > MAX_SPAN) return undefined
    return { frame, unpacked: delta.length, parent, work }
  }

  /** The member before a kernel in its branch; without one, the first after it. */
  #before({ branch, order }: PackPlace): number | undefined {
    const orderOf = (number: number) => this.members[number]!.place!.order
    const others = this.#branches.get(branch) ?? []
    const [before] = others.filter((number) => orderOf(number) < order).sort(descending(orderOf))
    const after = others.filter((number) => orderOf(number) > order).sort(descending(orderOf))
    return before ?? after.at(-1)
  }

  /** The nearest member of the same branch that leaves room for others; without one, that with the least work. */
  #inBranch(number: number): number | undefined {
    const { branch } = this.members[number]!.place!
    const others = this.#branches.get(branch)!.toReversed()
    const workOf = (other: number) => this.members[other]!.work
    const near = others.find((other) => workOf(other) <= PARENT_WORK.branch)
    return near ?? others.sort((a, b) => workOf(a) - workOf(b))[0]
  }

  /** The nearest members of other branches of the line: one of the same distribution and version, and one of others. */
  #siblings(place: PackPlace): number[] {
    const found = new Map<boolean, number>()
    for (const number of this.#lines.get(place.line) ?? []) {
      const member = this.members[number]!
      if (member.place!.branch === place.branch) continue
      if (member.work > PARENT_WORK.sibling || this.#offset - member.start > MAX_SPAN) continue
      const isOwn = member.place!.origin === place.origin
      const other = found.get(isOwn)
      if (
        other === undefined ||
        compareNearness(place, member.place!, this.members[other]!.place!) < 0
      )
        found.set(isOwn, number)
    }
    return [...found.values()]
  }

  /** The first of the nearest other line of the architecture. */
  #otherLine(place: PackPlace): number | undefined {
    let found: number | undefined
    for (const [first] of this.#lines.values()) {
      const { place: other, work, start } = this.members[first!]!
      if (other!.arch !== place.arch || work > PARENT_WORK.line) continue
      if (this.#offset - start > MAX_SPAN) continue
      if (found === undefined || compareNearness(place, other!, this.members[found]!.place!) < 0)
        found = first
    }
    return found
  }

  /** The nearest member of another architecture. */
  #elsewhere(place: PackPlace): number | undefined {
    let found: number | undefined
    for (const [number, { place: other, work, start }] of this.members.entries()) {
      if (!other || work > PARENT_WORK.line) continue
      if (this.#offset - start > MAX_SPAN) continue
      if (found === undefined || compareNearness(place, other, this.members[found]!.place!) < 0)
        found = number
    }
    return found
  }
}

const descending =
  <T>(keyOf: (item: T) => string) =>
  (a: T, b: T): number =>
    keyOf(a) < keyOf(b) ? 1 : -1

function append(lists: Map<string, number[]>, key: string, number: number): void {
  const list = lists.get(key)
  if (list) list.push(number)
  else lists.set(key, [number])
}

/** The work of a step, by the bytes of its delta. */
function workOf(delta: number): number {
  const shuffled = Math.min(delta / SHUFFLED.bytesPerWork, SHUFFLED.most)
  return 1 + Math.max(shuffled, delta / BYTES_PER_WORK)
}
