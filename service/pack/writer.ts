/*
 * Writes packs. Kernels are in the order of their series, and each is encoded from a parent that makes it small: the one
 * before it in its series; for the first of a series, the best of a few from other series. Two bounds keep a kernel quick
 * to read: the work of its chain, and the range of the file that covers it. Frames are kept in memory until the index is
 * known. The same kernels give the same bytes.
 *
 * A pack can be continued: a new one begins with all frames of the old one, in their order, so that whoever has the old
 * one needs only the rest.
 */
import { encodeDelta, needsParent } from '../../bpf/index.ts'
import {
  type BuildRecord,
  encodePackIndex,
  MAX_PACK_MEMBER,
  type PackMember,
  packFrame,
  seriesOf,
  sortableRelease,
} from '../../storage/index.ts'
import type { Available } from '../kernel/lookup.ts'

/** The most work of a chain. A step is 1, and more the larger its delta is: the times of real deltas, measured. */
const MAX_WORK = 32
/** Unpacked bytes of a delta that make a step's work 1 more, and the most that they make it. */
const BYTES_PER_WORK = 16 * 1024
const MAX_BYTES_WORK = 6
/** The work of a parent if the kernel before has too much, and of a parent in another series. */
const LESS_WORK = 22
const FIRST_WORK = 14
/** Bytes of a range that covers a chain. */
const MAX_SPAN = 16 * 1024 * 1024
/** Other series that the first of a series is tried with. */
const CANDIDATES = 3

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
  for (const record of inSeries(records)) {
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

/** Sorts by series, and in a series by release. */
export function inSeries(records: readonly Available[]): Available[] {
  const keyed = records.map((record) => ({ record, key: orderOf(record) }))
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ record }) => record)
}

/** A text that sorts by series, and in a series by release. */
function orderOf({ kernel, package: from, btf }: Available): string {
  const release = [sortableRelease(kernel.release), sortableRelease(from.version), btf.sha256]
  return [seriesOf(kernel), ...release].join('\0')
}

/** What a pack has of a record. */
function contentOf(record: BuildRecord): BuildRecord {
  const { modules: _, wantedModules: __, moduleFailures: ___, ...rest } = record
  const { symbols: ____, inlinedFailure: _____, failure: ______, ...content } = rest
  return content
}

