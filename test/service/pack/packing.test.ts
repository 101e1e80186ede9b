// Packing a store: what it leaves, that it can be ended at any point, and that others may write meanwhile.
import t, { type Test } from 'tap'
import { isDamaged } from '../../../service/bundle/member.ts'
import type { Available } from '../../../service/kernel/lookup.ts'
import {
  type Keep,
  type PackingEvent,
  packKernels,
  planPacking,
} from '../../../service/pack/packing.ts'
import {
  blobKey,
  Catalog,
  collectGarbage,
  getBlob,
  type KernelFilter,
  openStore,
  packKey,
  packsOf,
  putBlob,
  putRecord,
  type Store,
  sha256Of,
  verifyStore,
} from '../../../storage/index.ts'
import { nthBtf, packStore, putSeries } from '../../helpers/packs.ts'
import { keysOf } from '../../helpers/store-contract.ts'
import { btfOf, recordOf } from '../../helpers/test-service.ts'

interface Choice {
  keep?: Keep
  filter?: KernelFilter
  maxSize?: number
}

const optionsFor = async (
  store: Store,
  { keep = { newest: 1 }, filter = {}, ...rest }: Choice = {},
) => ({
  ...{ store, catalog: await Catalog.open(store), filter, keep, isDamaged, ...rest },
  read: ({ btf }: Available) => getBlob(store, btf.sha256),
})

const pack = async (store: Store, choice?: Choice): Promise<PackingEvent[]> =>
  await Array.fromAsync(packKernels(await optionsFor(store, choice)))

const digestsIn = async (store: Store): Promise<string[]> =>
  [...(await Catalog.open(store)).list()].map(({ record }) => record.btf!.sha256)

/** The same store, of which nothing is known yet. */
const seenAnew = (store: Store): Store => ({
  url: store.url,
  get: (...args) => store.get(...args),
  head: (...args) => store.head(...args),
  put: (...args) => store.put(...args),
  list: (...args) => store.list(...args),
  delete: (...args) => store.delete(...args),
})

/** Asserts that every kernel can be read by a process that knows nothing yet, and that nothing is damaged. */
async function isWhole(t: Test, store: Store, why: string): Promise<void> {
  const fresh = seenAnew(store)
  for (const sha256 of await digestsIn(fresh))
    if (sha256Of(await getBlob(fresh, sha256)) !== sha256) t.fail(`${why}: ${sha256}`)
  const findings = (await Array.fromAsync(verifyStore(fresh))).filter(({ behind }) => !behind)
  t.same(findings, [], why)
}

t.test('kernels go into a pack, and the newest of each series keep their blobs', async (t) => {
  const store = await openStore('memory:')
  const series = [
    ...(await putSeries(store, 4)),
    ...(await putSeries(store, 3, { flavour: 'cloud-amd64', from: 10 })),
  ]
  const [plan] = await planPacking(await optionsFor(store))
  t.match(plan, { distro: 'debian', arch: 'x86_64', add: 7, blobs: 5 })
  const before = await keysOf(store, '')
  const events = await pack(store)
  t.same(
    events.map(({ state }) => state),
    ['packed', ...Array.from({ length: 5 }, () => 'removed')],
    'one pack, written before the first blob is removed',
  )
  t.match(events[0], { members: 7, added: 7, distro: 'debian', arch: 'x86_64' })
  t.same(
    await keysOf(store, 'blobs/'),
    [series[3]!, series[6]!].map(({ btf }) => blobKey(btf.sha256)).sort(),
  )
  const removed = events.filter((event) => event.state === 'removed')
  t.equal(
    plan!.bytes,
    removed.reduce((sum, { size }) => sum + size, 0),
  )
  t.equal((await keysOf(store, '')).length, before.length - 4)
  await isWhole(t, store, 'after packing')
  t.same(await pack(store), [], 'nothing is left to do')
  t.match(await planPacking(await optionsFor(store)), [{ add: 0, blobs: 0, bytes: 0, packs: 0 }])
})

