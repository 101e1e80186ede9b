// The catalog: what the records of a store say, kept up with them, whatever others put there and however the store fails.
import { setTimeout as sleep } from 'node:timers/promises'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import {
  type BuildRecord,
  buildOf,
  Catalog,
  type KernelFilter,
  openStore,
  putRecord,
  recordKey,
  type Store,
  StoreError,
  verifyStore,
} from '../../storage/index.ts'
import { SNAPSHOT_KEY } from '../../storage/snapshot.ts'
import { told } from '../helpers/store-contract.ts'
import { recordOf } from '../helpers/test-service.ts'

const keyOf = (record: BuildRecord): string => recordKey(record.kernel, buildOf(record))

/** A build of `release` with a package version, made at an hour of the day. */
function build(release: string, version: string, hour = 0, kernel = {}): BuildRecord {
  const createdAt = `2026-11-01T${String(hour).padStart(2, '0')}:00:00.000Z`
  const { package: from, ...rest } = recordOf({ release, ...kernel })
  return { ...rest, package: { ...from, version }, createdAt, updatedAt: createdAt }
}

/** By release and version, as they come. */
const named = (records: Iterable<BuildRecord>): string[] =>
  [...records].map(({ kernel, package: { version } }) => `${kernel.release} ${version}`)

const listed = (catalog: Catalog, filter?: KernelFilter, after?: string): string[] =>
  named([...catalog.list(filter, after)].map(({ record }) => record))

async function storeWith(...records: BuildRecord[]): Promise<Store> {
  const store = await openStore('memory:')
  for (const record of records) await putRecord(store, record)
  return store
}

const OTHER_KERNELS = [
  build('6.1.0-1-amd64', '1', 0, { distro: 'ubuntu' }),
  build('6.1.0-1-amd64', '1', 0, { version: '13' }),
  build('6.1.0-1-amd64', '1', 0, { version: '1' }),
  build('6.1.0-1-amd64', '1', 0, { arch: 'i686' }),
  build('6.1.0-1-amd64-x', '1'),
  build('6.1.0-1-amd6', '1'),
]

t.test('the builds of a kernel, newest first, under every name of its architecture', async (t) => {
  const builds = [build('6.1.0-1-amd64', '1~rc1', 3), build('6.1.0-1-amd64', '2:1', 1)]
  const catalog = await Catalog.open(
    await storeWith(build('6.1.0-1-amd64', '+1', 2), ...builds, ...OTHER_KERNELS),
  )
  t.equal(catalog.size, 9)
  const kernel = { distro: 'debian', version: '12', release: '6.1.0-1-amd64' }
  for (const arch of ['x86_64', 'amd64', 'AMD64']) {
    const found = named(catalog.find({ ...kernel, arch }))
    const newestFirst = ['6.1.0-1-amd64 2:1', '6.1.0-1-amd64 +1', '6.1.0-1-amd64 1~rc1']
    t.same(found, newestFirst, `${arch}: by version, whenever it was made`)
  }
  for (const other of [
    { arch: 's390x' },
    { release: '6.1.0-1' },
    { version: '*' },
    { distro: 'x' },
  ])
    t.same(catalog.find({ ...kernel, arch: 'x86_64', ...other }), [], JSON.stringify(other))
})

t.test('records by build-id, by release alone, by the digest of the BTF', async (t) => {
  const sha256 = 'ab'.repeat(32)
  const btf = { sha256, size: 1, types: 1, kinds: [], byteOrder: 'little', pointerSize: 8 } as const
  const [first, second, third] = [
    { ...build('a', '1', 1, { buildId: 'c0ffee' }), btf: { ...btf, kinds: [] } },
    { ...build('a', '1', 2, { distro: 'ubuntu' }), btf: { ...btf, kinds: [] } },
    build('b', '1', 3, { buildId: 'c0ffee' }),
  ]
  const store = await storeWith(first, second, third)
  const catalog = await Catalog.open(store)
  t.same(catalog.findBy('buildId', 'c0ffee'), [third, first])
  t.same(catalog.findBy('release', 'a'), [second, first])
  t.same(catalog.findBy('sha256', sha256), [second, first])
  for (const none of ['', 'A', '__proto__']) t.same(catalog.findBy('release', none), [])
  await store.delete(keyOf(second))
  await putRecord(store, { ...third, kernel: { ...third.kernel, buildId: 'decaf0' } })
  await catalog.refresh()
  t.same(catalog.findBy('buildId', 'c0ffee'), [first], 'and follows what changes')
  t.same(named(catalog.findBy('buildId', 'decaf0')), ['b 1'])
  t.same(catalog.findBy('sha256', sha256), [first])
})

