// Several generators on one store: killed and started again, or just between two steps of another's, they lose none of
// each other's records, and what is signed is what is there.
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
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
  verifyStore,
} from '../../storage/index.ts'
import { Random } from '../fuzz/random.ts'
import { keyOf, recordsOf } from './recorder.ts'

const RECORDER = join(import.meta.dirname, 'recorder.ts')
const NAMES = ['left', 'right']
const MAX_KILLS = 5
/** Milliseconds up to which a generator lives on after its first word. */
const LIFE = 800

/** Runs a generator to its end, killed again and again on the way there. Returns how often. */
async function runKilled(url: string, name: string, random: Random): Promise<number> {
  for (let kills = 0; ; kills++) {
    const child = spawn(process.execPath, [RECORDER, url, name], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const closed = once(child, 'close')
    await Promise.race([once(child.stdout, 'data'), closed])
    if (kills < MAX_KILLS) {
      await Promise.race([sleep(random.below(LIFE)), closed])
      child.kill('SIGKILL')
    }
    const [status, signal] = await closed
    if (status === 0) return kills
    if (signal !== 'SIGKILL') throw new Error(`${name} ended with ${status ?? signal}`)
  }
}

async function writeTogether(t: Test, url: string): Promise<void> {
  const seed = Number(process.env.BTFMILL_TEST_SEED ?? randomInt(2 ** 31))
  t.comment(`BTFMILL_TEST_SEED=${seed}`)
  const kills = await Promise.all(
    NAMES.map((name, i) => runKilled(url, name, new Random(seed + i))),
  )
  t.ok(Math.min(...kills) > 2, `killed ${kills.join(' and ')} times`)

  const store = await openStore(url)
  const keys = NAMES.flatMap((name) => recordsOf(name).map(keyOf)).sort()
  const kept = await Array.fromAsync(store.list('kernels/'), ({ key }) => key)
  t.same(kept, keys, 'every record')
  t.same(await snapshotKeys(store), keys, 'the snapshot has them all, whoever wrote it last')
  t.same(await Array.fromAsync(verifyStore(store)), [], 'clean')
}

t.test('on one disk', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'writers-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  await writeTogether(t, `file:${directory}`)
})

const [FIRST, SECOND] = recordsOf('rival') as [BuildRecord, BuildRecord]

/** The store, but for what happens once: just after the first listing of `key`, or before the first put. */
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

const snapshotKeys = async (store: Store): Promise<string[]> =>
  [...(await Catalog.openSnapshot(store)).list()].map(({ key }) => key)

for (const [state, before] of Object.entries({
  'there is none yet': undefined,
  'there is one that does not read': Buffer.from('x'),
}))
  t.test(`of two that publish a snapshot at once the later has both, where ${state}`, async (t) => {
    const store = await openStore('memory:')
    if (before) await store.put(SNAPSHOT_KEY, before)
    await putRecord(store, FIRST)
    const rival = async () => {
      await putRecord(store, SECOND)
      await Catalog.publish(store)
    }
    await Catalog.publish(interrupted(store, 'kernels/', rival))
    t.same(await snapshotKeys(store), [FIRST, SECOND].map(keyOf).sort())
  })

const bytesOf = async (store: Store, key: string): Promise<Buffer> =>
  await buffer((await store.get(key)).body)

async function isSigned(store: Store, publicKey: string): Promise<string> {
  const signature = await bytesOf(store, signatureKey(SNAPSHOT_KEY))
  return verifyContent(await bytesOf(store, SNAPSHOT_KEY), signature.toString(), publicKey)
}

t.test('of two that sign at once the signature is of what is there', async (t) => {
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

t.test('a writer killed before it signed is made up for by the next that publishes', async (t) => {
  const store = await openStore('memory:')
  const { publicKey, secretKey } = generateKeys()
  await putRecord(store, FIRST)
  await Catalog.publish(store, secretKey)
  const signature = await bytesOf(store, signatureKey(SNAPSHOT_KEY))
  await Catalog.publish(store, secretKey)
  t.same(await bytesOf(store, signatureKey(SNAPSHOT_KEY)), signature, 'it is signed once')
  await putRecord(store, SECOND)
  await Catalog.publish(store)
  await t.rejects(isSigned(store, publicKey), { code: 'bad_signature' })
  await Catalog.publish(store, secretKey)
  t.match(await isSigned(store, publicKey), SNAPSHOT_KEY)
})