t.test('--keep tells which blobs stay', async (t) => {
  for (const [keep, left] of [
    [{ newest: 0 }, 0],
    [{ newest: 2 }, 2],
    [{ newest: 99 }, 4],
    ['all', 4],
  ] as const) {
    const store = await openStore('memory:')
    await putSeries(store, 4)
    await pack(store, { keep })
    t.equal((await keysOf(store, 'blobs/')).length, left, JSON.stringify(keep))
    t.equal((await keysOf(store, 'packs/')).length, 1)
  }
})

t.test(
  'filters choose kernels, and distributions and architectures have packs of their own',
  async (t) => {
    const store = await openStore('memory:')
    await putSeries(store, 3)
    await putSeries(store, 3, { distro: 'ubuntu', from: 5 })
    await pack(store, { filter: { distro: 'ubuntu' }, keep: { newest: 0 } })
    t.equal((await keysOf(store, 'blobs/')).length, 3)
    t.equal((await keysOf(store, 'packs/')).length, 1)
    await pack(store, { keep: { newest: 0 } })
    t.equal((await keysOf(store, 'packs/')).length, 2)
    await isWhole(t, store, 'both are packed')
  },
)

t.test('one kernel alone is not packed', async (t) => {
  const store = await openStore('memory:')
  await putSeries(store, 1)
  t.same(await pack(store, { keep: { newest: 0 } }), [])
  t.equal((await keysOf(store, 'blobs/')).length, 1)
})

t.test('a pack grows by its end, and the one that it replaces stays until gc', async (t) => {
  const store = await openStore('memory:')
  await putSeries(store, 3)
  await pack(store)
  const [first] = packsOf(store).list()
  await putSeries(store, 6)
  const [event] = await pack(store)
  t.match(event, { state: 'packed', members: 6, added: 3 })
  const second = packsOf(store)
    .list()
    .find(({ digest }) => digest !== first!.digest)!
  const frames = async ({ digest, members: { members } }: typeof second) => {
    const bytes = Buffer.concat(await (await store.get(packKey(digest))).body.toArray())
    return bytes.subarray(members[0]!.offset)
  }
  const [old, grown] = [await frames(first!), await frames(second)]
  t.ok(grown.subarray(0, old.length).equals(old), 'it begins with the frames of the old one')
  t.equal((await keysOf(store, 'packs/')).length, 2)
  const later = new Date(Date.now() + 48 * 3600 * 1000)
  const removed = await Array.fromAsync(collectGarbage(store, { now: later }))
  t.same(
    removed.map(({ key }) => key),
    [packKey(first!.digest)],
  )
  await isWhole(t, store, 'after gc')
})

t.test('a kernel that comes between others continues the one before it', async (t) => {
  const store = await openStore('memory:')
  const [one, two, three] = await putSeries(store, 3)
  await store.delete(blobKey(two!.btf.sha256))
  const others = await Catalog.open(store)
  for (const { key, record } of others.list())
    if (record.kernel.release === two!.kernel.release) await store.delete(key)
  await pack(store)
  await putBlob(store, nthBtf(1))
  await putRecord(store, two!)
  await pack(store)
  const { members } = packsOf(store)
    .list()
    .find(({ members: { members } }) => members.length === 3)!.members
  t.same(
    members.map(({ sha256, parent }) => [sha256, parent]),
    [
      [one!.btf.sha256, undefined],
      [three!.btf.sha256, 0],
      [two!.btf.sha256, 0],
    ],
  )
})

