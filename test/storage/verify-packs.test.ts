// Packs of a store in verify, repair and garbage collection: nothing that a record needs is lost.
import t from 'tap'
import {
  archiveKey,
  blobKey,
  Catalog,
  collectGarbage,
  getBlob,
  openStore,
  packKey,
  packsOf,
  publishArchive,
  putBlob,
  type Store,
  sha256Of,
  verifyStore,
} from '../../storage/index.ts'
import { quarantineKey, recordKey } from '../../storage/name.ts'
import { framesAt, nthBtf, packStore, putPackOf, putSeries } from '../helpers/packs.ts'
import { keysOf, storeError } from '../helpers/store-contract.ts'

const NOW = new Date(Date.now() + 48 * 3600 * 1000)

async function packed(count = 4) {
  const store = await openStore('memory:')
  const records = await putSeries(store, count)
  const digest = await packStore(store)
  await Catalog.publish(store)
  return { store, records, digest, digests: records.map(({ btf }) => btf.sha256) }
}

const bytesOf = async (store: Store, key: string): Promise<Buffer> =>
  Buffer.concat(await (await store.get(key)).body.toArray())

async function findings(store: Store, repair = false) {
  const found = await Array.fromAsync(verifyStore(store, { repair }))
  return found
    .filter(({ behind }) => !behind)
    .map(({ code, key, repaired, due }) => {
      return [code, key.split('/')[0], ...(repaired ? ['repaired'] : []), ...(due ? [due] : [])]
    })
}

/** Damages the frame of the last member, or cuts the index. */
async function damage(store: Store, digest: string, what: 'last' | 'index' | 'trailer') {
  const bytes = Buffer.from(await bytesOf(store, packKey(digest)))
  if (what === 'last') bytes[bytes.length - 10]! ^= 0xff
  const parts = {
    last: bytes,
    index: bytes.subarray(0, framesAt(bytes) - 1),
    trailer: Buffer.concat([bytes, Buffer.of(0)]),
  }
  await store.put(packKey(digest), parts[what])
}

/** The releases that the next run makes again. */
async function dueIn(store: Store): Promise<string[]> {
  return [...(await Catalog.open(store)).list()]
    .filter(({ record }) => record.failure?.code === 'damaged_blob')
    .map(({ record }) => record.kernel.release)
}

t.test('a store whose kernels are in a pack is clean', async (t) => {
  const { store } = await packed()
  t.same(await findings(store), [])
  t.same(await findings(store, true), [])
  t.same(await keysOf(store, 'blobs/'), [])
})

t.test('an object among packs that is none is reported', async (t) => {
  const { store } = await packed()
  await store.put('packs/x', Buffer.from('x'))
  t.same(await findings(store), [['unknown_object', 'packs']])
})

t.test('a damaged member is found, and only its kernel is made due', async (t) => {
  const { store, digest, digests } = await packed()
  await damage(store, digest, 'last')
  t.same(await findings(store), [['invalid_pack', 'packs']])
  const [found] = await Array.fromAsync(verifyStore(store))
  t.match(found!.message, /: 6\.1\.0-4-amd64$/)
  t.same(await dueIn(store), [], 'without repair nothing changes')
  t.same(await findings(store, true), [['invalid_pack', 'packs', ['6.1.0-4-amd64']]])
  t.same(await dueIn(store), ['6.1.0-4-amd64'])
  t.same(await keysOf(store, 'packs/'), [])
  t.same(await keysOf(store, 'quarantine/'), [quarantineKey(packKey(digest))])
  for (const sha256 of digests.slice(0, 3)) t.equal(sha256Of(await getBlob(store, sha256)), sha256)
  t.same(await findings(store), [])
})

t.test('what an archive, a blob or another pack has is not lost with a pack', async (t) => {
  const { store, records, digest } = await packed()
  await publishArchive(store, await Catalog.open(store))
  await damage(store, digest, 'last')
  await store.delete(archiveKey(records[0]!.kernel))
  t.match(await findings(store, true), [
    ['invalid_pack', 'packs', 'repaired'],
    ['missing_archive', 'archive', 'repaired'],
  ])
  t.same(await dueIn(store), [])
  t.equal((await keysOf(store, 'blobs/')).length, 4)

  const other = await packed()
  await putSeries(other.store, 5)
  await putPackOf(other.store)
  for (const key of await keysOf(other.store, 'blobs/')) await other.store.delete(key)
  await damage(other.store, other.digest, 'last')
  t.match(await findings(other.store, true), [['invalid_pack', 'packs', 'repaired']])
  t.same(await keysOf(other.store, 'blobs/'), [], 'the other pack has them')
  t.same(await findings(other.store), [])
})

