/*
 * Packs, valid and mutated, and their reader. A mutation changes the rows of the index, the records, or what a frame holds,
 * and mostly makes the digest of the index right again, as a hostile server would. For any bytes the reader gives BTF that
 * has the digest of its member, or `invalid_pack`.
 */
import { readFileSync } from 'node:fs'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { parseBtf } from '../../bpf/index.ts'
import { Pack } from '../../service/pack/pack.ts'
import {
  type BuildRecord,
  openStore,
  PACK_HEADER,
  putRecord,
  StoreError,
  sha256Of,
} from '../../storage/index.ts'
import { littleKernels, wholeKernel } from '../helpers/core.ts'
import { packOf, sourceOf } from '../helpers/packs.ts'
import { btfOf, recordOf } from '../helpers/test-service.ts'
import { mutated } from './archive.ts'
import { Defect, type Visit } from './door.ts'
import type { Random } from './random.ts'

const KERNELS = 5
/** Bytes of a row, and where its numbers are (storage/pack.md). */
const ROW = 48
const [SIZE, PARENT, LENGTH, UNPACKED] = [32, 36, 40, 44]
const NUMBERS = [SIZE, PARENT, LENGTH, UNPACKED]

interface Parts {
  rows: Buffer
  records: Buffer
  frames: Buffer[]
}

const valid = partsOf(await packOfKernels())

async function packOfKernels(): Promise<Buffer> {
  const store = await openStore('memory:')
  const little = parseBtf(readFileSync(littleKernels().get('x86_64')!))
  for (let n = 0; n < KERNELS; n++) {
    const raw = Buffer.from(wholeKernel(little, ['vfs_read', `function_${n}`]).bytes)
    const record: BuildRecord = recordOf(
      { release: `6.1.0-${n}-amd64` },
      { btf: await btfOf(store, raw) },
    )
    await putRecord(store, record)
  }
  return Buffer.concat((await packOf(store)).pieces)
}

function partsOf(pack: Buffer): Parts {
  const [indexSize, count] = [pack.readUInt32LE(8), pack.readUInt32LE(12)]
  const end = PACK_HEADER + indexSize
  const rows = pack.subarray(PACK_HEADER, PACK_HEADER + count * ROW)
  const frames: Buffer[] = []
  for (let [n, at] = [0, end]; n < count; n++) {
    const length = rows.readUInt32LE(n * ROW + LENGTH)
    frames.push(pack.subarray(at, at + length))
    at += length
  }
  return { rows, records: pack.subarray(PACK_HEADER + count * ROW, end), frames }
}

/** A mutated pack; the seed's own numbers decide everything. */
export function mutatedPack(random: Random): Buffer {
  const rows = Buffer.from(valid.rows)
  const frames = [...valid.frames]
  let { records } = valid
  for (let times = 1 + random.below(3); times > 0; times--) {
    const n = random.below(frames.length)
    switch (random.below(5)) {
      case 0: {
        const field = random.pick(NUMBERS)
        rows.writeUInt32LE(numberIn(random, rows), n * ROW + field)
        break
      }
      case 1: {
        const content = mutated(random, zstdDecompressSync(valid.frames[n]!))
        frames[n] = zstdCompressSync(content)
        rows.writeUInt32LE(frames[n].length, n * ROW + LENGTH)
        if (!random.once(4)) rows.writeUInt32LE(content.length, n * ROW + UNPACKED)
        break
      }
      case 2:
        records = zstdCompressSync(mutated(random, zstdDecompressSync(valid.records)))
        break
      case 3:
        rows.copy(rows, n * ROW, random.below(frames.length) * ROW, frames.length * ROW)
        break
      default:
        frames[n] = mutated(random, frames[n]!)
    }
  }
  const index = Buffer.concat([rows, records])
  const header = Buffer.alloc(PACK_HEADER)
  header.write('BTFpack\x01', 'latin1')
  header.writeUInt32LE(index.length, 8)
  header.writeUInt32LE(random.once(20) ? numberIn(random, rows) : frames.length, 12)
  header.write(sha256Of(index), 16, 'hex')
  const pack = Buffer.concat([header, index, ...frames])
  return random.once(8) ? mutated(random, pack) : pack
}

/** A number at a limit, or one of another field. */
function numberIn(random: Random, rows: Buffer): number {
  const limits = [0, 1, 2, 63, 64, 0xffff_ffff, 0xffff_fffe, 2 ** 31, 2 ** 26, 2 ** 26 + 1]
  if (random.once(2)) return random.pick(limits)
  return rows.readUInt32LE(random.below(rows.length / ROW) * ROW + random.pick(NUMBERS))
}

/** Reads all of a pack. Errors: `Defect`. */
export async function visitPack(bytes: Buffer): Promise<Visit[]> {
  const visits: Visit[] = []
  const through = async <T>(door: string, pass: () => Promise<T>): Promise<T | undefined> => {
    try {
      const value = await pass()
      visits.push({ door, outcome: 'value' })
      return value
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== 'invalid_pack')
        throw new Defect(door, error)
      visits.push({ door, outcome: error.code })
      return undefined
    }
  }
  const pack = await through('Pack.open', () => Pack.open(sourceOf(bytes).source))
  if (!pack) return visits
  for (const { key, record } of pack.index.catalog.list())
    if (!record.btf) throw new Defect('Pack.open', new Error(`${key} has no BTF`))
  for (const { sha256 } of pack.index.members) {
    const raw = await through('Pack.read', () => pack.read(sha256))
    if (raw && sha256Of(raw) !== sha256)
      throw new Defect('Pack.read', new Error(`${sha256} has other bytes`))
  }
  await through('Pack.readAll', () => Array.fromAsync(pack.readAll()))
  await through('Pack.hasTrailer', () => pack.hasTrailer())
  return visits
}
