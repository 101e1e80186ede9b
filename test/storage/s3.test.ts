// Tests the S3 store on a real server: the contract of `Store`, and buckets with other users and foreign objects.
import t from 'tap'
import { makeBucket } from '../helpers/bucket.ts'
import { keysOf, storeError, testStore, textOf } from '../helpers/store-contract.ts'

const bucket = await makeBucket(t)

t.test('the S3 store fulfils the contract of Store', (t) =>
  testStore(t, {
    open: () => bucket.open('contract'),
    leftovers: () => bucket.uploads('contract/'),
    refusing: async (use) => use(await bucket.open('contract', { user: bucket.stranger })),
    unreachable: async (use) =>
      use(await bucket.open('contract', { endpoint: 'http://127.0.0.1:1' })),
  }),
)

t.test('wrong credentials give not_permitted, and the error repeats no secret', async (t) => {
  const users = [
    { ...bucket.owner, secretAccessKey: 'a-wrong-secret' },
    { ...bucket.owner, accessKeyId: 'nobody' },
  ]
  for (const user of users) {
    const store = await bucket.open('users', { user })
    const expected = { ...storeError('not_permitted'), message: /^(?!.*secret)/ }
    await t.rejects(store.get('key'), expected, 'get')
    await t.rejects(store.head('key'), expected, 'head')
    await t.rejects(store.put('key', Buffer.from('x')), expected, 'put')
    await t.rejects(store.put('key', Buffer.alloc(6 * 1024 * 1024)), expected, 'put in parts')
    await t.rejects(keysOf(store, ''), expected, 'list')
    await t.rejects(store.delete('key'), expected, 'delete')
  }
})

t.test('a missing bucket gives unreachable, and is not taken for an empty store', async (t) => {
  const store = await bucket.open('prefix', { bucket: 'another' })
  await t.rejects(store.get('key'), storeError('unreachable'), 'get')
  await t.rejects(store.head('key'), storeError('unreachable'), 'head')
  await t.rejects(store.put('key', Buffer.from('x')), storeError('unreachable'), 'put')
  await t.rejects(
    store.put('key', Buffer.alloc(6 * 1024 * 1024)),
    storeError('unreachable'),
    'in parts',
  )
  await t.rejects(keysOf(store, ''), storeError('unreachable'), 'list')
  await t.rejects(store.delete('key'), storeError('unreachable'), 'delete')
})

t.test('stores with different prefixes do not see each other', async (t) => {
  const prefixes = ['', 'one', 'one/two', 'one-two']
  const stores = await Promise.all(prefixes.map((prefix) => bucket.open(prefix)))
  for (const [i, store] of stores.entries()) await store.put('key', Buffer.from(prefixes[i]!))
  for (const [i, store] of stores.entries()) t.equal(await textOf(store, 'key'), prefixes[i])
  t.same(
    await keysOf(stores[1]!, ''),
    ['key', 'two/key'],
    'a store whose prefix contains another sees its objects',
  )
  t.same(await keysOf(stores[3]!, ''), ['key'])
  await stores[1]!.delete('key')
  t.same(await keysOf(stores[2]!, ''), ['key'])
})

t.test('list ignores foreign objects', async (t) => {
  const store = await bucket.open('foreign')
  await store.put('a+b/c', Buffer.from('ours'))
  const foreign = ['', 'a b', 'dir/', 'x//y', '.hidden', 'a:b', 'ä', '%41', 'a\u0001b', 'a&amp;<b>']
  for (const key of foreign) await bucket.putForeign(`foreign/${key}`)
  t.same(await keysOf(store, ''), ['a+b/c'])
  t.same(await keysOf(store, 'a'), ['a+b/c'])
})

t.test('a key that is too long together with the prefix is rejected as invalid_key', async (t) => {
  const store = await bucket.open(`${'p'.repeat(200)}/${'q'.repeat(200)}`)
  const fits = `${'k/'.repeat(310)}kk`
  t.match(await store.put(fits, Buffer.from('x')), { key: fits })
  await t.rejects(store.put(`${fits}k`, Buffer.from('x')), storeError('invalid_key'))
})
