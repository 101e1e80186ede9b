// The function names of kernels in a store: kept like blobs, below keys of their own, for as long as a record names them.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { zstdDecompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import {
  type BuildRecord,
  Catalog,
  collectGarbage,
  getBlob,
  getSymbols,
  openStore,
  putRecord,
  putSymbols,
  readRecord,
  recordKey,
  type Store,
  symbolsKey,
  verifyStore,
} from '../../storage/index.ts'
import { quarantineKey } from '../../storage/name.ts'
import { keysOf, storeError } from '../helpers/store-contract.ts'
import { btfOf, RAW, recordOf } from '../helpers/test-service.ts'

const TEXT = Buffer.from('vfs_read\nvfs_write inlined\n')
const TOMORROW = new Date(Date.now() + 25 * 3600 * 1000)

/** A clean store on disk of one kernel with symbols. */
async function filled(t: Test): Promise<{ store: Store; record: BuildRecord; key: string }> {
  const root = mkdtempSync(join(tmpdir(), 'symbols-'))
  t.teardown(() => rmSync(root, { recursive: true }))
  const store = await openStore(`file:${root}`)
  const symbols = { ...(await putSymbols(store, TEXT)), functions: 2, inlined: 1 }
  const record = recordOf({}, { btf: await btfOf(store, RAW.little), symbols })
  await putRecord(store, record)
  await Catalog.publish(store)
  t.same(await findings(store), [], 'clean')
  return { store, record, key: symbolsKey(symbols.sha256) }
}

const findings = (store: Store, repair = false) =>
  Array.fromAsync(verifyStore(store, { repair }), ({ code, key }) => `${code} ${key}`)

t.test(
  'symbols are stored compressed under the digest of their bytes, and read back',
  async (t) => {
    const { store, record, key } = await filled(t)
    const { sha256 } = record.symbols!
    t.equal(key, `symbols/${sha256.slice(0, 2)}/${sha256}.zst`)
    t.same(await keysOf(store, 'symbols/'), [key])
    t.same(zstdDecompressSync(await buffer((await store.get(key)).body)), TEXT)
    t.same(await getSymbols(store, sha256), TEXT)
    const stored = await readRecord(store, recordKey(record.kernel, record.package.version))
    t.same(stored.symbols, record.symbols)
    const [snapshot] = (await Catalog.openSnapshot(store)).list()
    t.same(snapshot?.record.symbols, record.symbols)
  },
)

t.test('damaged symbols are found, set aside and made again, and the BTF is served', async (t) => {
  const { store, record, key } = await filled(t)
  await store.put(key, Buffer.from('damaged'))
  await t.rejects(getSymbols(store, record.symbols!.sha256), storeError('digest_mismatch'))
  t.same(await findings(store), [`digest_mismatch ${key}`])
  const [finding] = await Array.fromAsync(verifyStore(store, { repair: true }))
  t.match(finding, { key, repaired: false, due: [record.kernel.release] })
  t.same(await findings(store), [], 'clean after the repair')
  const now = await readRecord(store, recordKey(record.kernel, record.package.version))
  t.equal(now.symbols, undefined)
  t.same(now.btf, record.btf)
  t.match(now.failure, { code: 'damaged_blob', message: /symbols .* damaged or lost/ })
  t.ok(Date.parse(now.failure!.retryAt!) <= Date.now(), 'the next run makes them again')
  t.same(await getBlob(store, record.btf!.sha256), RAW.little)
  const gone = await Array.fromAsync(collectGarbage(store, { now: TOMORROW }), ({ key }) => key)
  t.same(gone, [quarantineKey(key)])
})

t.test('symbols that are missing make their kernel due', async (t) => {
  const { store, record, key } = await filled(t)
  await store.delete(key)
  t.same(await findings(store), [`missing_blob ${key}`])
  const [finding] = await Array.fromAsync(verifyStore(store, { repair: true }))
  t.match(finding, { message: /^the symbols of .* do not exist$/, due: [record.kernel.release] })
  t.same(await findings(store), [])
})

t.test('an object that is no symbols is reported', async (t) => {
  const { store, key } = await filled(t)
  const wrong = [`symbols/aa/${'b'.repeat(64)}.zst`, key.replace('.zst', '.btf.zst')]
  for (const one of wrong) await store.put(one, TEXT)
  t.same((await findings(store)).sort(), wrong.map((one) => `unknown_object ${one}`).sort())
})

t.test('gc keeps symbols that a record names, and removes others once they are old', async (t) => {
  const { store, record, key } = await filled(t)
  const orphan = symbolsKey((await putSymbols(store, Buffer.from('other\n'))).sha256)
  const gc = async (now = new Date()) =>
    (await Array.fromAsync(collectGarbage(store, { now }))).map(({ key }) => key)
  t.same(await gc(), [], 'a recent one stays, since its record may follow')
  t.same(await gc(TOMORROW), [orphan])
  t.same(await keysOf(store, 'symbols/'), [key])
  t.same(await getSymbols(store, record.symbols!.sha256), TEXT)
})
