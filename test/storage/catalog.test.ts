// Tests the catalog: it follows the records of a store, skips what others put there, and survives a failing store.
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
import { storeError } from '../helpers/store-contract.ts'
import { recordOf } from '../helpers/test-service.ts'

const keyOf = (record: BuildRecord): string => recordKey(record.kernel, buildOf(record))

/** A record of `release` with a package version, created at an hour of the day. */
function build(release: string, version: string, hour = 0, kernel = {}): BuildRecord {
  const createdAt = `2026-11-01T${String(hour).padStart(2, '0')}:00:00.000Z`
  const { package: from, ...rest } = recordOf({ release, ...kernel })
  return { ...rest, package: { ...from, version }, createdAt, updatedAt: createdAt }
}

/** `release version` of each record, in their order. */
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

t.test(
  'find returns all builds of a kernel, newest first, for every alias of its architecture',
  async (t) => {
    const builds = [build('6.1.0-1-amd64', '1~rc1', 3), build('6.1.0-1-amd64', '2:1', 1)]
    const catalog = await Catalog.open(
      await storeWith(build('6.1.0-1-amd64', '+1', 2), ...builds, ...OTHER_KERNELS),
    )
    t.equal(catalog.size, 9)
    const kernel = { distro: 'debian', version: '12', release: '6.1.0-1-amd64' }
    for (const arch of ['x86_64', 'amd64', 'AMD64']) {
      const found = named(catalog.find({ ...kernel, arch }))
      const newestFirst = ['6.1.0-1-amd64 2:1', '6.1.0-1-amd64 +1', '6.1.0-1-amd64 1~rc1']
      t.same(found, newestFirst, `${arch}: the package version decides, not the time of creation`)
    }
    for (const other of [
      { arch: 's390x' },
      { release: '6.1.0-1' },
      { version: '*' },
      { distro: 'x' },
    ])
      t.same(catalog.find({ ...kernel, arch: 'x86_64', ...other }), [], JSON.stringify(other))
  },
)

t.test('findBy finds records by build-id, by release and by BTF digest', async (t) => {
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
  t.same(catalog.findBy('buildId', 'c0ffee'), [first], 'the index follows changes')
  t.same(named(catalog.findBy('buildId', 'decaf0')), ['b 1'])
  t.same(catalog.findBy('sha256', sha256), [first])
})

