// BTF of which no copy is left: verifyStore sets it aside and makes its kernels due, on disk and in memory.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import {
  archiveKey,
  type BuildRecord,
  Catalog,
  collectGarbage,
  openStore,
  publishArchive,
  putBlob,
  putRecord,
  readRecord,
  recordKey,
  type Store,
  verifyStore,
} from '../../storage/index.ts'
import { blobKey, quarantineKey } from '../../storage/name.ts'
import { btfOf, RAW, recordOf } from '../helpers/test-service.ts'

const DAMAGED = Buffer.from('damaged')
const keyOf = ({ kernel, package: { version } }: BuildRecord) => recordKey(kernel, version)

const BACKENDS: Record<string, (t: Test) => string> = {
  'in memory': () => 'memory:',
  'on disk': (t) => {
    const root = mkdtempSync(join(tmpdir(), 'lost-'))
    t.teardown(() => rmSync(root, { recursive: true }))
    return `file:${root}`
  },
}

/** A store whose kernels have no archive. */
async function filled(url: string, ...records: BuildRecord[]): Promise<Store> {
  const store = await openStore(url)
  for (const record of records) await putRecord(store, record)
  await Catalog.publish(store)
  return store
}

const repair = async (store: Store, secondRun: readonly string[] = []) => {
  const found = await Array.fromAsync(verifyStore(store, { repair: true }))
  const after = await Array.fromAsync(verifyStore(store), ({ code, key }) => `${code} ${key}`)
  t.same(after, secondRun, 'a second run finds nothing more')
  return found.map(({ code, key, repaired, due }) => ({ code, key, repaired, due }))
}

for (const [where, urlOf] of Object.entries(BACKENDS)) {
  t.test(`a damaged blob ${where} is set aside, and all its kernels are due`, async (t) => {
    const url = urlOf(t)
    const btf = await btfOf(await openStore('memory:'), RAW.little)
    const [a, b] = [recordOf({ release: 'a' }, { btf }), recordOf({ release: 'b' }, { btf })]
    const store = await filled(url, a, b)
    const other = recordOf({ release: 'c' }, { btf: await btfOf(store, RAW.big) })
    await putRecord(store, other)
    await store.put(blobKey(btf.sha256), DAMAGED)
    const key = blobKey(btf.sha256)
    const [finding] = await repair(store)
    t.same(finding, { code: 'digest_mismatch', key, repaired: false, due: ['a', 'b'] })
    for (const record of [a, b]) {
      const now = await readRecord(store, keyOf(record))
      t.match(now, { btf: undefined, failure: { code: 'damaged_blob', attempts: 1 } })
      t.ok(Date.parse(now.failure!.retryAt!) <= Date.now(), 'the next run makes it again')
    }
    t.same(await readRecord(store, keyOf(other)), other)
    const [snapshot] = (await Catalog.openSnapshot(store)).list()
    t.equal(snapshot?.record.btf, undefined, 'readers of the snapshot know')
    const aside = quarantineKey(blobKey(btf.sha256))
    t.same(await buffer((await store.get(aside)).body), DAMAGED)
    const gc = (now: Date) => Array.fromAsync(collectGarbage(store, { now }), ({ key }) => key)
    t.same(await gc(new Date()), [])
    t.same(await gc(new Date(Date.now() + 25 * 3600 * 1000)), [aside])
  })

  t.test(`a kernel whose blob ${where} is missing is due`, async (t) => {
    const url = urlOf(t)
    const record = recordOf({}, { btf: await btfOf(await openStore('memory:'), RAW.little) })
    const store = await filled(url, record)
    const key = blobKey(record.btf!.sha256)
    const due = [record.kernel.release]
    t.same((await repair(store))[0], { code: 'missing_blob', key, repaired: false, due })
    t.match(await readRecord(store, keyOf(record)), { failure: { code: 'damaged_blob' } })
  })
}

t.test('a damaged blob of a module makes the module due, and the kernel stays', async (t) => {
  const store = await openStore('memory:')
  const { sha256, size } = await putBlob(store, Buffer.from('module'))
  const good = await putBlob(store, Buffer.from('good'))
  const record = recordOf(
    {},
    {
      btf: await btfOf(store, RAW.little),
      modules: { bad: { sha256, size, types: 1 }, good: { ...good, types: 1 } },
      wantedModules: ['*'],
    },
  )
  await putRecord(store, record)
  await store.put(blobKey(sha256), DAMAGED)
  t.match(await repair(store), [{ code: 'digest_mismatch', key: blobKey(sha256) }, {}])
  const now = await readRecord(store, keyOf(record))
  t.same(now.btf, record.btf)
  t.equal(now.failure, undefined)
  t.same(now.modules, { good: record.modules!.good })
  t.same(now.wantedModules, ['good'], 'a run that wants all modules, or this one, makes it')
  t.match(now.moduleFailures, { bad: { code: 'damaged_blob' } })
})

t.test('an archive that is damaged as well is removed from the tree', async (t) => {
  const store = await openStore('memory:')
  const record = recordOf({}, { btf: await btfOf(store, RAW.little) })
  await putRecord(store, record)
  await publishArchive(store, await Catalog.publish(store))
  await store.put(blobKey(record.btf!.sha256), DAMAGED)
  await store.put(archiveKey(record.kernel), DAMAGED)
  const found = await repair(store)
  t.same(
    found.map(({ code, repaired, due }) => [code, repaired, due?.length]),
    [
      ['digest_mismatch', false, 1],
      ['digest_mismatch', true, undefined],
      ['stale_snapshot', true, undefined],
    ],
  )
})

t.test(
  'a record that is named after its lost BTF is removed, so it can be imported again',
  async (t) => {
    const store = await openStore('memory:')
    const btf = await btfOf(store, RAW.little)
    const record = recordOf({}, { btf, origin: 'import' })
    record.package.version = ''
    delete record.kernel.buildId
    await putRecord(store, record)
    await store.put(blobKey(btf.sha256), DAMAGED)
    t.match(await repair(store), [{ due: [record.kernel.release] }])
    t.same(await Array.fromAsync(store.list('kernels/')), [])
  },
)

t.test('a damaged blob that no record names is set aside', async (t) => {
  const store = await openStore('memory:')
  const { sha256 } = await putBlob(store, Buffer.from('orphan'))
  await store.put(blobKey(sha256), DAMAGED)
  t.match(await repair(store), [{ code: 'digest_mismatch', due: [] }])
})

t.test('a writer that makes the BTF during the repair wins', async (t) => {
  const store = await openStore('memory:')
  const record = recordOf({}, { btf: await btfOf(store, RAW.little) })
  await putRecord(store, record)
  await store.delete(blobKey(record.btf!.sha256))
  // the writer stores its blob just after the record has been made due
  const racing: Store = Object.assign(Object.create(store), {
    get: (key: string) => store.get(key),
    head: (key: string) => store.head(key),
    list: (prefix: string) => store.list(prefix),
    delete: (key: string) => store.delete(key),
    put: async (...args: Parameters<Store['put']>) => {
      const info = await store.put(...args)
      if (args[0] === keyOf(record)) await putBlob(store, RAW.little)
      return info
    },
  })
  await Array.fromAsync(verifyStore(racing, { repair: true }))
  t.same(await readRecord(store, keyOf(record)), record)
  t.same(await Array.fromAsync(verifyStore(store)), [])
})