t.test('a listing: filtered, in order of the keys, from where another ended', async (t) => {
  const catalog = await Catalog.open(
    await storeWith(
      build('b', '2'),
      build('b', '1'),
      build('a', '1'),
      build('b+', '1'),
      ...OTHER_KERNELS,
    ),
  )
  const keys = [...catalog.list()].map(({ key }) => key)
  t.equal(keys.length, 10)
  t.same(keys, keys.toSorted())
  const debian12 = { distro: 'debian', version: '12', arch: 'amd64' }
  t.same(listed(catalog, { ...debian12, release: '[ab]*' }), ['a 1', 'b+ 1', 'b 1', 'b 2'])
  t.same(listed(catalog, { version: '13' }), ['6.1.0-1-amd64 1'])
  t.same(listed(catalog, { distro: 'debian', arch: 'i386' }), ['6.1.0-1-amd64 1'])
  for (const none of [{ distro: 'd' }, { distro: '..' }, { version: '' }, { release: 'c' }])
    t.same(listed(catalog, none), [], JSON.stringify(none))
  for (const [i, key] of keys.entries())
    t.same(
      [...catalog.list({}, key)].map((entry) => entry.key),
      keys.slice(i + 1),
      key,
    )
  t.equal([...catalog.list({}, 'kernels/')].length, 10)
  t.equal([...catalog.list({}, 'l')].length, 0)
  t.same(listed(catalog, { version: '13' }, keys.at(-1)), [])
})

t.test('refresh reads what came, changed or went, and nothing else', async (t) => {
  const store = await storeWith(build('a', '1'), build('b', '1'), build('c', '1'))
  const { watched, read } = watch(store)
  const catalog = await Catalog.open(watched)
  read.clear()
  t.notOk(await catalog.refresh())
  t.equal(read.size, 0)
  await putRecord(store, build('d', '1'))
  await putRecord(store, { ...build('a', '1'), embedded: true })
  await store.delete(keyOf(build('b', '1')))
  t.ok(await catalog.refresh())
  t.same([...read], [keyOf(build('a', '1')), keyOf(build('d', '1'))])
  t.same(listed(catalog), ['a 1', 'c 1', 'd 1'])
  t.equal([...catalog.list()][0]!.record.embedded, true)
})

t.test('refresh of one kernel leaves the others as they were', async (t) => {
  const store = await storeWith(build('a', '1'), build('b', '1'))
  const catalog = await Catalog.open(store)
  for (const record of [build('a', '2'), build('b', '2'), build('aa', '1')])
    await putRecord(store, record)
  await store.delete(keyOf(build('b', '1')))
  await catalog.refresh('kernels/debian/12/x86_64/a/')
  t.same(listed(catalog), ['a 1', 'a 2', 'b 1'])
})

t.test('refreshes at once undo nothing of each other', async (t) => {
  const store = await storeWith(build('a', '1'), build('b', '1'))
  const slow: Store = Object.assign(Object.create(store), {
    get: (key: string) => store.get(key),
    head: (key: string) => store.head(key),
    async *list(prefix: string) {
      yield* store.list(prefix)
      if (prefix.endsWith('/a/')) await sleep(50)
    },
  })
  const catalog = await Catalog.open(slow)
  await putRecord(store, build('a', '2'))
  await putRecord(store, build('b', '2'))
  await Promise.all([catalog.refresh('kernels/debian/12/x86_64/a/'), catalog.refresh()])
  t.same(listed(catalog), ['a 1', 'a 2', 'b 1', 'b 2'])
})

