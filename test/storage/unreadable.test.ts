// One object of a store that cannot be read, in every way in which that happens on disk and on S3: it is reported, and
// neither stops the reading of the others nor is taken for a deleted one.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import {
  archiveKey,
  Catalog,
  collectGarbage,
  kernelPrefix,
  listSourceFailures,
  openStore,
  publishArchive,
  putRecord,
  putSourceResult,
  recordKey,
  type Store,
  StoreError,
  type StoreErrorCode,
  verifyStore,
} from '../../storage/index.ts'
import { blobKey } from '../../storage/name.ts'
import { btfOf, RAW, recordOf } from '../helpers/test-service.ts'

const good = recordOf({ release: 'good' })
const other = recordOf({ release: 'other' })
const OTHER = recordKey(other.kernel, other.package.version)
const SNAPSHOT = 'catalog/snapshot.ndjson.zst'
const MANIFEST = 'archive/manifest.json'

/** A store on disk with two kernels, an archive tree and a snapshot. */
async function filled(t: Test) {
  const root = mkdtempSync(join(tmpdir(), 'unreadable-'))
  t.teardown(() => rmSync(root, { recursive: true }))
  const store = await openStore(`file:${root}`)
  await putRecord(store, { ...good, btf: await btfOf(store, RAW.little) })
  const btf = await btfOf(store, RAW.big)
  await putRecord(store, { ...other, btf })
  await publishArchive(store, await Catalog.publish(store))
  return { root, store, blob: blobKey(btf.sha256), archive: archiveKey(other.kernel) }
}

/** A store that denies the reading of some objects, as a file's mode or the policy of a bucket does. */
const denying = (store: Store, ...keys: string[]): Store =>
  Object.assign(Object.create(store), {
    head: (key: string) => store.head(key),
    put: (...args: Parameters<Store['put']>) => store.put(...args),
    list: (prefix: string) => store.list(prefix),
    delete: (key: string) => store.delete(key),
    get: async (key: string) => {
      if (keys.includes(key)) throw new StoreError('not_permitted', `${key}: 403 AccessDenied`)
      return await store.get(key)
    },
  })

/** The ways in which the object at a key becomes unreadable. Each returns the store as it is then. */
const WAYS: Record<string, (store: Store, root: string, key: string) => Store> = {
  'that is a link to itself': (store, root, key) => linked(store, join(root, key), join(root, key)),
  'that is a link to nothing': (store, root, key) => linked(store, join(root, key), '/none'),
  'with a directory in its place': (store, root, key) => {
    rmSync(join(root, key))
    mkdirSync(join(root, key))
    return store
  },
  'that the store denies': (store, _, key) => denying(store, key),
}

function linked(store: Store, path: string, target: string): Store {
  rmSync(path, { recursive: true })
  symlinkSync(target, path)
  return store
}

const codeOf = (way: string): StoreErrorCode =>
  way.includes('denies') ? 'not_permitted' : 'unreadable'

async function reported(open: (report: (error: StoreError, key: string) => void) => unknown) {
  const lines: string[] = []
  await open(({ code }, key) => lines.push(`${code} ${key}`))
  return lines
}

const releases = (catalog: Catalog) =>
  [...catalog.list()].map(({ record }) => record.kernel.release)

const findings = async (store: Store, repair = false) =>
  (await Array.fromAsync(verifyStore(store, { repair }))).map(
    ({ code, key, repaired }) => `${code} ${key}${repaired ? ' repaired' : ''}`,
  )

