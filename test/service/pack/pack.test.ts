// Packs: what is packed comes back, with two ranges; a damaged or hostile pack is an error.
import { createHash } from 'node:crypto'
import t from 'tap'
import { Pack } from '../../../service/pack/pack.ts'
import {
  encodePackIndex,
  openStore,
  type PackMember,
  StoreError,
  sha256Of,
} from '../../../storage/index.ts'
import { framesAt, packOf, putSeries, sourceOf } from '../../helpers/packs.ts'
import { recordOf } from '../../helpers/test-service.ts'

const store = await openStore('memory:')
const records = [
  ...(await putSeries(store, 40)),
  ...(await putSeries(store, 3, { flavour: 'rt-amd64', from: 60 })),
  ...(await putSeries(store, 2, { distro: 'ubuntu', from: 70 })),
]
const content = await packOf(store)
const bytes = Buffer.concat(content.pieces)

const open = (pack: Buffer) => Pack.open(sourceOf(pack).source)
const invalid = (message: RegExp) => ({ code: 'invalid_pack', message })

t.test('a pack gives every kernel back byte for byte, with at most two ranges', async (t) => {
  t.match(content, { kernels: 45, leftOut: [], size: bytes.length })
  for (const { btf } of records) {
    const { source, ranges } = sourceOf(bytes)
    const pack = await Pack.open(source)
    t.equal(sha256Of(await pack.read(btf.sha256)), btf.sha256)
    t.equal(ranges.length, 2)
    t.ok(ranges[0]!.read < framesAt(bytes) + 1000, 'reading ends with the index')
  }
  const raw = records.reduce((sum, { btf }) => sum + btf.size, 0)
  t.ok((bytes.length - framesAt(bytes)) * 5 < raw, 'kernels share what they have in common')
})

t.test('a pack read as a whole has all members in order, and nothing behind them', async (t) => {
  const pack = await open(bytes)
  const read = await Array.fromAsync(pack.readAll())
  t.same(
    read.map(
      ({ member, result }) => result instanceof Buffer && sha256Of(result) === member.sha256,
    ),
    records.map(() => true),
  )
  t.equal(pack.index.size, bytes.length)
  t.equal(await pack.hasTrailer(), false)
  t.equal(await (await open(Buffer.concat([bytes, Buffer.of(0)]))).hasTrailer(), true)
})

t.test('no chain has more than 33 members, and its range covers its frames', async (t) => {
  const { members } = (await open(bytes)).index
  const depths: number[] = []
  for (const { parent } of members) depths.push(parent === undefined ? 1 : depths[parent]! + 1)
  t.ok(Math.max(...depths) <= 33, `${Math.max(...depths)}`)
  t.equal(depths.filter((depth) => depth === 1).length, 1, 'one root')
})

t.test('the same kernels give the same file, and equal BTF is stored once', async (t) => {
  const again = await openStore('memory:')
  await putSeries(again, 2)
  await putSeries(again, 2, { distro: 'kali' })
  const pack = Buffer.concat((await packOf(again)).pieces)
  t.same(pack, Buffer.concat((await packOf(again)).pieces))
  const { members, catalog } = (await open(pack)).index
  t.same([members.length, catalog.size], [2, 4])
})

t.test('an unknown digest is not found', async (t) => {
  const pack = await open(bytes)
  await t.rejects(pack.read('0'.repeat(64)), { code: 'not_found' })
})

t.test('BTF that cannot be read is left out, and the other kernels are packed', async (t) => {
  const partial = await openStore('memory:')
  const [first] = await putSeries(partial, 3)
  const { sha256 } = first!.btf
  await partial.delete(`blobs/${sha256.slice(0, 2)}/${sha256}.btf.zst`)
  const { kernels, leftOut } = await packOf(partial)
  t.equal(kernels, 2)
  t.match(leftOut, [{ record: first, error: { code: 'not_found' } }])
})

t.test('a damaged frame stops the kernels that continue it, and no others', async (t) => {
  const damaged = Buffer.from(bytes)
  const { members } = (await open(bytes)).index
  const { offset, length } = members[20]!
  damaged.fill(0, offset + 8, offset + length)
  const pack = await open(damaged)
  const isGood = members.map((_, number) => {
    for (let at: number | undefined = number; at !== undefined; at = members[at]!.parent)
      if (at === 20) return false
    return true
  })
  t.ok(isGood.includes(true) && isGood.indexOf(true, 21) > 0)
  const results: boolean[] = []
  for await (const { result } of pack.readAll()) {
    results.push(!(result instanceof StoreError))
    if (result instanceof StoreError) t.equal(result.code, 'invalid_pack')
  }
  t.same(results, isGood)
  await t.rejects(pack.read(members[20]!.sha256), invalid(/does not decompress/))
})