t.test('what others put among the records is reported and passed over', async (t) => {
  const good = build('good', '1')
  const store = await storeWith(good, build('bad', '1'))
  const prefix = 'kernels/debian/12/x86_64'
  const far = recordOf({ release: 'n'.repeat(300) })
  const wrong = {
    [`${prefix}/bad/1.json`]: '{',
    [`${prefix}/bad/2.json`]: JSON.stringify(good),
    [`${prefix}/bad/3.json`]: JSON.stringify({ ...good, schema: 2 }),
    [`${prefix}/bad/4.json`]: JSON.stringify(far),
    'kernels/x': 'x'.repeat(2 ** 20 + 1),
    'kernels/README.md': '# kernels',
  }
  for (const [key, text] of Object.entries(wrong)) await store.put(key, Buffer.from(text))
  const told: StoreError[] = []
  const catalog = await Catalog.open(store, (error) => told.push(error))
  t.same(listed(catalog), ['good 1'])
  t.same([...new Set(told.map(({ code }) => code))], ['invalid_record'])
  for (const key of Object.keys(wrong))
    t.equal(told.filter(({ message }) => message.startsWith(`${key}:`)).length, 1, key)
  await Catalog.open(store)
  t.pass('nor is it fatal where nobody listens')
})

/** A store of which `method` fails once it was called, or gave, so many times. */
const failing = (store: Store, method: 'get' | 'list', after = 0): Store => {
  const error = new StoreError('unreachable', 'not_found_upstream')
  let calls = 0
  return Object.assign(Object.create(store), {
    head: (key: string) => store.head(key),
    get: (key: string) =>
      method === 'get' && calls++ >= after ? Promise.reject(error) : store.get(key),
    async *list(prefix: string) {
      for await (const info of store.list(prefix)) {
        if (method === 'list' && calls++ >= after) throw error
        yield info
        await sleep(2) // what fails meanwhile must not end the process
      }
    },
  })
}

t.test('a failing store leaves the catalog as it was', async (t) => {
  const store = await storeWith(build('a', '1'))
  let now = store
  const turning: Store = Object.assign(Object.create(store), {
    get: (key: string) => now.get(key),
    head: (key: string) => now.head(key),
    list: (prefix: string) => now.list(prefix),
  })
  const catalog = await Catalog.open(turning)
  for (let i = 0; i < 40; i++) await putRecord(store, build('b', `${i}`))
  for (const method of ['get', 'list'] as const)
    for (const after of [0, 1, 20]) {
      now = failing(store, method, after)
      await t.rejects(catalog.refresh(), told('unreachable'), `${method} after ${after}`)
      t.same(listed(catalog), ['a 1'])
    }
  await t.rejects(Catalog.open(turning), told('unreachable'))
  now = store
  await catalog.refresh()
  t.equal(catalog.size, 41, 'and catches up once it is back')
})

t.test('a record that goes while the others are read', async (t) => {
  const store = await storeWith(build('a', '1'), build('b', '1'))
  const { watched } = watch(store, async (key) => {
    if (key === keyOf(build('b', '1'))) await store.delete(key)
  })
  t.same(listed(await Catalog.open(watched)), ['a 1'])
})

t.test('the snapshot says what the records do, and is followed', async (t) => {
  const store = await storeWith(build('b', '1'), ...OTHER_KERNELS)
  const published = await Catalog.publish(store)
  const { watched, read } = watch(store)
  const catalog = await Catalog.openSnapshot(watched)
  t.same([...read], [SNAPSHOT_KEY], 'one GET')
  t.same([...catalog.list()], [...published.list()])
  t.same([...catalog.list()], [...(await Catalog.open(store)).list()])

  await putRecord(store, build('c', '1'))
  await store.delete(keyOf(build('b', '1')))
  await catalog.follow()
  t.same(listed(catalog, { release: '?' }), ['b 1'], 'no further than it')
  await Catalog.publish(store)
  await catalog.follow()
  t.same(listed(catalog, { release: '?' }), ['c 1'])
  read.clear()
  await catalog.follow()
  t.equal(read.size, 0, 'and not again while it is the same')
})

