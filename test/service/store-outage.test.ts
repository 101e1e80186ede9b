// An outage of the store, a disk or a bucket: BTF in memory is served, other requests get 503 and never 404, and the service
// recovers by itself.
import { createHash } from 'node:crypto'
import { mkdirSync, renameSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startServer } from '../../service/index.ts'
import { Catalog, openStore, putRecord, type Store } from '../../storage/index.ts'
import { makeBucket } from '../helpers/bucket.ts'
import { FAULTS, startProxy } from '../helpers/proxy.ts'
import { ask, btfOf, RAW, recordOf } from '../helpers/test-service.ts'
import { ready, until } from '../helpers/wait-until.ts'

const PATH = '/v1/btf/debian/12/x86_64/'
const sha256 = createHash('sha256').update(RAW.little).digest('hex')

/** Puts two kernels with different BTF into a store. */
async function fill(store: Store): Promise<void> {
  await putRecord(store, recordOf({ release: 'warm' }, { btf: await btfOf(store, RAW.little) }))
  await putRecord(store, recordOf({ release: 'cold' }, { btf: await btfOf(store, RAW.big) }))
  await Catalog.publish(store)
}

/** Serves a store that goes away and comes back, and asserts the responses meanwhile. */
async function serveThrough(t: Test, store: Store, go: () => void, back: () => void) {
  const config = { listen: '127.0.0.1:0', drain: 0, refresh: 1 }
  const server = await startServer({ store, config })
  t.teardown(() => server.stop())
  await ready(server.url)
  const get = (path: string) => ask(`${server.url}${path}`)
  t.ok((await get(`${PATH}warm`)).bytes.equals(RAW.little))

  go()
  const { json } = await until(
    () => get('/readyz'),
    ({ status }) => status === 503,
  )
  t.match(json, { code: 'unavailable', detail: 'the store does not answer' })
  for (let round = 0; round < 3; round++) {
    for (const path of [`${PATH}warm`, `/v1/btf/sha256/${sha256}`]) {
      const { status, bytes } = await get(path)
      t.equal(status, 200, path)
      t.ok(bytes.equals(RAW.little))
    }
    t.match((await get('/v1/kernels')).json, { kernels: { length: 2 } })
    t.equal((await get('/healthz')).status, 200)
    const away = [`${PATH}cold`, `${PATH}unknown`, '/v1/catalog/snapshot.ndjson.zst']
    for (const path of [...away, `/v1/btf/sha256/${'0'.repeat(64)}`]) {
      const { status, headers, json } = await get(path)
      t.equal(status, 503, path)
      t.match(json, { code: 'unavailable', status: 503 })
      t.equal(headers['content-type'], 'application/problem+json')
      t.ok(Number(headers['retry-after']) > 0)
      t.notMatch(JSON.stringify(json), /ENOENT|127\.0\.0\.1|\/tmp|\.btf\.zst/, 'nor where it was')
    }
    // longer than the refresh interval: the catalog must not be taken for empty
    await new Promise((resolve) => setTimeout(resolve, 500))
  }

  back()
  await ready(server.url)
  t.ok((await get(`${PATH}cold`)).bytes.equals(RAW.big))
  t.equal((await get(`${PATH}unknown`)).status, 404)
  t.equal((await get('/v1/catalog/snapshot.ndjson.zst')).status, 200)
}

t.test('a service survives that the directory of its store is moved away', async (t) => {
  const path = join(t.testdir({}), 'store')
  const store = await openStore(`file:${path}`)
  await fill(store)
  await serveThrough(
    t,
    store,
    () => renameSync(path, `${path}-away`),
    () => {
      rmSync(path, { recursive: true, force: true })
      renameSync(`${path}-away`, path)
    },
  )
})

t.test(
  'a service survives that the disk of its store is unmounted, which leaves an empty directory',
  async (t) => {
    const path = join(t.testdir({}), 'store')
    await fill(await openStore(`file:${path}`))
    const store = await openStore(`file:${path}`) // a store that only reads
    await serveThrough(
      t,
      store,
      () => {
        renameSync(path, `${path}-away`)
        mkdirSync(path)
      },
      () => {
        rmdirSync(path) // fails if something was written to it
        renameSync(`${path}-away`, path)
      },
    )
  },
)

t.test('a service survives a bucket that does not answer', async (t) => {
  const bucket = await makeBucket(t)
  await fill(await bucket.open('away'))
  const proxy = await startProxy(t, bucket.endpoint)
  const store = await bucket.open('away', { endpoint: proxy.url, timeout: 0.5 })
  const reset = FAULTS['a reset before the request']!
  await serveThrough(
    t,
    store,
    () => {
      proxy.fault = () => reset
    },
    () => {
      proxy.fault = () => undefined
    },
  )
})
