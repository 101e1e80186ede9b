/*
 * The container of a pack: a header, an index, and members one after another. pack.md specifies it. What a member holds is
 * not known here: a frame of zstd, and the number of the member that it continues. Nothing in a pack is trusted: counts,
 * lengths and depths are checked before anything is allocated for them.
 */
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdDecompress } from 'node:zlib'
import { Catalog } from './catalog.ts'
import { StoreError } from './error.ts'
import { buildOf, recordKey } from './name.ts'
import type { BuildRecord } from './record.ts'
import type { RecordEntry } from './records.ts'
import { decodeSnapshot, encodeSnapshot } from './snapshot.ts'

/** `BTFpack` and the version of the format. */
const MAGIC = Buffer.from('BTFpack\x01', 'latin1')
/** Bytes of the header, and of a member's row in the index. */
export const PACK_HEADER = 48
const ROW = 48
/** A row's parent if there is none. */
const NO_PARENT = 0xffff_ffff
/** The largest index, in bytes: about 200 000 kernels. */
export const MAX_PACK_INDEX = 64 * 1024 * 1024
/** The largest text of the records, in bytes. */
const MAX_RECORDS = 256 * 1024 * 1024
/** The largest member, compressed, unpacked and rebuilt, in bytes; that of a delta's result, too. */
export const MAX_PACK_MEMBER = 64 * 1024 * 1024
/** The largest range of bytes that covers a chain, and the largest sum of its unpacked frames. */
const MAX_SPAN = 128 * 1024 * 1024
/** The most members of a chain. */
const MAX_CHAIN = 64

/** A member: its result, and its place in the pack. */
export interface PackMember {
  /** hex, of the result: the raw BTF */
  sha256: string
  /** bytes of the result */
  size: number
  /** number of an earlier member that this one continues; undefined for a root */
  parent: number | undefined
  /** bytes of the frame, and where it begins in the file */
  length: number
  offset: number
  /** bytes of the decompressed frame */
  unpacked: number
}

export interface PackIndex {
  members: readonly PackMember[]
  /** the kernels whose BTF the members are */
  catalog: Catalog
  /** bytes of the whole pack */
  size: number
}

/** What the header of a pack says. */
export interface PackHeader {
  /** bytes of the index, which follows the header */
  indexSize: number
  members: number
  /** SHA-256 of the index */
  digest: Buffer
}

/** The error of a pack that is damaged, cut off, over a limit or of an unknown version. */
export const invalidPack = (message: string, cause?: unknown): StoreError =>
  new StoreError('invalid_pack', `invalid pack: ${message}`, { cause })

/** Tells whether a file with these first bytes is a pack, of any version. */
export const isPack = (start: Uint8Array): boolean =>
  Buffer.from(start).subarray(0, 7).equals(MAGIC.subarray(0, 7))

/** Encodes the header and the index. The members' frames follow in this order. */
export async function encodePackIndex(
  members: readonly Omit<PackMember, 'offset'>[],
  records: readonly BuildRecord[],
): Promise<Buffer> {
  const rows = Buffer.alloc(members.length * ROW)
  members.forEach(({ sha256, size, parent, length, unpacked }, i) => {
    rows.write(sha256, i * ROW, 'hex')
    rows.writeUInt32LE(size, i * ROW + 32)
    rows.writeUInt32LE(parent ?? NO_PARENT, i * ROW + 36)
    rows.writeUInt32LE(length, i * ROW + 40)
    rows.writeUInt32LE(unpacked, i * ROW + 44)
  })
  const entries = records.map((record) => ({
    key: recordKey(record.kernel, buildOf(record)),
    etag: '',
    record,
  }))
  entries.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)))
  const index = Buffer.concat([rows, await encodeSnapshot(entries)])
  if (index.length > MAX_PACK_INDEX)
    throw invalidPack(`the index has ${index.length} bytes: expected at most ${MAX_PACK_INDEX}`)
  const header = Buffer.alloc(PACK_HEADER)
  MAGIC.copy(header)
  header.writeUInt32LE(index.length, 8)
  header.writeUInt32LE(members.length, 12)
  createHash('sha256').update(index).digest().copy(header, 16)
  return Buffer.concat([header, index])
}

/** Decodes the first `PACK_HEADER` bytes. Errors: `invalid_pack`. */
export function decodePackHeader(bytes: Buffer): PackHeader {
  if (!isPack(bytes)) throw invalidPack('it does not begin with "BTFpack"')
  if (bytes.length < PACK_HEADER) throw invalidPack('the header is cut off')
  if (bytes[7] !== MAGIC[7]) throw invalidPack(`its version is ${bytes[7]}: expected ${MAGIC[7]}`)
  const indexSize = bytes.readUInt32LE(8)
  const members = bytes.readUInt32LE(12)
  if (indexSize > MAX_PACK_INDEX)
    throw invalidPack(`the index has ${indexSize} bytes: expected at most ${MAX_PACK_INDEX}`)
  if (members * ROW > indexSize)
    throw invalidPack(`${members} members in an index of ${indexSize} bytes`)
  return { indexSize, members, digest: bytes.subarray(16, PACK_HEADER) }
}

