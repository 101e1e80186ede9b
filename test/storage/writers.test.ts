// Tests several writers on one store: their records, snapshots and signatures.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import t from 'tap'
import {
  type BuildRecord,
  Catalog,
  generateKeys,
  openStore,
  putRecord,
  SNAPSHOT_KEY,
  type Store,
  signatureKey,
  verifyContent,
} from '../../storage/index.ts'
import { keyOf, recordsOf } from '../helpers/recorder.ts'
import { snapshotKeys, writeTogether } from '../helpers/two-generators.ts'

t.test('two generators that share a directory lose no record, even when killed', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'writers-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  await writeTogether(t, `file:${directory}`)
})

const [FIRST, SECOND] = recordsOf('rival') as [BuildRecord, BuildRecord]

/** The store, with one interruption: after the first listing of `key`, or before the first put to it. */
function interrupted(store: Store, key: string, meanwhile: () => Promise<unknown>): Store {
  let left = 1
  const interrupt = async (at: string) => {
    if (at === key && left-- > 0) await meanwhile()
  }
  return Object.assign(Object.create(store), {
    get: (...args: Parameters<Store['get']>) => store.get(...args),
    head: (...args: Parameters<Store['head']>) => store.head(...args),
    async *list(prefix: string) {
      yield* store.list(prefix)
      await interrupt(prefix)
    },
    async put(...args: Parameters<Store['put']>) {
      await interrupt(args[0])
      return await store.put(...args)
    },
  })
}

for (const [state, before] of Object.entries({
  'there is no snapshot yet': undefined,
  'the existing snapshot is invalid': Buffer.from('x'),
}))
  t.test(
    `two concurrent publishers leave a snapshot with the records of both when ${state}`,
    async (t) => {
      const store = await openStore('memory:')
      if (before) await store.put(SNAPSHOT_KEY, before)
      await putRecord(store, FIRST)
      const rival = async () => {
        await putRecord(store, SECOND)
        await Catalog.publish(store)
      }
      await Catalog.publish(interrupted(store, 'kernels/', rival))
      t.same(await snapshotKeys(store), [FIRST, SECOND].map(keyOf).sort())
    },
  )

const bytesOf = async (store: Store, key: string): Promise<Buffer> =>
  await buffer((await store.get(key)).body)

async function isSigned(store: Store, publicKey: string): Promise<string> {
  const signature = await bytesOf(store, signatureKey(SNAPSHOT_KEY))
  return verifyContent(await bytesOf(store, SNAPSHOT_KEY), signature.toString(), publicKey)
}

t.test('two concurrent signers leave a signature that fits the final snapshot', async (t) => {
  const store = await openStore('memory:')
  const { publicKey, secretKey } = generateKeys()
  await putRecord(store, FIRST)
  const rival = async () => {
    await putRecord(store, SECOND)
    await Catalog.publish(store, secretKey)
  }
  await Catalog.publish(interrupted(store, signatureKey(SNAPSHOT_KEY), rival), secretKey)
  t.match(await isSigned(store, publicKey), SNAPSHOT_KEY)
})

t.test('publish signs a snapshot that a killed writer left unsigned', async (t) => {
  const store = await openStore('memory:')
  const { publicKey, secretKey } = generateKeys()
  await putRecord(store, FIRST)
  await Catalog.publish(store, secretKey)
  const signature = await bytesOf(store, signatureKey(SNAPSHOT_KEY))
  await Catalog.publish(store, secretKey)
  t.same(
    await bytesOf(store, signatureKey(SNAPSHOT_KEY)),
    signature,
    'an unchanged snapshot is not signed again',
  )
  await putRecord(store, SECOND)
  await Catalog.publish(store)
  await t.rejects(isSigned(store, publicKey), { code: 'invalid_signature' })
  await Catalog.publish(store, secretKey)
  t.match(await isSigned(store, publicKey), SNAPSHOT_KEY)
})
