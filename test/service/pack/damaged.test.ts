// A store with two packs of the same kernels, of which one is damaged: everything reads the other one.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { withStored } from '../../../service/threads/btf-input.ts'
import { Pool } from '../../../service/threads/pool.ts'
import {
  blobKey,
  openStore,
  packKey,
  packsOf,
  type Store,
  sha256Of,
} from '../../../storage/index.ts'
import { run } from '../../helpers/command.ts'
import { coreObjects } from '../../helpers/core.ts'
import { framesAt, putPackOf, putSeries } from '../../helpers/packs.ts'
import { ask, startTestService } from '../../helpers/test-service.ts'

const COUNT = 4

async function bytesOf(store: Store, key: string): Promise<Buffer> {
  return Buffer.concat(await (await store.get(key)).body.toArray())
}

/** Changes the frame of the first member, from which all others follow. */
async function damage(store: Store, digest: string): Promise<void> {
  const bytes = await bytesOf(store, packKey(digest))
  bytes[framesAt(bytes) + 20]! ^= 0xff
  await store.put(packKey(digest), bytes)
}

/** A store whose kernels are in two packs; the one that is tried first is damaged. */
async function twoPacks(t: Test) {
  const directory = mkdtempSync(join(tmpdir(), 'packs-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const store = await openStore(directory)
  await putSeries(store, COUNT)
  const digests = [await putPackOf(store)]
  const records = await putSeries(store, COUNT + 1)
  digests.push(await putPackOf(store))
  for (const { btf } of records) await store.delete(blobKey(btf.sha256))
  const [first, last] = digests.sort() as [string, string]
  await damage(store, first)
  t.equal(packsOf(store).list()[0]?.digest ?? first, first)
  // of the kernel that only one pack has nothing is asked
  return { directory, store, last, records: records.slice(0, COUNT) }
}

t.test('a service sends what a second pack has, and an error if both are damaged', async (t) => {
  const { store, last, records } = await twoPacks(t)
  const { url } = await startTestService(t, undefined, { store })
  for (const { btf } of records)
    t.equal(sha256Of((await ask(`${url}/v1/btf/sha256/${btf.sha256}`)).bytes), btf.sha256)
  await damage(store, last)
  const damaged = await startTestService(t, undefined, { store: await openStore(store.url) })
  const { status, json } = await ask(`${damaged.url}/v1/btf/sha256/${records[0]!.btf.sha256}`)
  t.ok(status >= 500, String(status))
  t.ok(json?.code)
})

t.test('a task runs again with what a second pack has', async (t) => {
  const { directory, store, last, records } = await twoPacks(t)
  const pool = new Pool({ threads: 1, time: 60_000, memory: 512, idle: 0 })
  t.teardown(() => pool.close())
  const { btf } = records.at(-1)!
  let attempts = 0
  const search = (from: Store) =>
    withStored(from, async (read) => {
      attempts++
      return await pool.run('search', { btf: await read(btf), text: 'task_struct', limit: 1 })
    })
  t.match(JSON.parse((await search(store))!), [{ name: 'task_struct' }])
  t.equal(attempts, 2)
  await damage(store, last)
  // its own index: the other has the kernel's chain in memory
  const again = await openStore(directory)
  await t.rejects(search(again), { code: 'digest_mismatch' })
})

t.test('commands work with what a second pack has', async (t) => {
  const { directory, records } = await twoPacks(t)
  const out = join(directory, '../', `${records[0]!.btf.sha256}.tar`)
  t.teardown(() => rmSync(out, { force: true }))
  const exported = await run('export', '--profile', 'tree', '--store', directory, '-o', out)
  t.equal(exported.status, 0, exported.stderr)
  const { kernel, btf } = records[2]!
  const path = `debian/12/${kernel.arch}/${kernel.release}.btf`
  const raw = execFileSync('tar', ['xOf', out, path], { maxBuffer: 1e8 })
  t.equal(sha256Of(raw), btf.sha256)
  const object = coreObjects('el').get('task')!
  const minimized = join(directory, 'minimized')
  const ended = await run('minimize', object, '--store', directory, '-o', minimized)
  t.equal(ended.status, 0, ended.stderr)
  t.ok(readdirSync(minimized).length > 0)
})