t.test("the snapshot, which anybody may read, has nothing that is the operator's", async (t) => {
  const failure = {
    ...{ code: 'pahole_crashed' as const, message: 'pahole ended by SIGSEGV', fingerprint: '1' },
    ...{
      log: 'at /home/mill/secret.c:1',
      attempts: 1,
      at: '2026-11-01T00:00:00.000Z',
      retryAt: null,
    },
  }
  const failed: BuildRecord = { ...build('failed', '1'), failure }
  const from = (release: string, url: string): BuildRecord => {
    const record = build(release, '1')
    return { ...record, package: { ...record.package, url } }
  }
  const full = [
    failed,
    from('file', 'file:///srv/mill/linux.deb'),
    from('open', 'https://mirror.example/linux.deb'),
    from('secret', 'https://mill:secret@word@mirror.example/linux.deb'),
  ]
  const store = await storeWith(...full)
  const recordsOf = (catalog: Catalog) => [...catalog.list()].map(({ record }) => record)
  const text = async () => {
    const { body } = await store.get(SNAPSHOT_KEY)
    return zstdDecompressSync(Buffer.concat(await body.toArray())).toString()
  }

  t.same(recordsOf(await Catalog.publish(store)), full, 'who may read the records has all of them')
  t.notMatch(await text(), /secret\.c|srv|word/)
  const { log: _, ...told } = failure
  const shown = recordsOf(await Catalog.openSnapshot(store))
  t.same(
    shown.map(({ failure, package: { url } }) => [url, failure]),
    [
      [failed.package.url, told],
      ['linux.deb', undefined],
      ['https://mirror.example/linux.deb', undefined],
      ['https://mirror.example/linux.deb', undefined],
    ],
  )

  const { watched, read } = watch(store)
  t.same(recordsOf(await Catalog.open(watched)), full)
  const keys = [full[0]!, full[1]!, full[3]!].map(keyOf)
  t.same([...read].sort(), [SNAPSHOT_KEY, ...keys].sort(), 'those that it has not all of are read')
  const before = await store.head(SNAPSHOT_KEY)
  await Catalog.publish(store)
  t.equal((await store.head(SNAPSHOT_KEY)).etag, before.etag, 'which is no change')
  t.same(await Array.fromAsync(verifyStore(store)), [], 'and nothing wrong')
})

t.test('a snapshot with all of the records, of an older version, is replaced', async (t) => {
  const record = build('a', '1')
  record.package.url = 'file:///srv/mill/linux.deb'
  const store = await storeWith(record)
  const { etag } = await store.head(keyOf(record))
  const lines = [{ schema: 1, records: 1 }, [keyOf(record), etag, record]]
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('')
  const old = await store.put(SNAPSHOT_KEY, zstdCompressSync(text))
  t.same(listed(await Catalog.openSnapshot(store)), ['a 1'])
  await Catalog.publish(store)
  t.not((await store.head(SNAPSHOT_KEY)).etag, old.etag)
  const [entry] = (await Catalog.openSnapshot(store)).list()
  t.equal(entry?.record.package.url, 'linux.deb')
})

t.test('a snapshot that is missing or does not read is passed over', async (t) => {
  const store = await storeWith(build('a', '1'))
  const open = async (t: Test, name: string, reported: string[]) => {
    const told: string[] = []
    const catalog = await Catalog.openSnapshot(store, ({ code }) => told.push(code))
    t.same(listed(catalog), ['a 1'], name)
    t.same(told, reported, name)
  }
  await open(t, 'missing', [])
  await Catalog.publish(store)
  const { body } = await store.get(SNAPSHOT_KEY)
  const good = Buffer.concat(await body.toArray())
  for (const [name, bytes] of Object.entries({
    empty: Buffer.alloc(0),
    text: Buffer.from('{}\n'),
    'cut short': good.subarray(0, good.length >> 1),
  })) {
    await store.put(SNAPSHOT_KEY, bytes)
    await open(t, name, ['invalid_snapshot'])
  }
  await Catalog.publish(store)
  await open(t, 'made anew', [])
})

/** The store, with the keys that are read from it; `before` is called before each. */
function watch(
  store: Store,
  before = async (_key: string) => {},
): { watched: Store; read: Set<string> } {
  const read = new Set<string>()
  const watched: Store = Object.assign(Object.create(store), {
    head: (key: string) => store.head(key),
    list: (prefix: string) => store.list(prefix),
    async get(key: string) {
      await before(key)
      const found = await store.get(key)
      read.add(key)
      return found
    },
  })
  return { watched, read }
}
