// The contract of `Store` on a real S3 server, and what a bucket has that no other store does: users, and neighbours.
import t from 'tap'
import { makeBucket } from '../helpers/bucket.ts'
import { keysOf, testStore, textOf, told } from '../helpers/store-contract.ts'

const bucket = await makeBucket(t)

t.test('the contract', (t) =>
  testStore(t, {
    open: () => bucket.open('contract'),
    leftovers: () => bucket.uploads('contract/'),
    refusing: async (use) => use(await bucket.open('contract', { user: bucket.stranger })),
    unreachable: async (use) =>
      use(await bucket.open('contract', { endpoint: 'http://127.0.0.1:1' })),
  }),
)

t.test('who is not who he says is not permitted', async (t) => {
  const users = [
    { ...bucket.owner, secretAccessKey: 'a-wrong-secret' },
    { ...bucket.owner, accessKeyId: 'nobody' },
  ]
  for (const user of users) {
    const store = await bucket.open('users', { user })
    const expected = { ...told('not_permitted'), message: /^(?!.*secret)/ }
    await t.rejects(store.get('key'), expected, 'get')
    await t.rejects(store.head('key'), expected, 'head')
    await t.rejects(store.put('key', Buffer.from('x')), expected, 'put')
    await t.rejects(store.put('key', Buffer.alloc(6 * 1024 * 1024)), expected, 'put in parts')
    await t.rejects(keysOf(store, ''), expected, 'list')
    await t.rejects(store.delete('key'), expected, 'delete')
  }
})

t.test('a bucket that is not there is not an empty one', async (t) => {
  const store = await bucket.open('prefix', { bucket: 'another' })
  await t.rejects(store.get('key'), told('unreachable'), 'get')
  await t.rejects(store.head('key'), told('unreachable'), 'head')
  await t.rejects(store.put('key', Buffer.from('x')), told('unreachable'), 'put')
  await t.rejects(store.put('key', Buffer.alloc(6 * 1024 * 1024)), told('unreachable'), 'in parts')
  await t.rejects(keysOf(store, ''), told('unreachable'), 'list')
  await t.rejects(store.delete('key'), told('unreachable'), 'delete')
})

t.test('stores with other prefixes do not see each other', async (t) => {
  const prefixes = ['', 'one', 'one/two', 'one-two']
  const stores = await Promise.all(prefixes.map((prefix) => bucket.open(prefix)))
  for (const [i, store] of stores.entries()) await store.put('key', Buffer.from(prefixes[i]!))
  for (const [i, store] of stores.entries()) t.equal(await textOf(store, 'key'), prefixes[i])
  t.same(await keysOf(stores[1]!, ''), ['key', 'two/key'], 'but the one in which they lie')
  t.same(await keysOf(stores[3]!, ''), ['key'])
  await stores[1]!.delete('key')
  t.same(await keysOf(stores[2]!, ''), ['key'])
})

t.test('what others put beside the objects is passed over', async (t) => {
  const store = await bucket.open('foreign')
  await store.put('a+b/c', Buffer.from('ours'))
  const foreign = ['', 'a b', 'dir/', 'x//y', '.hidden', 'a:b', 'ä', '%41', 'a\u0001b', 'a&amp;<b>']
  for (const key of foreign) await bucket.putForeign(`foreign/${key}`)
  t.same(await keysOf(store, ''), ['a+b/c'])
  t.same(await keysOf(store, 'a'), ['a+b/c'])
})

t.test('a key is refused that is too long with its prefix', async (t) => {
  const store = await bucket.open(`${'p'.repeat(200)}/${'q'.repeat(200)}`)
  const fits = `${'k/'.repeat(310)}kk`
  t.match(await store.put(fits, Buffer.from('x')), { key: fits })
  await t.rejects(store.put(`${fits}k`, Buffer.from('x')), told('invalid_key'))
})