t.test('a pack whose index is damaged makes all of its kernels due', async (t) => {
  const { store, digest } = await packed(2)
  await damage(store, digest, 'index')
  const missing = ['missing_blob', 'blobs']
  t.same(await findings(store), [['invalid_pack', 'packs'], missing, missing])
  t.same(await findings(store, true), [
    ['invalid_pack', 'packs', []],
    [...missing, ['6.1.0-1-amd64']],
    [...missing, ['6.1.0-2-amd64']],
  ])
  t.same(await dueIn(store), ['6.1.0-1-amd64', '6.1.0-2-amd64'])
  t.same(await findings(store), [])
})

t.test('a pack with other bytes than its name says is replaced by blobs', async (t) => {
  const { store, digest } = await packed(2)
  await damage(store, digest, 'trailer')
  t.same(await findings(store), [['invalid_pack', 'packs']])
  t.same(await findings(store, true), [['invalid_pack', 'packs', 'repaired']])
  t.equal((await keysOf(store, 'blobs/')).length, 2)
  t.same(await findings(store), [])
})

t.test('a damaged blob is made again from a pack', async (t) => {
  const { store, digests } = await packed(2)
  await store.put(blobKey(digests[0]!), Buffer.from('damaged'))
  t.same(await findings(store, true), [['digest_mismatch', 'blobs', 'repaired']])
  t.same(await findings(store), [])
})

const collected = async (store: Store, now = NOW) =>
  (await Array.fromAsync(collectGarbage(store, { now }))).map(({ key }) => key)

t.test('gc removes a pack that no record needs, when it is old enough', async (t) => {
  const { store, records, digest } = await packed(3)
  t.same(await collected(store), [], 'all are needed')
  for (const { kernel } of records.slice(0, 2)) await store.delete(recordKey(kernel, '6.1.1-1'))
  t.same(await collected(store), [], 'one is needed')
  await store.delete(recordKey(records[2]!.kernel, '6.1.1-1'))
  t.same(await collected(store, new Date()), [], 'it is young')
  t.same(await collected(store), [packKey(digest)])
  t.same(packsOf(store).list(), [])
})

t.test('gc removes a pack when a whole other one has all that is needed of it', async (t) => {
  const { store, digests, digest: first } = await packed(3)
  await putSeries(store, 5)
  const second = await packStore(store)
  await damage(store, second, 'trailer')
  t.same(await collected(store), [], 'the larger one is damaged')
  await store.put(packKey(second), (await bytesOf(store, packKey(second))).subarray(0, -1))
  t.same(await collected(store, new Date()), [])
  t.same(await collected(store), [packKey(first)])
  for (const sha256 of [...digests, sha256Of(nthBtf(4))])
    t.equal(sha256Of(await getBlob(store, sha256)), sha256)
  t.same(await collected(store), [])
})

t.test('of two packs with the same kernels, collectors leave the same one', async (t) => {
  const { store, digest, digests } = await packed(2)
  await putSeries(store, 2, { distro: 'kali' })
  const other = await packStore(store)
  t.not(other, digest)
  const listed = store.list.bind(store)
  store.list = async function* (prefix) {
    const all = await Array.fromAsync(listed(prefix))
    yield* prefix === 'packs/' ? all.reverse() : all
  }
  const reversed = await Promise.all([collected(store), collected(store)])
  const left = await keysOf(store, 'packs/')
  t.equal(left.length, 1)
  t.notOk(reversed.flat().includes(left[0]!))
  for (const sha256 of digests) t.equal(sha256Of(await getBlob(store, sha256)), sha256)
})

t.test('gc keeps a pack that was written again while it looked', async (t) => {
  const { store, records, digest } = await packed(1)
  const bytes = await bytesOf(store, packKey(digest))
  await store.delete(recordKey(records[0]!.kernel, '6.1.1-1'))
  const list = store.list.bind(store)
  store.list = async function* (prefix) {
    yield* list(prefix)
    if (prefix === 'kernels/') await store.put(packKey(digest), bytes)
  }
  t.same(await collected(store), [])
})

t.test('a kernel whose blob and pack are gone is missing', async (t) => {
  const { store, digest, digests } = await packed(1)
  await putBlob(store, nthBtf(0))
  await store.delete(packKey(digest))
  t.same(await findings(store), [])
  await store.delete(blobKey(digests[0]!))
  t.same(await findings(store), [['missing_blob', 'blobs']])
  await t.rejects(getBlob(store, digests[0]!), storeError('not_found'))
})
