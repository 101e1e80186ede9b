// Tests signCatalog, and verifyStore with a key: an existing store gets its signatures and keeps its snapshot.
import t, { type Test } from 'tap'
import {
  Catalog,
  generateKeys,
  openStore,
  publishArchive,
  putRecord,
  type Store,
  signatureKey,
  signCatalog,
  signedTime,
  verifyContent,
  verifyStore,
} from '../../storage/index.ts'
import { MANIFEST_KEY } from '../../storage/manifest.ts'
import { SNAPSHOT_KEY } from '../../storage/snapshot.ts'
import { btfOf, RAW, recordOf } from '../helpers/test-service.ts'

const { publicKey, secretKey } = generateKeys()
const foreign = generateKeys()

const bytesOf = async (store: Store, key: string): Promise<Buffer> => {
  const { body } = await store.get(key)
  return Buffer.concat(await body.toArray())
}

/** The trusted comment of an object's signature by `publicKey`. Errors: `not_found`, `invalid_signature`. */
async function signedComment(store: Store, key: string): Promise<string> {
  const signature = await bytesOf(store, signatureKey(key))
  return verifyContent(await bytesOf(store, key), signature.toString(), publicKey)
}

const etagOf = async (store: Store, key: string): Promise<string> => (await store.head(key)).etag

async function storeWithRecord(): Promise<Store> {
  const store = await openStore('memory:')
  await putRecord(store, recordOf({ release: 'little' }, { btf: await btfOf(store, RAW.little) }))
  return store
}

/** A store with a snapshot and an archive tree, both current. */
async function publishedStore(key?: string): Promise<Store> {
  const store = await storeWithRecord()
  const catalog = await Catalog.publish(store, key)
  await publishArchive(store, catalog, key === undefined ? {} : { secretKey: key })
  return store
}

for (const [state, key] of [
  ['without signatures', undefined],
  ['signed by another key', foreign.secretKey],
] as const) {
  t.test(
    `signCatalog signs a store ${state} and leaves the signed objects as they are`,
    async (t) => {
      const store = await publishedStore(key)
      const before = [await etagOf(store, SNAPSHOT_KEY), await etagOf(store, MANIFEST_KEY)]
      t.same(await signCatalog(store, secretKey), { signed: [SNAPSHOT_KEY, MANIFEST_KEY] })
      t.same([await etagOf(store, SNAPSHOT_KEY), await etagOf(store, MANIFEST_KEY)], before)
      for (const signed of [SNAPSHOT_KEY, MANIFEST_KEY])
        t.match(await signedComment(store, signed), `file:${signed}`)
      t.same(await signCatalog(store, secretKey), { signed: [] }, 'the second call signs nothing')
    },
  )

  t.test(`verifyStore with a key reports a store ${state} and repairs it`, async (t) => {
    const store = await publishedStore(key)
    const verify = async (repair: boolean) =>
      (await Array.fromAsync(verifyStore(store, { repair, secretKey }))).map(
        ({ code, key, repaired, behind }) => ({ code, key, repaired, behind }),
      )
    const finding = (key: string, repaired: boolean) => {
      return { code: 'unsigned', key, repaired, behind: false }
    }
    t.same(
      await Array.fromAsync(verifyStore(store)),
      [],
      'without a key signatures are not checked',
    )
    const found = [finding(SNAPSHOT_KEY, false), finding(MANIFEST_KEY, false)]
    t.same(await verify(false), found)
    t.same(await verify(false), found, 'a look without repair signs nothing')
    t.same(await verify(true), [finding(SNAPSHOT_KEY, true), finding(MANIFEST_KEY, true)])
    t.same(await verify(true), [])
    for (const signed of [SNAPSHOT_KEY, MANIFEST_KEY])
      t.match(await signedComment(store, signed), `file:${signed}`)
  })
}

t.test('signCatalog publishes a snapshot where there is none and signs no manifest', async (t) => {
  const store = await storeWithRecord()
  t.same(await signCatalog(store, secretKey), { signed: [SNAPSHOT_KEY] })
  t.match(await signedComment(store, SNAPSHOT_KEY), `file:${SNAPSHOT_KEY}`)
  t.equal((await Catalog.openSnapshot(store)).size, 1)
  t.same(await Array.fromAsync(verifyStore(store, { secretKey })), [])
})

t.test('signCatalog replaces a snapshot that is behind the records before it signs', async (t) => {
  const store = await publishedStore(secretKey)
  await putRecord(store, recordOf({ release: 'big' }, { btf: await btfOf(store, RAW.big) }))
  t.same(await signCatalog(store, secretKey), { signed: [SNAPSHOT_KEY] })
  t.match(await signedComment(store, SNAPSHOT_KEY), `file:${SNAPSHOT_KEY}`)
  t.equal((await Catalog.openSnapshot(store)).size, 2)
})

t.test('signCatalog with an invalid key or an invalid manifest writes nothing', async (t) => {
  const store = await storeWithRecord()
  const keys = async () =>
    (await Array.fromAsync(store.list(''))).map(({ key, etag }) => key + etag)
  const before = await keys()
  await t.rejects(signCatalog(store, publicKey), { code: 'invalid_key' })
  t.same(await keys(), before)
  await store.put(MANIFEST_KEY, Buffer.from('{'))
  const broken = await keys()
  await t.rejects(signCatalog(store, secretKey), { code: 'invalid_record' })
  t.same(await keys(), broken)
})

t.test('verifyStore with a key finds nothing to sign in an empty store', async (t) => {
  const store = await openStore('memory:')
  t.same(await Array.fromAsync(verifyStore(store, { repair: true, secretKey })), [])
})

const DAY = 24 * 3600

/** Sets the clock of this process, in seconds since 1970, until the test ends. */
function setClock(t: Test): (seconds: number) => void {
  const { now } = Date
  t.teardown(() => {
    Date.now = now
  })
  return (seconds) => {
    Date.now = () => seconds * 1000
  }
}

t.test('a signature is renewed after a day, although its object has not changed', async (t) => {
  const clock = setClock(t)
  const now = Math.floor(Date.now() / 1000)
  clock(now)
  const store = await publishedStore(secretKey)
  clock(now + DAY - 10)
  t.same(await signCatalog(store, secretKey), { signed: [] })
  clock(now + DAY + 10)
  t.same(await signCatalog(store, secretKey), { signed: [SNAPSHOT_KEY, MANIFEST_KEY] })
  t.equal(signedTime(await signedComment(store, SNAPSHOT_KEY)), now + DAY + 10)
})

t.test("the time of a signed catalog grows, even if the signer's clock is set back", async (t) => {
  const clock = setClock(t)
  const now = Math.floor(Date.now() / 1000)
  const store = await publishedStore(secretKey)
  const first = signedTime(await signedComment(store, SNAPSHOT_KEY))
  clock(now - 30 * DAY)
  await putRecord(store, recordOf({ release: 'big' }, { btf: await btfOf(store, RAW.big) }))
  await Catalog.publish(store, secretKey)
  t.equal(signedTime(await signedComment(store, SNAPSHOT_KEY)), first + 1)
})
