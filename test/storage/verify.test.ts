// Tests verifyStore, its repair, and collectGarbage, on stores with every kind of damage.
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  archiveKey,
  type BuildRecord,
  Catalog,
  collectGarbage,
  generateKeys,
  getBlob,
  openStore,
  publishArchive,
  putBlob,
  putRecord,
  type Store,
  verifyContent,
  verifyStore,
} from '../../storage/index.ts'
import { blobKey, recordKey } from '../../storage/name.ts'
import { btfOf, RAW, recordOf } from '../helpers/test-service.ts'

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const text = async (store: Store, key: string) => {
  const { body } = await store.get(key)
  return Buffer.concat(await body.toArray())
}

interface Filled {
  store: Store
  record: BuildRecord
  other: BuildRecord
}

/** A clean store of two kernels with different BTF, an archive tree and a snapshot. */
async function filled(t: Test, url = 'memory:'): Promise<Filled> {
  const store = await openStore(url)
  const [record, other] = [
    recordOf({ release: 'little' }, { btf: await btfOf(store, RAW.little) }),
    recordOf({ release: 'big', arch: 's390x' }, { btf: await btfOf(store, RAW.big) }),
  ]
  for (const one of [record, other]) await putRecord(store, one)
  const catalog = await Catalog.publish(store)
  t.equal(await publishArchive(store, catalog), 2)
  t.same(await findings(store), [], 'clean')
  return { store, record, other }
}

async function findings(store: Store, repair = false): Promise<string[]> {
  const found = await Array.fromAsync(verifyStore(store, { repair }))
  return found
    .map(({ code, key, repaired, behind }) => {
      t.equal(behind, code.startsWith('stale_'), code)
      return `${code} ${key}${repaired ? ' repaired' : ''}`
    })
    .sort()
}

/** BTF with the same meaning and other bytes. */
const newer = (raw: Buffer) => Buffer.concat([raw, Buffer.alloc(1)])

const littleBlob = blobKey(sha256(RAW.little))

const DAMAGE: Record<
  string,
  {
    damage: (filled: Filled) => Promise<unknown>
    found: (filled: Filled) => string[]
    repairable?: false
  }
> = {
  'a blob with other bytes': {
    damage: ({ store }) => store.put(littleBlob, Buffer.from('x')),
    found: () => [`digest_mismatch ${littleBlob}`],
  },
  'a blob with the bytes of another': {
    damage: async ({ store }) => store.put(littleBlob, await text(store, blobKey(sha256(RAW.big)))),
    found: () => [`digest_mismatch ${littleBlob}`],
  },
  'a missing blob': {
    damage: ({ store }) => store.delete(littleBlob),
    found: () => [`missing_blob ${littleBlob}`],
  },
  'a truncated archive': {
    damage: async ({ store, record }) => {
      const key = archiveKey(record.kernel)
      await store.put(key, (await text(store, key)).subarray(0, 100))
    },
    found: ({ record }) => [`digest_mismatch ${archiveKey(record.kernel)}`],
  },
  "an archive with another kernel's BTF": {
    damage: async ({ store, record, other }) =>
      store.put(archiveKey(record.kernel), await text(store, archiveKey(other.kernel))),
    found: ({ record }) => [`archive_mismatch ${archiveKey(record.kernel)}`],
  },
  'an archive of older BTF': {
    damage: async ({ store, record }) =>
      putRecord(store, { ...record, btf: await btfOf(store, newer(RAW.little)) }),
    found: ({ record }) => [
      `stale_archive ${archiveKey(record.kernel)}`,
      'stale_snapshot catalog/snapshot.ndjson.zst',
    ],
  },
  'a missing archive': {
    damage: ({ store, record }) => store.delete(archiveKey(record.kernel)),
    found: ({ record }) => [`missing_archive ${archiveKey(record.kernel)}`],
  },
  'an invalid manifest': {
    damage: ({ store }) => store.put('archive/manifest.json', Buffer.from('{')),
    found: () => ['invalid_record archive/manifest.json'],
  },
  'a missing manifest': {
    damage: ({ store }) => store.delete('archive/manifest.json'),
    found: () => ['stale_manifest archive/manifest.json'],
  },
  'an invalid snapshot': {
    damage: ({ store }) => store.put('catalog/snapshot.ndjson.zst', Buffer.from('x')),
    found: () => ['invalid_snapshot catalog/snapshot.ndjson.zst'],
  },
  'a snapshot that is behind the records': {
    damage: ({ store, record }) =>
      putRecord(store, { ...record, updatedAt: '2026-11-02T00:00:00.000Z' }),
    found: () => ['stale_snapshot catalog/snapshot.ndjson.zst'],
  },
  'a foreign object': {
    damage: ({ store }) => store.put('blobs/aa/x', Buffer.from('x')),
    found: () => ['unknown_object blobs/aa/x'],
    repairable: false,
  },
  'an invalid record': {
    damage: ({ store }) => store.put('kernels/debian/12/x86_64/k/1.json', Buffer.from('{}')),
    found: () => ['invalid_record kernels/debian/12/x86_64/k/1.json'],
    repairable: false,
  },
  "a record under another kernel's name": {
    damage: ({ store, record }) =>
      store.put('kernels/debian/12/x86_64/k/1.json', Buffer.from(JSON.stringify(record))),
    found: () => ['invalid_record kernels/debian/12/x86_64/k/1.json'],
    repairable: false,
  },
}