for (const [way, spoil] of Object.entries(WAYS)) {
  const finding = `${codeOf(way)} ${OTHER}`

  t.test(`a record ${way} is reported, and stays as it was known`, async (t) => {
    const { root, store } = await filled(t)
    const before = await Catalog.open(store)
    const now = spoil(store, root, OTHER)
    let catalog!: Catalog
    const lines = await reported(async (report) => {
      catalog = new Catalog(now, report)
      await catalog.refresh()
    })
    t.same(lines, [finding])
    t.same(releases(catalog), ['good'])
    t.equal(catalog.unusable, 1)
    t.same(releases(await Catalog.open(now)), ['good', 'other'], 'the snapshot still tells of it')
    await before.refresh()
    t.same(releases(before), ['good', 'other'])
    t.same(releases(await Catalog.publish(now)), ['good', 'other'])
    t.ok((await findings(now)).includes(finding), 'verifyStore lists it')
    const dayAfter = new Date(Date.now() + 48 * 3600 * 1000)
    await t.rejects(Array.fromAsync(collectGarbage(now, { now: dayAfter })), { code: codeOf(way) })
  })

  t.test(`a failed source's document ${way} is reported`, async (t) => {
    const { root, store } = await filled(t)
    const at = '2026-11-01T00:00:00.000Z'
    const failure = { code: 'stalled', message: '', attempts: 1, at, retryAt: at } as const
    for (const suite of ['a', 'b'])
      await putSourceResult(store, { schema: 1, source: 's', suite, url: '', failure })
    const now = spoil(store, root, 'sources/s/a.json')
    let found: string[] = []
    const lines = await reported(async (report) => {
      found = await Array.fromAsync(listSourceFailures(now, report), ({ suite }) => suite)
    })
    t.same(found, ['b'])
    t.same(lines, [`${codeOf(way)} sources/s/a.json`])
    t.same(await findings(now), lines, 'verifyStore lists it')
  })

  t.test(`verifyStore reports a blob, archive, manifest or snapshot ${way}`, async (t) => {
    const { archive, blob } = await filled(t)
    for (const key of [blob, archive, MANIFEST, SNAPSHOT]) {
      const { root, store } = await filled(t)
      const now = spoil(store, root, key)
      const expected = `${codeOf(way)} ${key}`
      t.ok((await findings(now)).includes(expected), expected)
      const repaired = await findings(now, true)
      if (!way.includes('link')) continue // a directory stays, and so does what the store denies
      t.ok(repaired.includes(`${expected} repaired`), `${expected} repaired`)
      t.same(await findings(store), [], 'clean after the repair')
    }
  })

  t.test(`a snapshot ${way} is reported, and the records are read instead`, async (t) => {
    const { root, store } = await filled(t)
    const now = spoil(store, root, SNAPSHOT)
    const catalog = new Catalog(now, () => {})
    await catalog.follow()
    t.same(releases(catalog), ['good', 'other'])
  })
}

t.test('a directory of records that cannot be listed is reported, and they stay', async (t) => {
  const { root, store } = await filled(t)
  const catalog = await Catalog.open(store, () => {})
  const prefix = kernelPrefix(other.kernel).slice(0, -1)
  linked(store, join(root, prefix), join(root, prefix))
  const lines = await reported(async (report) => {
    await new Catalog(store, report).refresh()
  })
  t.same(lines, [`unreadable ${prefix}`])
  await catalog.refresh()
  t.same(releases(catalog), ['good', 'other'])
  t.same(await findings(store), [
    `unreadable ${prefix}`,
    `stale_archive ${archiveKey(other.kernel)}`,
  ])
})

t.test('a record of a newer btfmill says so, and is left alone', async (t) => {
  const { root, store } = await filled(t)
  const newer = JSON.stringify({ schema: 3, anything: true })
  writeFileSync(join(root, OTHER), newer)
  mkdirSync(dirname(join(root, 'sources/s/a.json')), { recursive: true })
  writeFileSync(join(root, 'sources/s/a.json'), newer)
  const messages: string[] = []
  const catalog = await Catalog.open(store, ({ message }) => messages.push(message))
  const text = 'written by a newer btfmill: schema 3, this one reads 1'
  t.same(messages, [`${OTHER}: ${text}`])
  t.same(releases(catalog), ['good'])
  const found = (await findings(store, true)).filter((line) => line.startsWith('newer_schema'))
  t.same(found, [`newer_schema ${OTHER}`, 'newer_schema sources/s/a.json'])
})
