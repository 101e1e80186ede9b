// BTF of a store that is in a pack: found when its blob is gone, in new packs too, and around damage.
import t from 'tap'
import {
  blobKey,
  Catalog,
  getBlob,
  openStore,
  packKey,
  packsOf,
  publishArchive,
  putBlob,
  readStoredBytes,
  type Store,
  StoreError,
  sha256Of,
} from '../../storage/index.ts'
import { digestOfPack, isObjectKey } from '../../storage/name.ts'
import { framesAt, nthBtf, packStore, putPackOf, putSeries } from '../helpers/packs.ts'
import { storeError } from '../helpers/store-contract.ts'

async function packed(t: { same: (a: unknown, b: unknown) => unknown }, count = 4) {
  const store = await openStore('memory:')
  const records = await putSeries(store, count)
  const digest = await packStore(store)
  t.same((await Array.fromAsync(store.list('blobs/'))).length, 0)
  return { store, records, digest, digests: records.map(({ btf }) => btf.sha256) }
}

/** The keys and ranges that are read from a store from now on. */
function watch(store: Store): string[] {
  const reads: string[] = []
  const [get, list] = [store.get.bind(store), store.list.bind(store)]
  store.get = (key, range) => {
    reads.push(`get ${key.split('/')[0]}`)
    return get(key, range)
  }
  store.list = (prefix) => {
    reads.push(`list ${prefix}`)
    return list(prefix)
  }
  return reads
}

async function bytesOf(store: Store, key: string): Promise<Buffer> {
  return Buffer.concat(await (await store.get(key)).body.toArray())
}

t.test('a pack has the key of its digest, and no other', async (t) => {
  const digest = 'ab'.repeat(32)
  t.equal(packKey(digest), `packs/${digest}.btfpack`)
  t.equal(digestOfPack(packKey(digest)), digest)
  t.ok(isObjectKey(packKey(digest)))
  for (const key of ['packs/x.btfpack', `packs/${digest}`, `packs/${digest.toUpperCase()}.btfpack`])
    t.equal(digestOfPack(key), undefined, key)
  for (const name of ['', 'AB'.repeat(32), '../x'])
    t.throws(() => packKey(name), storeError('invalid_key'))
})

t.test('BTF without a blob is read from a pack, with two ranges', async (t) => {
  const { store, digests } = await packed(t)
  const reads = watch(store)
  t.equal(sha256Of(await getBlob(store, digests[2]!)), digests[2])
  t.same(reads, ['get blobs', 'list packs/', 'get packs', 'get packs'])
  reads.length = 0
  t.equal(sha256Of(await getBlob(store, digests[3]!)), digests[3])
  t.same(reads, ['get blobs', 'get packs'], 'the index is known')
  const form = await readStoredBytes(store, digests[1]!)
  t.ok('packed' in form && form.packed.steps.length === 2, 'the steps, for a thread')
})

t.test('a blob wins over a pack, unless it is damaged', async (t) => {
  const { store, digests } = await packed(t)
  await putBlob(store, nthBtf(1))
  const reads = watch(store)
  t.equal(sha256Of(await getBlob(store, digests[1]!)), digests[1])
  t.same(reads, ['get blobs'])
  await store.put(blobKey(digests[1]!), Buffer.from('damaged'))
  t.equal(sha256Of(await getBlob(store, digests[1]!)), digests[1])
})

t.test('BTF that neither a blob nor a pack has is not found', async (t) => {
  const { store } = await packed(t)
  await t.rejects(getBlob(store, '0'.repeat(64)), storeError('not_found'))
  await t.rejects(getBlob(await openStore('memory:'), '0'.repeat(64)), storeError('not_found'))
})

t.test('BTF that another process moves to a pack is found at once', async (t) => {
  const store = await openStore('memory:')
  const records = await putSeries(store, 3)
  t.equal(await packsOf(store).has('0'.repeat(64)), false, 'the packs are known now')
  const first = await packStore(store)
  t.equal(sha256Of(await getBlob(store, records[0]!.btf.sha256)), records[0]!.btf.sha256)
  await putSeries(store, 4)
  t.not(await packStore(store), first)
  await store.delete(packKey(first))
  for (const n of [0, 3])
    t.equal(
      sha256Of(await getBlob(store, sha256Of(nthBtf(n)))),
      sha256Of(nthBtf(n)),
      'the first pack is gone',
    )
})

t.test('a damaged pack is an error of its kernels, and another pack is used instead', async (t) => {
  const { store, digest, digests } = await packed(t)
  const whole = await bytesOf(store, packKey(digest))
  const damaged = Buffer.from(whole)
  damaged[whole.length - 10]! ^= 0xff
  await store.put(packKey(digest), damaged)
  t.equal(sha256Of(await getBlob(store, digests[0]!)), digests[0], 'members before it are whole')
  await t.rejects(getBlob(store, digests[3]!), storeError('digest_mismatch'))
  await store.put(packKey(digest), whole.subarray(0, framesAt(whole) + 10))
  await t.rejects(getBlob(store, digests[0]!), storeError('digest_mismatch'))
  for (const junk of [Buffer.alloc(0), Buffer.from('junk'), whole.subarray(0, 30)]) {
    const other = packKey(sha256Of(junk))
    await store.put(other, junk)
    await packsOf(store).refresh()
    t.same(
      packsOf(store)
        .unusable()
        .map(({ info, error }) => [info.key, error instanceof StoreError]),
      [[other, true]],
    )
    await store.delete(other)
  }
  for (let n = 0; n < 4; n++) await putBlob(store, nthBtf(n))
  await putSeries(store, 5)
  await putPackOf(store)
  for (const sha256 of digests) await store.delete(blobKey(sha256))
  for (const sha256 of digests) t.equal(sha256Of(await getBlob(store, sha256)), sha256)
})

t.test('an archive tree is made of packed kernels', async (t) => {
  const { store } = await packed(t)
  t.equal(await publishArchive(store, await Catalog.open(store)), 4)
})

t.test('a refresh never joins one that began before it', async (t) => {
  const { store } = await packed(t)
  const reads = watch(store)
  const packs = packsOf(store)
  await Promise.all([packs.refresh(), packs.refresh(), packs.refresh()])
  t.equal(reads.filter((read) => read === 'list packs/').length, 2)
})
