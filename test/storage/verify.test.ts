// verify, repair and gc on stores with damage of every kind.
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

/** A store of two kernels with different BTF, an archive tree and a snapshot; clean. */
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

/** BTF that says the same in other bytes. */
const newer = (raw: Buffer) => Buffer.concat([raw, Buffer.alloc(1)])

const littleBlob = blobKey(sha256(RAW.little))

const DAMAGE: Record<
  string,
  {
    damage: (filled: Filled) => Promise<unknown>
    found: (filled: Filled) => string[]
    mends?: false
  }
> = {
  'a blob with other bytes': {
    damage: ({ store }) => store.put(littleBlob, Buffer.from('x')),
    found: () => [`digest_mismatch ${littleBlob}`],
  },
  'a blob of another': {
    damage: async ({ store }) => store.put(littleBlob, await text(store, blobKey(sha256(RAW.big)))),
    found: () => [`digest_mismatch ${littleBlob}`],
  },
  'a blob that is gone': {
    damage: ({ store }) => store.delete(littleBlob),
    found: () => [`missing_blob ${littleBlob}`],
  },
  'an archive that is cut short': {
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
  'an archive that is gone': {
    damage: ({ store, record }) => store.delete(archiveKey(record.kernel)),
    found: ({ record }) => [`missing_archive ${archiveKey(record.kernel)}`],
  },
  'a manifest that does not read': {
    damage: ({ store }) => store.put('archive/manifest.json', Buffer.from('{')),
    found: () => ['invalid_record archive/manifest.json'],
  },
  'a manifest that is gone': {
    damage: ({ store }) => store.delete('archive/manifest.json'),
    found: () => ['stale_manifest archive/manifest.json'],
  },
  'a snapshot that does not read': {
    damage: ({ store }) => store.put('catalog/snapshot.ndjson.zst', Buffer.from('x')),
    found: () => ['invalid_snapshot catalog/snapshot.ndjson.zst'],
  },
  'a snapshot that is behind': {
    damage: ({ store, record }) =>
      putRecord(store, { ...record, updatedAt: '2026-11-02T00:00:00.000Z' }),
    found: () => ['stale_snapshot catalog/snapshot.ndjson.zst'],
  },
  'what is nothing of ours': {
    damage: ({ store }) => store.put('blobs/aa/x', Buffer.from('x')),
    found: () => ['unknown_object blobs/aa/x'],
    mends: false,
  },
  'a record that does not read': {
    damage: ({ store }) => store.put('kernels/debian/12/x86_64/k/1.json', Buffer.from('{}')),
    found: () => ['invalid_record kernels/debian/12/x86_64/k/1.json'],
    mends: false,
  },
  "a record under another kernel's name": {
    damage: ({ store, record }) =>
      store.put('kernels/debian/12/x86_64/k/1.json', Buffer.from(JSON.stringify(record))),
    found: () => ['invalid_record kernels/debian/12/x86_64/k/1.json'],
    mends: false,
  },
}

for (const [name, { damage, found, mends = true }] of Object.entries(DAMAGE)) {
  t.test(`${name}: named${mends ? ', and made again' : ''}`, async (t) => {
    const all = await filled(t)
    await damage(all)
    const expected = found(all)
    t.same(await findings(all.store), expected)
    t.same(await findings(all.store), expected, 'looking changes nothing')
    const repaired = await findings(all.store, true)
    t.same(repaired, mends ? expected.map((line) => `${line} repaired`) : expected)
    if (!mends) return
    t.same(await findings(all.store), [], 'clean again')
    t.ok((await getBlob(all.store, sha256(RAW.little))).equals(RAW.little))
  })
}

t.test(
  'a blob with its archive gone too cannot be made again, and is not claimed to be',
  async (t) => {
    const { store, record } = await filled(t)
    await store.delete(littleBlob)
    await store.delete(archiveKey(record.kernel))
    const lost = (await findings(store)).filter((line) => line.startsWith('missing_blob'))
    t.same(lost, [`missing_blob ${littleBlob}`])
    const repaired = await findings(store, true)
    t.ok(repaired.includes(`missing_blob ${littleBlob}`), 'and not repaired')
  },
)

t.test('the archive tree follows the records, and is signed', async (t) => {
  const { store, record } = await filled(t)
  t.equal(await publishArchive(store, await Catalog.open(store)), 0, 'nothing to do')
  await putRecord(store, { ...record, btf: await btfOf(store, RAW.big) })
  const { publicKey, secretKey } = generateKeys()
  t.equal(await publishArchive(store, await Catalog.publish(store, secretKey), { secretKey }), 1)
  t.same(await findings(store), [])
  for (const key of ['archive/manifest.json', 'catalog/snapshot.ndjson.zst']) {
    const signature = (await text(store, `${key}.minisig`)).toString()
    t.match(verifyContent(await text(store, key), signature, publicKey), `file:${key}`)
  }
})

t.test('gc takes what no record names, when it is old', async (t) => {
  const { store } = await filled(t)
  const orphan = blobKey((await putBlob(store, Buffer.from('orphan'))).sha256)
  const gc = async (options = {}) =>
    (await Array.fromAsync(collectGarbage(store, options))).map(({ key }) => key)
  const tomorrow = new Date(Date.now() + 25 * 3600 * 1000)
  t.same(await gc(), [], 'it is young: its record may be on its way')
  t.same(await gc({ now: tomorrow }), [orphan])
  t.same(await gc({ now: tomorrow }), [])
  t.same(await findings(store), [])
})

t.test('gc and a clock that goes backwards: what is written in the future is young', async (t) => {
  const { store } = await filled(t)
  const { sha256: digest } = await putBlob(store, Buffer.from('orphan'))
  const before = new Date(Date.now() - 365 * 24 * 3600 * 1000)
  t.same(await Array.fromAsync(collectGarbage(store, { now: before })), [])
  t.equal((await getBlob(store, digest)).toString(), 'orphan')
})

t.test('gc takes nothing while a record does not read: it might name any', async (t) => {
  const { store, record } = await filled(t)
  await store.put(recordKey(record.kernel, record.package.version), Buffer.from('{}'))
  await t.rejects(Array.fromAsync(collectGarbage(store, { minAge: -1 })), {
    code: 'invalid_record',
  })
  t.ok((await getBlob(store, sha256(RAW.little))).equals(RAW.little))
})

t.test('gc leaves a blob that is written again while it looks', async (t) => {
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