/** Decodes the index of a header. Errors: `invalid_pack`. */
export async function decodePackIndex(header: PackHeader, bytes: Buffer): Promise<PackIndex> {
  const members = decodePackMembers(header, bytes)
  const entries = await decodeRecords(bytes.subarray(header.members * ROW), members)
  const last = members.at(-1)
  const size = last ? last.offset + last.length : PACK_HEADER + header.indexSize
  return { members, catalog: Catalog.of(entries), size }
}

/** Decodes the members of an index, and leaves its records as they are. Errors: `invalid_pack`. */
export function decodePackMembers(
  { indexSize, members: count, digest }: PackHeader,
  bytes: Buffer,
): PackMember[] {
  if (bytes.length !== indexSize) throw invalidPack('the index is cut off')
  if (!createHash('sha256').update(bytes).digest().equals(digest))
    throw invalidPack('the index does not have its SHA-256')
  return decodeRows(bytes.subarray(0, count * ROW), PACK_HEADER + indexSize)
}

function decodeRows(rows: Buffer, start: number): PackMember[] {
  const members: PackMember[] = []
  /** of each member: where its chain begins, and the members and unpacked bytes of it */
  const chains: { start: number; length: number; unpacked: number }[] = []
  let offset = start
  for (let at = 0; at < rows.length; at += ROW) {
    const number = members.length
    const parent = rows.readUInt32LE(at + 36)
    const member: PackMember = {
      sha256: rows.toString('hex', at, at + 32),
      size: rows.readUInt32LE(at + 32),
      parent: parent === NO_PARENT ? undefined : parent,
      length: rows.readUInt32LE(at + 40),
      offset,
      unpacked: rows.readUInt32LE(at + 44),
    }
    for (const name of ['size', 'length', 'unpacked'] as const)
      if (member[name] > MAX_PACK_MEMBER)
        throw invalidPack(`member ${number} has ${member[name]} bytes: at most ${MAX_PACK_MEMBER}`)
    if (member.length === 0) throw invalidPack(`member ${number} has no frame`)
    if (member.parent !== undefined && member.parent >= number)
      throw invalidPack(`member ${number} continues member ${member.parent}: expected an earlier`)
    const before = member.parent === undefined ? undefined : chains[member.parent]
    const chain = {
      start: before?.start ?? offset,
      length: (before?.length ?? 0) + 1,
      unpacked: (before?.unpacked ?? 0) + member.unpacked,
    }
    offset += member.length
    if (chain.length > MAX_CHAIN)
      throw invalidPack(`the chain of member ${number} has over ${MAX_CHAIN} members`)
    if (offset - chain.start > MAX_SPAN || chain.unpacked > MAX_SPAN)
      throw invalidPack(`the chain of member ${number} takes over ${MAX_SPAN} bytes`)
    members.push(member)
    chains.push(chain)
  }
  return members
}

async function decodeRecords(
  bytes: Buffer,
  members: readonly PackMember[],
): Promise<RecordEntry[]> {
  const { entries } = await decodeSnapshot(bytes, MAX_RECORDS).catch((cause: Error) => {
    throw invalidPack(cause.message, cause)
  })
  const sizes = new Map(members.map(({ sha256, size }) => [sha256, size]))
  for (const { key, record } of entries)
    if (!record.btf || sizes.get(record.btf.sha256) !== record.btf.size)
      throw invalidPack(`no member is the BTF of ${key}`)
  return entries
}

/** Compresses a member's content as its frame. */
export async function packFrame(content: Uint8Array): Promise<Buffer> {
  const params = {
    [constants.ZSTD_c_compressionLevel]: 19,
    [constants.ZSTD_c_windowLog]: 23,
  }
  return await promisify(zstdCompress)(content, { params, pledgedSrcSize: content.length })
}

/** Decompresses a member's frame. Errors: `invalid_pack`. */
export async function unpackFrame(
  frame: Uint8Array,
  { unpacked }: Pick<PackMember, 'unpacked'>,
): Promise<Buffer> {
  // one buffer for all; the spare bytes keep zlib from allocating another
  const options = {
    maxOutputLength: Math.max(unpacked, 1),
    chunkSize: Math.min(unpacked + 64, 16 * 1024 * 1024),
    params: { [constants.ZSTD_d_windowLogMax]: 26 },
  }
  const content = await promisify(zstdDecompress)(frame, options).catch((cause: Error) => {
    throw invalidPack(`a member does not decompress: ${cause.message}`, cause)
  })
  if (content.length !== unpacked)
    throw invalidPack(`a member has ${content.length} bytes decompressed: expected ${unpacked}`)
  return content
}