t.test('a pack that is cut off anywhere is an error', async (t) => {
  const last = (await open(bytes)).index.members.at(-1)!
  for (const size of [0, 7, 47, 48, framesAt(bytes) - 1])
    await t.rejects(open(bytes.subarray(0, size)), invalid(/cut off|begin/), String(size))
  for (const size of [framesAt(bytes), bytes.length - 1]) {
    const pack = await open(bytes.subarray(0, size))
    await t.rejects(pack.read(last.sha256), invalid(/ends at byte/), String(size))
  }
})

t.test('a pack of another version, or with a damaged index, is an error', async (t) => {
  const changed = (at: number, value: number) => {
    const copy = Buffer.from(bytes)
    copy[at] = value
    return copy
  }
  await t.rejects(open(changed(0, 0)), invalid(/begin with "BTFpack"/))
  await t.rejects(open(changed(7, 2)), invalid(/version is 2: expected 1/))
  await t.rejects(open(changed(11, 255)), invalid(/index has \d+ bytes: expected at most/))
  await t.rejects(open(changed(15, 255)), invalid(/\d+ members in an index/))
  await t.rejects(open(changed(framesAt(bytes) - 1, 0xfe)), invalid(/does not have its SHA-256/))
})

type Row = Omit<PackMember, 'offset'>

/** A pack whose rows are as its author likes. */
async function packWith(rows: readonly Row[], frames = Buffer.alloc(0)): Promise<Buffer> {
  return Buffer.concat([await encodePackIndex(rows, []), frames])
}

const row: Row = {
  ...{ sha256: 'ab'.repeat(32), size: 100 },
  ...{ parent: undefined, length: 100, unpacked: 100 },
}
const MiB = 1024 * 1024

t.test('hostile rows are refused before anything is read', async (t) => {
  const cases: [readonly Row[], RegExp][] = [
    [[{ ...row, parent: 0 }], /continues member 0: expected an earlier/],
    [[row, { ...row, parent: 7 }], /continues member 7/],
    [[{ ...row, size: 65 * MiB }], /has 68157440 bytes/],
    [[{ ...row, length: 0xffff_ffff }], /has 4294967295 bytes/],
    [[{ ...row, length: 0 }], /member 0 has no frame/],
    [[{ ...row, unpacked: 65 * MiB }], /has 68157440 bytes/],
    [
      Array.from({ length: 65 }, (_, i) => ({ ...row, parent: i > 0 ? i - 1 : undefined })),
      /chain of member 64 has over 64/,
    ],
    [
      Array.from({ length: 3 }, (_, i) => ({
        ...row,
        ...(i > 0 && { parent: 0 }),
        length: 60 * MiB,
      })),
      /chain of member 2 takes over/,
    ],
    [
      Array.from({ length: 3 }, (_, i) => ({
        ...row,
        ...(i > 0 && { parent: i - 1 }),
        unpacked: 60 * MiB,
      })),
      /chain of member 2 takes over/,
    ],
  ]
  for (const [rows, message] of cases) await t.rejects(packWith(rows).then(open), invalid(message))
})

t.test('a record without a member, or of another size, is refused', async (t) => {
  const btf = { ...records[0]!.btf, sha256: row.sha256 }
  for (const record of [recordOf({}), recordOf({}, { btf })])
    await t.rejects(encodePackIndex([row], [record]).then(open), invalid(/no member is the BTF of/))
})

t.test('a frame that unpacks to more than its row says is refused', async (t) => {
  const rows = (await open(bytes)).index.members
  const frames = bytes.subarray(framesAt(bytes))
  for (const difference of [-1, 1]) {
    const lying = rows.map((member) => ({ ...member, unpacked: member.unpacked + difference }))
    const pack = await open(await packWith(lying, frames))
    await t.rejects(pack.read(rows[0]!.sha256), { code: 'invalid_pack' })
  }
})

t.test('a member that is not what its row names is refused', async (t) => {
  const rows = (await open(bytes)).index.members
  const frames = bytes.subarray(framesAt(bytes))
  const lying = await open(await packWith([{ ...rows[0]!, sha256: row.sha256 }], frames))
  await t.rejects(lying.read(row.sha256), invalid(/has the SHA-256/))
  const orphan = rows.map(({ parent: _, ...member }) => ({ ...member, parent: undefined }))
  const pack = await open(await packWith(orphan, frames))
  await t.rejects(pack.read(rows[1]!.sha256), invalid(/made for a parent/))
})

t.test('the index holds what storage/pack.md says', async (t) => {
  t.equal(bytes.toString('latin1', 0, 7), 'BTFpack')
  const index = bytes.subarray(48, 48 + bytes.readUInt32LE(8))
  t.same(createHash('sha256').update(index).digest(), bytes.subarray(16, 48))
  t.equal(bytes.readUInt32LE(12), records.length)
  t.equal(index.readUInt32LE(36), 0xffff_ffff, 'the first member has no parent')
  const lengths = records.map((_, i) => index.readUInt32LE(i * 48 + 40))
  t.equal(
    lengths.reduce((sum, length) => sum + length, 48 + index.length),
    bytes.length,
  )
})
