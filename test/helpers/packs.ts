// Packs for tests: series of small kernels that differ a little from each other.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDamaged } from '../../service/bundle/member.ts'
import type { Available } from '../../service/kernel/lookup.ts'
import type { PackSource } from '../../service/pack/pack.ts'
import { makePack, type PackContent } from '../../service/pack/writer.ts'
import {
  blobKey,
  Catalog,
  decodePackHeader,
  getBlob,
  PACK_HEADER,
  packKey,
  putRecord,
  type Store,
  sha256Of,
} from '../../storage/index.ts'
import { btfOf, recordOf } from './test-service.ts'
import { type ImageOptions, makeVmlinux } from './vmlinux.ts'

const bases = new Map<string, Buffer>()

/** The BTF of a small kernel that passes the checks of `import`. */
export function smallBtf(machine: NonNullable<ImageOptions['machine']> = 'i386'): Buffer {
  const known = bases.get(machine)
  if (known) return known
  const directory = mkdtempSync(join(tmpdir(), 'pack-'))
  makeVmlinux(join(directory, 'vmlinux'), { machine })
  const [vmlinux, btf] = [join(directory, 'vmlinux'), join(directory, 'btf')]
  execFileSync('pahole', [`--btf_encode_detached=${btf}`, vmlinux])
  const base = readFileSync(btf)
  bases.set(machine, base)
  rmSync(directory, { recursive: true })
  return base
}

/** BTF with a string section of its own: the nth kernel of a series, with n strings more than the first. */
export function nthBtf(n: number): Buffer {
  const raw = smallBtf()
  const added = Buffer.from(Array.from({ length: n }, (_, i) => `added_in_${i}\0`).join(''))
  const result = Buffer.concat([raw, added])
  result.writeUInt32LE(raw.readUInt32LE(20) + added.length, 20)
  return result
}

/** Puts a series of kernels into a store, and returns their records. */
export async function putSeries(
  store: Store,
  count: number,
  { distro = 'debian', flavour = 'amd64', from = 0 } = {},
): Promise<Available[]> {
  const records: Available[] = []
  for (let n = 0; n < count; n++) {
    const btf = await btfOf(store, nthBtf(from + n))
    const record = recordOf(
      { distro, version: '12', release: `6.1.0-${n + 1}-${flavour}` },
      { btf },
    )
    await putRecord(store, record)
    records.push(record as Available)
  }
  return records
}

/** Packs all kernels of a store. */
export async function packOf(store: Store): Promise<PackContent> {
  const all = [...(await Catalog.open(store)).list()].map(({ record }) => record)
  const records = all.filter((record): record is Available => record.btf !== undefined)
  return await makePack(records, ({ btf }) => getBlob(store, btf.sha256), isDamaged)
}

/** A pack in memory that gives its bytes in small pieces, and remembers the ranges that were asked for. */
export function sourceOf(bytes: Buffer, piece = 1000) {
  const ranges: { start: number; read: number }[] = []
  const source: PackSource = {
    async read(start, end, take) {
      const range = { start, read: 0 }
      ranges.push(range)
      async function* pieces() {
        for (let at = start; at < Math.min(end, bytes.length); at += piece) {
          const part = bytes.subarray(at, Math.min(at + piece, end))
          range.read += part.length
          yield part
        }
      }
      return await take(pieces())
    },
  }
  return { source, ranges }
}

/** Where the frames of a pack begin. */
export const framesAt = (pack: Buffer): number => PACK_HEADER + decodePackHeader(pack).indexSize

/** Writes a pack of a store's kernels to a file, and returns its bytes. */
export async function writePackOf(store: Store, path: string): Promise<Buffer> {
  const bytes = Buffer.concat((await packOf(store)).pieces)
  writeFileSync(path, bytes)
  return bytes
}

/** Puts a pack of a store's kernels into the store, and returns its digest. */
export async function putPackOf(store: Store): Promise<string> {
  const bytes = Buffer.concat((await packOf(store)).pieces)
  await store.put(packKey(sha256Of(bytes)), bytes)
  return sha256Of(bytes)
}

/** Moves a store's kernels into a pack: their blobs are gone. Returns its digest. */
export async function packStore(store: Store): Promise<string> {
  const digest = await putPackOf(store)
  for (const { record } of (await Catalog.open(store)).list())
    if (record.btf) await store.delete(blobKey(record.btf.sha256))
  return digest
}