for (const [name, { damage, found, repairable = true }] of Object.entries(DAMAGE)) {
  t.test(
    `verifyStore reports ${repairable ? 'and repairs' : 'but cannot repair'} ${name}`,
    async (t) => {
      const all = await filled(t)
      await damage(all)
      const expected = found(all)
      t.same(await findings(all.store), expected)
      t.same(await findings(all.store), expected, 'verifyStore without repair changes nothing')
      const repaired = await findings(all.store, true)
      t.same(repaired, repairable ? expected.map((line) => `${line} repaired`) : expected)
      if (!repairable) return
      t.same(await findings(all.store), [], 'the store is clean after the repair')
      t.ok((await getBlob(all.store, sha256(RAW.little))).equals(RAW.little))
    },
  )
}

t.test('verifyStore does not claim to repair a blob whose archive is missing too', async (t) => {
  const { store, record } = await filled(t)
  await store.delete(littleBlob)
  await store.delete(archiveKey(record.kernel))
  const lost = (await findings(store)).filter((line) => line.startsWith('missing_blob'))
  t.same(lost, [`missing_blob ${littleBlob}`])
  const repaired = await findings(store, true)
  t.ok(repaired.includes(`missing_blob ${littleBlob}`), 'the blob is reported as not repaired')
})

t.test('publishArchive follows the records and signs the manifest', async (t) => {
  const { store, record } = await filled(t)
  t.equal(
    await publishArchive(store, await Catalog.open(store)),
    0,
    'a current tree is not written',
  )
  await putRecord(store, { ...record, btf: await btfOf(store, RAW.big) })
  const { publicKey, secretKey } = generateKeys()
  t.equal(await publishArchive(store, await Catalog.publish(store, secretKey), { secretKey }), 1)
  t.same(await findings(store), [])
  for (const key of ['archive/manifest.json', 'catalog/snapshot.ndjson.zst']) {
    const signature = (await text(store, `${key}.minisig`)).toString()
    t.match(verifyContent(await text(store, key), signature, publicKey), `file:${key}`)
  }
})

t.test('collectGarbage removes a blob that no record names once it is old', async (t) => {
  const { store } = await filled(t)
  const orphan = blobKey((await putBlob(store, Buffer.from('orphan'))).sha256)
  const gc = async (options = {}) =>
    (await Array.fromAsync(collectGarbage(store, options))).map(({ key }) => key)
  const tomorrow = new Date(Date.now() + 25 * 3600 * 1000)
  t.same(await gc(), [], 'a recent blob stays, since its record may follow')
  t.same(await gc({ now: tomorrow }), [orphan])
  t.same(await gc({ now: tomorrow }), [])
  t.same(await findings(store), [])
})

t.test('collectGarbage keeps blobs from the future when the clock goes backwards', async (t) => {
  const { store } = await filled(t)
  const { sha256: digest } = await putBlob(store, Buffer.from('orphan'))
  const before = new Date(Date.now() - 365 * 24 * 3600 * 1000)
  t.same(await Array.fromAsync(collectGarbage(store, { now: before })), [])
  t.equal((await getBlob(store, digest)).toString(), 'orphan')
})

t.test(
  'collectGarbage removes nothing while a record is invalid, since it might name any blob',
  async (t) => {
    const { store, record } = await filled(t)
    await store.put(recordKey(record.kernel, record.package.version), Buffer.from('{}'))
    await t.rejects(Array.fromAsync(collectGarbage(store, { minAge: -1 })), {
      code: 'invalid_record',
    })
    t.ok((await getBlob(store, sha256(RAW.little))).equals(RAW.little))
  },
)

t.test('collectGarbage keeps a blob that is written again while it runs', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'gc-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const { store, record } = await filled(t, `file:${directory}`)
  const raw = Buffer.from('wanted again')
  const { sha256: digest } = await putBlob(store, raw)
  const key = blobKey(digest)
  const racing: Store = {
    url: store.url,
    get: (...args) => store.get(...args),
    put: (...args) => store.put(...args),
    delete: (...args) => store.delete(...args),
    list: (...args) => store.list(...args),
    async head(...args) {
      const compressed = await text(store, key)
      await store.put(key, compressed)
      return await store.head(...args)
    },
  }
  t.same(await Array.fromAsync(collectGarbage(racing, { minAge: -1 })), [])
  t.ok((await getBlob(store, digest)).equals(raw))
  t.ok(record)
})