interface PlacedMember extends Omit<PackMember, 'offset'> {
  record: Available
  /** its place among the kernels of its series */
  order: string
  series: string
  work: number
  /** bytes of all frames before this one */
  offset: number
  /** where its chain begins */
  start: number
  /** whether others may continue it */
  isParent: boolean
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
  /** numbers of members, by series */
  readonly #series = new Map<string, number[]>()
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
      const { sha256, size, parent, length, unpacked } = member
      const record = recordOf(sha256)
      const above = parent === undefined ? undefined : this.members[parent]!
      this.members.push({
        ...member,
        record: record!,
        order: record ? orderOf(record) : '',
        series: record ? seriesOf(record.kernel) : '',
        work: above ? above.work + workOf(unpacked) : 0,
        offset: this.#offset,
        start: above?.start ?? this.#offset,
        isParent: record !== undefined && (parent !== undefined || unpacked < size),
      })
      this.frames.push(frames[number]!)
      this.#digests.add(sha256)
      this.#offset += length
      if (record) this.#place(number)
    }
  }

  /** The pack in pieces, with these records: those of its members. Errors: `invalid_pack` for too large an index. */
  async finish(records: readonly BuildRecord[]): Promise<Buffer[]> {
    return [await encodePackIndex(this.members, records.map(contentOf)), ...this.frames]
  }

  #place(number: number): void {
    const { series } = this.members[number]!
    const others = this.#series.get(series)
    if (others) others.push(number)
    else this.#series.set(series, [number])
  }

  /** Adds a kernel, unless its BTF is there. Errors: `RangeError` for too much BTF; those of `read`. */
  async add(record: Available): Promise<void> {
    const { sha256, size } = record.btf
    if (this.#digests.has(sha256)) return
    if (size > MAX_PACK_MEMBER)
      throw new RangeError(`${size} bytes of BTF: expected at most ${MAX_PACK_MEMBER}`)
    const raw = await this.#read(record)
    const series = seriesOf(record.kernel)
    const order = orderOf(record)
    const { frame, unpacked, parent, work } = await this.#encode(raw, series, order)
    const number = this.members.length
    this.members.push({
      ...{ sha256, size, parent, length: frame.length, unpacked },
      ...{ record, order, series, work, offset: this.#offset },
      start: parent === undefined ? this.#offset : this.members[parent]!.start,
      // BTF that is stored plain can be no parent
      isParent: parent !== undefined || unpacked < size,
    })
    this.frames.push(frame)
    this.#digests.add(sha256)
    this.#offset += frame.length
    this.#last = { number, raw }
    this.#place(number)
  }

  async #encode(raw: Uint8Array, series: string, order: string): Promise<EncodedMember> {
    const before = this.#neighbour(series, order)
    if (before !== undefined) {
      const next = await this.#encodeFrom(before, raw)
      if (next) return next
      const higher = await this.#encodeFrom(this.#ancestor(before, LESS_WORK), raw)
      if (higher) return higher
    }
    let best: EncodedMember | undefined
    for (const candidate of this.#candidates(series)) {
      const encoded = await this.#encodeFrom(candidate, raw)
      if (encoded && (!best || encoded.frame.length < best.frame.length)) best = encoded
    }
    if (best) return best
    const root = encodeDelta(raw)
    const frame = await packFrame(root)
    return { frame, unpacked: root.length, parent: undefined, work: 0 }
  }

  /** Encodes from a parent; undefined if a bound does not allow it, or the result is not one from it. */
  async #encodeFrom(
    parent: number | undefined,
    raw: Uint8Array,
  ): Promise<EncodedMember | undefined> {
    const from = parent === undefined ? undefined : this.members[parent]
    if (!from?.isParent || from.work + 1 > MAX_WORK) return undefined
    if (this.#offset - from.start > MAX_SPAN) return undefined
    const other = this.#last?.number === parent ? this.#last!.raw : await this.#read(from.record)
    const delta = encodeDelta(raw, other)
    const work = from.work + workOf(delta.length)
    if (work > MAX_WORK || !needsParent(delta)) return undefined
    const frame = await packFrame(delta)
    if (this.#offset + frame.length - from.start > MAX_SPAN) return undefined
    return { frame, unpacked: delta.length, parent, work }
  }

  /** The member before a kernel in its series; without one, the first after it. */
  #neighbour(series: string, order: string): number | undefined {
    let [before, after]: (number | undefined)[] = []
    for (const number of this.#series.get(series) ?? []) {
      const other = this.members[number]!.order
      if (other < order && (before === undefined || other > this.members[before]!.order))
        before = number
      if (other > order && (after === undefined || other < this.members[after]!.order))
        after = number
    }
    return before ?? after
  }

  /** The member itself, or the nearest in its chain with no more work than this. */
  #ancestor(number: number, work: number): number | undefined {
    let at: number | undefined = number
    while (at !== undefined && this.members[at]!.work > work) at = this.members[at]!.parent
    return at
  }

  /** Members of the last other series, preferably of the same architecture. */
  #candidates(series: string): number[] {
    const arch = archOf(series)
    const found: number[] = []
    let above = series
    for (let i = this.members.length - 1; i >= 0 && found.length < CANDIDATES; i--) {
      const member = this.members[i]!
      if (!member.isParent || member.series === above || member.series === series) continue
      if (this.#offset - member.start > MAX_SPAN) continue
      above = member.series
      if (archOf(above) !== arch && found.length > 0) break
      const ancestor = this.#ancestor(i, FIRST_WORK)
      if (ancestor !== undefined && !found.includes(ancestor)) found.push(ancestor)
      if (archOf(above) !== arch) break
    }
    return found
  }
}

const archOf = (series: string): string => series.slice(0, series.indexOf('\0'))

const workOf = (delta: number): number => 1 + Math.min(delta / BYTES_PER_WORK, MAX_BYTES_WORK)