t.test('a full pack is not continued, and packs that are not full become one', async (t) => {
  const store = await openStore('memory:')
  await putSeries(store, 4)
  const [event] = await pack(store, { maxSize: 1 })
  t.match(event, { state: 'packed', members: 1 })
  t.equal((await keysOf(store, 'packs/')).length, 4)
  t.same(await pack(store, { maxSize: 1 }), [], 'all are full')
  const [merged] = await pack(store)
  t.match(merged, { state: 'packed', members: 4, added: 0 })
  const later = new Date(Date.now() + 48 * 3600 * 1000)
  t.equal((await Array.fromAsync(collectGarbage(store, { now: later }))).length, 4)
  await isWhole(t, store, 'one pack is left')
})

t.test('a pack of which most is needed no more is made anew', async (t) => {
  const store = await openStore('memory:')
  const all = await putSeries(store, 6)
  await pack(store, { keep: { newest: 0 } })
  const catalog = await Catalog.open(store)
  for (const { key, record } of catalog.list())
    if (record.btf!.sha256 !== all[5]!.btf.sha256) await store.delete(key)
  await putSeries(store, 2, { flavour: 'rt-amd64', from: 20 })
  const [event] = await pack(store, { keep: { newest: 0 } })
  t.match(event, { state: 'packed', members: 3, added: 2 })
  await isWhole(t, store, 'made anew')
})

t.test('BTF that cannot be read is left out, and its record stays', async (t) => {
  const store = await openStore('memory:')
  const records = await putSeries(store, 3)
  await store.put(blobKey(records[1]!.btf.sha256), Buffer.from('damaged'))
  const events = await pack(store, { keep: { newest: 0 } })
  t.match(events[0], { state: 'left out', kernel: records[1]!.kernel })
  t.same(await keysOf(store, 'blobs/'), [blobKey(records[1]!.btf.sha256)])
})

t.test('a damaged pack fails its group, and no blob of it is removed', async (t) => {
  const store = await openStore('memory:')
  await putSeries(store, 3)
  await putSeries(store, 3, { distro: 'ubuntu', from: 5 })
  const digest = await packStore(store)
  for (const n of [0, 1, 2, 5, 6, 7]) await putBlob(store, nthBtf(n))
  const bytes = Buffer.concat(await (await store.get(packKey(digest))).body.toArray())
  bytes[bytes.length - 10]! ^= 0xff
  await store.put(packKey(digest), bytes)
  const events = await pack(store, { keep: { newest: 0 } })
  t.match(
    events.filter(({ state }) => state === 'failed'),
    [{ distro: 'ubuntu', code: 'invalid_pack' }],
  )
  t.equal((await keysOf(store, 'blobs/')).length, 3)
  const { findings } = { findings: await Array.fromAsync(verifyStore(store, { repair: true })) }
  t.match(
    findings.filter(({ behind }) => !behind),
    [{ code: 'invalid_pack', repaired: true }],
  )
  await isWhole(t, store, 'after repair')
})

/** A store that calls `before` ahead of each operation that changes it, and counts them. */
function interrupted(store: Store, before: (count: number) => Promise<void> | void): Store {
  let count = 0
  const wrapped = seenAnew(store)
  wrapped.put = async (...args) => {
    await before(++count)
    return await store.put(...args)
  }
  wrapped.delete = async (key) => {
    await before(++count)
    await store.delete(key)
  }
  return wrapped
}

/** A store with a pack of three kernels that is to be replaced by one of five. */
async function halfPacked(): Promise<Store> {
  const store = await openStore('memory:')
  await putSeries(store, 3)
  await pack(store, { keep: { newest: 0 } })
  await putSeries(store, 5)
  return store
}

t.test(
  'a run that is killed before any change leaves a whole store, and can be run again',
  async (t) => {
    let changes = 0
    const counting = interrupted(await halfPacked(), (count) => {
      changes = count
    })
    await pack(counting, { keep: { newest: 0 } })
    t.ok(changes > 5, `${changes} changes`)
    for (let n = 1; n <= changes; n++) {
      const store = await halfPacked()
      const killed = interrupted(store, (count) => {
        if (count >= n) throw new Error('killed')
      })
      await t.rejects(pack(killed, { keep: { newest: 0 } }), { message: 'killed' })
      await isWhole(t, store, `killed before change ${n}`)
      await pack(store, { keep: { newest: 0 } })
      await isWhole(t, store, `run again after change ${n}`)
      t.same(await keysOf(store, 'blobs/'), [])
    }
  },
)