t.test('list filters, is in byte order of the keys, and continues after a given key', async (t) => {
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

t.test('refresh reads new and changed records only, and drops deleted ones', async (t) => {
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

t.test('refresh with a prefix leaves all other kernels unchanged', async (t) => {
  const store = await storeWith(build('a', '1'), build('b', '1'))
  const catalog = await Catalog.open(store)
  for (const record of [build('a', '2'), build('b', '2'), build('aa', '1')])
    await putRecord(store, record)
  await store.delete(keyOf(build('b', '1')))
  await catalog.refresh('kernels/debian/12/x86_64/a/')
  t.same(listed(catalog), ['a 1', 'a 2', 'b 1'])
})

t.test('concurrent refreshes do not undo each other', async (t) => {
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

t.test('invalid objects among the records are reported once each and skipped', async (t) => {
  const good = build('good', '1')
  const store = await storeWith(good, build('bad', '1'))
  const prefix = 'kernels/debian/12/x86_64'
  const far = recordOf({ release: 'n'.repeat(300) })
  const wrong = {
    [`${prefix}/bad/1.json`]: '{',
    [`${prefix}/bad/2.json`]: JSON.stringify(good),
    [`${prefix}/bad/3.json`]: JSON.stringify({ ...good, schema: 0 }),
    [`${prefix}/bad/4.json`]: JSON.stringify(far),
    'kernels/x': 'x'.repeat(2 ** 20 + 1),
    'kernels/README.md': '# kernels',
  }
  for (const [key, text] of Object.entries(wrong)) await store.put(key, Buffer.from(text))
  const invalid: StoreError[] = []
  const catalog = await Catalog.open(store, (error) => invalid.push(error))
  t.same(listed(catalog), ['good 1'])
  t.same([...new Set(invalid.map(({ code }) => code))], ['invalid_record'])
  for (const key of Object.keys(wrong))
    t.equal(invalid.filter(({ message }) => message.startsWith(`${key}:`)).length, 1, key)
  await Catalog.open(store)
  t.pass('an invalid record is not fatal without a listener either')
})

/** A store whose `get` or `list` fails after `after` calls or listed objects. */
const failing = (store: Store, method: 'get' | 'list', after = 0): Store => {
  const error = new StoreError('unreachable', 'the server is gone')
  let calls = 0
  return Object.assign(Object.create(store), {
    head: (key: string) => store.head(key),
    get: (key: string) =>
      method === 'get' && calls++ >= after ? Promise.reject(error) : store.get(key),
    async *list(prefix: string) {
      for await (const info of store.list(prefix)) {
        if (method === 'list' && calls++ >= after) throw error
        yield info
        await sleep(2) // a read that fails meanwhile must not end the process
      }
    },
  })
}

t.test('a refresh that fails leaves the catalog unchanged', async (t) => {
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
      await t.rejects(catalog.refresh(), storeError('unreachable'), `${method} after ${after}`)
      t.same(listed(catalog), ['a 1'])
    }
  await t.rejects(Catalog.open(turning), storeError('unreachable'))
  now = store
  await catalog.refresh()
  t.equal(catalog.size, 41, 'a later refresh catches up')
})

t.test('a record that is deleted during a refresh is skipped', async (t) => {
  const store = await storeWith(build('a', '1'), build('b', '1'))
  const { watched } = watch(store, async (key) => {
    if (key === keyOf(build('b', '1'))) await store.delete(key)
  })
  t.same(listed(await Catalog.open(watched)), ['a 1'])
})

t.test('openSnapshot reads the snapshot with one GET, and follow keeps up with it', async (t) => {
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
  t.same(listed(catalog, { release: '?' }), ['b 1'], 'follow goes no further than the snapshot')
  await Catalog.publish(store)
  await catalog.follow()
  t.same(listed(catalog, { release: '?' }), ['c 1'])
  read.clear()
  await catalog.follow()
  t.equal(read.size, 0, 'an unchanged snapshot is not read again')
})

t.test('the public snapshot contains no logs, local paths and credentials', async (t) => {
  const failure = {
    code: 'pahole_crashed' as const,
    message: 'pahole ended by SIGSEGV',
    log: 'at /home/mill/secret.c:1',
    attempts: 1,
    fingerprint: '1',
    at: '2026-11-01T00:00:00.000Z',
    retryAt: null,
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

  t.same(
    recordsOf(await Catalog.publish(store)),
    full,
    'the catalog of the publisher has the full records',
  )
  t.notMatch(await text(), /secret\.c|srv|word/)
  const { log: _, ...publicFailure } = failure
  const shown = recordsOf(await Catalog.openSnapshot(store))
  t.same(
    shown.map(({ failure, package: { url } }) => [url, failure]),
    [
      [failed.package.url, publicFailure],
      ['linux.deb', undefined],
      ['https://mirror.example/linux.deb', undefined],
      ['https://mirror.example/linux.deb', undefined],
    ],
  )

  const { watched, read } = watch(store)
  t.same(recordsOf(await Catalog.open(watched)), full)
  const keys = [full[0]!, full[1]!, full[3]!].map(keyOf)
  t.same(
    [...read].sort(),
    [SNAPSHOT_KEY, ...keys].sort(),
    'records with a private part are read from the store',
  )
  const before = await store.head(SNAPSHOT_KEY)
  await Catalog.publish(store)
  t.equal((await store.head(SNAPSHOT_KEY)).etag, before.etag, 'the snapshot is unchanged')
  t.same(await Array.fromAsync(verifyStore(store)), [], 'verifyStore finds nothing')
})

t.test('publish replaces a snapshot of an older version that has private data', async (t) => {
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

t.test('openSnapshot lists the records if the snapshot is missing or invalid', async (t) => {
  const store = await storeWith(build('a', '1'))
  const open = async (t: Test, name: string, reported: string[]) => {
    const codes: string[] = []
    const catalog = await Catalog.openSnapshot(store, ({ code }) => codes.push(code))
    t.same(listed(catalog), ['a 1'], name)
    t.same(codes, reported, name)
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
  await open(t, 'published again', [])
})

/** Wraps a store and collects the keys that are read; `before` runs before each read. */
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
