// Removing kernels: records, snapshot, archive tree and, once they are old, blobs.
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  Catalog,
  collectGarbage,
  freedBy,
  newestOfSeries,
  openStore,
  publishArchive,
  putRecord,
  removeKernels,
  type Store,
  verifyStore,
} from '../../storage/index.ts'
import { littleKernels } from '../helpers/core.ts'
import { btfOf, recordOf } from '../helpers/test-service.ts'

const little = (machine: string) => readFileSync(littleKernels().get(machine)!)

/** Three kernels with two BTF: the first has its own, the others share one. */
async function storeOfThree(): Promise<{ store: Store; catalog: Catalog }> {
  const store = await openStore('memory:')
  for (const [release, machine] of [
    ['6.1.0-8-amd64', 'i686'],
    ['6.1.0-9-amd64', 'x86_64'],
    ['6.1.0-10-amd64', 'x86_64'],
  ] as const)
    await putRecord(store, recordOf({ release }, { btf: await btfOf(store, little(machine)) }))
  const catalog = await Catalog.publish(store)
  await publishArchive(store, catalog)
  return { store, catalog }
}

const kernel = (release: string) => recordOf({ release }).kernel

async function keysOf(store: Store): Promise<string[]> {
  return (await Array.fromAsync(store.list(''))).map(({ key }) => key).sort()
}

t.test('a removed kernel leaves the records, the snapshot and the archive tree', async (t) => {
  const { store } = await storeOfThree()
  const removed: string[] = []
  await removeKernels(store, [kernel('6.1.0-9-amd64')], {
    onRemoved: ({ release }) => removed.push(release),
  })
  t.same(removed, ['6.1.0-9-amd64'])
  t.notMatch((await keysOf(store)).join('\n'), '6.1.0-9-amd64')
  const catalog = await Catalog.openSnapshot(store)
  t.equal(catalog.find(kernel('6.1.0-9-amd64')).length, 0)
  t.equal(catalog.size, 2)
  t.same(await Array.fromAsync(verifyStore(store)), [], 'the rest is consistent')
})

t.test('what a removal frees is what garbage collection then removes', async (t) => {
  const { store, catalog } = await storeOfThree()
  const later = { minAge: 0, now: new Date(Date.now() + 1000) }
  const shared = [kernel('6.1.0-9-amd64')]
  t.same(await freedBy(store, catalog, shared), { blobs: 0, bytes: 0 }, 'another has the same BTF')
  const both = [kernel('6.1.0-9-amd64'), kernel('6.1.0-10-amd64')]
  const freed = await freedBy(store, catalog, both)
  await removeKernels(store, both)
  const collected = await Array.fromAsync(collectGarbage(store, later))
  t.same(freed, { blobs: 1, bytes: collected[0]?.size })
  t.equal(collected.length, 1)
})

t.test('a removal that was killed leaves what a repair completes', async (t) => {
  const { store } = await storeOfThree()
  const original = { delete: store.delete.bind(store), put: store.put.bind(store) }
  const at = { record: false, snapshot: true }
  for (const [moment, isGone] of Object.entries(at)) {
    store.delete = async (key) => {
      if (moment === 'record' && key.startsWith('kernels/')) throw new Error('killed')
      await original.delete(key)
    }
    store.put = async () => {
      throw new Error('killed')
    }
    await t.rejects(removeKernels(store, [kernel('6.1.0-8-amd64')]), { message: 'killed' })
    Object.assign(store, original)
    const findings = await Array.fromAsync(verifyStore(store, { repair: true }))
    t.ok(findings.length > 0, moment)
    t.ok(findings.every(({ repaired }) => repaired))
    t.same(await Array.fromAsync(verifyStore(store)), [])
    const isThere = (await keysOf(store)).join('\n').includes('6.1.0-8-amd64')
    t.equal(isThere, !isGone, 'the records decide')
  }
})

t.test('the newest of each series are by version, and keep the given order', async (t) => {
  const kernels = [
    '6.1.0-9-amd64',
    '6.1.0-10-amd64',
    '6.1.0-9-cloud-amd64',
    '5.10.0-30-amd64',
    '6.1.0-8-cloud-amd64',
  ].map(kernel)
  t.same(
    newestOfSeries(kernels, 1, (of) => of).map(({ release }) => release),
    ['6.1.0-10-amd64', '6.1.0-9-cloud-amd64'],
  )
  t.equal(newestOfSeries(kernels, 9, (of) => of).length, 5)
})