t.test('gc, another run and a writer between any two changes lose nothing', async (t) => {
  const later = () => new Date(Date.now() + 48 * 3600 * 1000)
  const others: Record<string, (store: Store) => Promise<unknown>> = {
    gc: (store) => Array.fromAsync(collectGarbage(store, { now: later() })),
    'another run': (store) => pack(store, { keep: { newest: 0 } }),
    'a repair': (store) => Array.fromAsync(verifyStore(store, { repair: true })),
    'a writer': async (store) => {
      const btf = await btfOf(store, nthBtf(2))
      await putRecord(store, recordOf({ distro: 'kali', release: 'new' }, { btf }))
      await putBlob(store, nthBtf(2))
    },
  }
  for (const [name, act] of Object.entries(others))
    for (let n = 1; n <= 6; n++) {
      const store = await halfPacked()
      const disturbed = interrupted(store, async (count) => {
        if (count === n) await act(seenAnew(store))
      })
      await pack(disturbed, { keep: { newest: 0 } })
      await isWhole(t, store, `${name} before change ${n}`)
      await Array.fromAsync(collectGarbage(store, { now: later() }))
      await isWhole(t, store, `${name} before change ${n}, and gc`)
    }
})

t.test('runs at the same time lose nothing, and the next one has one pack', async (t) => {
  const store = await halfPacked()
  const keep = { newest: 0 }
  await Promise.all([1, 2, 3].map(() => pack(seenAnew(store), { keep })))
  await isWhole(t, store, 'after three runs')
  await pack(store, { keep })
  const now = new Date(Date.now() + 48 * 3600 * 1000)
  await Array.fromAsync(collectGarbage(store, { now }))
  t.equal((await keysOf(store, 'packs/')).length, 1)
  await isWhole(t, store, 'after gc')
})

t.test(
  'a pack that gc may be about to remove is written again before a blob is removed',
  async (t) => {
    const store = await openStore('memory:')
    const records = await putSeries(store, 3)
    const digest = await packStore(store)
    for (const n of [0, 1, 2]) await putBlob(store, nthBtf(n))
    const list = store.list.bind(store)
    store.list = async function* (prefix) {
      for await (const info of list(prefix))
        yield prefix === 'packs/' ? { ...info, modified: new Date(0) } : info
    }
    const keys: string[] = []
    const put = store.put.bind(store)
    store.put = async (key, ...rest) => {
      keys.push(key)
      return await put(key, ...rest)
    }
    const events = await pack(store, { keep: { newest: 0 } })
    t.equal(events.length, records.length)
    t.same(keys, [packKey(digest)])
  },
)

t.test(
  'packs that do not fit into one are not merged, and every run ends with nothing to do',
  async (t) => {
    const store = await openStore('memory:')
    await putSeries(store, 3)
    await pack(store)
    const [first] = packsOf(store).list()
    const maxSize = Math.round(first!.info.size * 1.2)
    await putSeries(store, 3, { flavour: 'rt-amd64', from: 10 })
    await pack(store, { maxSize: 1, filter: { release: '*rt*' } })
    for (let run = 0; run < 3; run++) {
      await pack(store, { maxSize })
      await isWhole(t, store, `run ${run}`)
    }
    t.same(await pack(store, { maxSize }), [])
    const now = new Date(Date.now() + 48 * 3600 * 1000)
    await Array.fromAsync(collectGarbage(store, { now }))
    await isWhole(t, store, 'after gc')
    t.same(await pack(store, { maxSize }), [])
  },
)
