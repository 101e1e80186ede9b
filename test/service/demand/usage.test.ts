// A service counts the kernels that clients get.
import t from 'tap'
import { Usage } from '../../../service/demand/usage.ts'
import { buildApp } from '../../../service/index.ts'
import { Catalog, openStore, putRecord, recentUsage, type Store } from '../../../storage/index.ts'
import { btfOf, RAW, recordOf } from '../../helpers/test-service.ts'

const RELEASES = ['6.1.0-1-amd64', '6.1.0-2-amd64', '6.1.0-3-amd64', '6.1.0-4-amd64']

async function storeWithKernels(): Promise<Store> {
  const store = await openStore('memory:')
  for (const release of RELEASES)
    await putRecord(store, recordOf({ release }, { btf: await btfOf(store, RAW.little) }))
  return store
}

const usedIn = async (store: Store, now?: Date) => {
  const { has } = await recentUsage(store, 1, now)
  return RELEASES.filter((release) => has(recordOf({ release }).kernel))
}

t.test(
  'what clients got, by any address or from a cache, is in the store when a service ends',
  async (t) => {
    const store = await storeWithKernels()
    const app = await buildApp({ store, catalog: await Catalog.open(store) })
    const [one, two, three, four] = RELEASES
    for (const [url, status] of [
      [`/v1/btf/debian/12/x86_64/${one}`, 200],
      [`/v1/btf/debian/12/x86_64/${one}`, 200],
      [`/debian/12/x86_64/${two}.btf.tar.xz`, 200],
      [`/v1/btf?release=${three}`, 200],
      [`/v1/kernels/debian/12/x86_64/${four}`, 200],
      ['/v1/btf/debian/12/x86_64/unknown', 404],
    ] as const)
      t.equal((await app.inject(url)).statusCode, status, url)
    t.same(await usedIn(store), [], 'not yet')
    await app.close()
    t.same(await usedIn(store), [one, two, three])
  },
)

t.test('a kernel is written once a month', async (t) => {
  const store = await storeWithKernels()
  const puts: string[] = []
  const put = store.put.bind(store)
  store.put = (key, ...rest) => {
    puts.push(key)
    return put(key, ...rest)
  }
  let now = new Date('2026-01-31T23:30:00Z')
  const usage = new Usage({ store, now: () => now })
  const name = `debian/12/x86_64/${RELEASES[0]}`
  const pass = async () => {
    usage.count(name)
    await usage.write()
  }
  await pass()
  await pass()
  now = new Date('2026-02-01T00:30:00Z')
  await pass()
  await pass()
  await usage.close()
  t.same(puts, ['usage/2026-01.json', 'usage/2026-02.json'])
  t.same(await usedIn(store, now), RELEASES.slice(0, 1))
})

t.test('a store that cannot be written is reported once, and keeps nobody from BTF', async (t) => {
  const store = await storeWithKernels()
  store.put = async () => {
    throw new Error('read-only')
  }
  const errors: unknown[] = []
  const usage = new Usage({ store, onError: (error) => errors.push(error) })
  usage.count(`debian/12/x86_64/${RELEASES[0]}`)
  await usage.write()
  await usage.write()
  await usage.close()
  t.match(errors, [{ message: 'read-only' }])
})
