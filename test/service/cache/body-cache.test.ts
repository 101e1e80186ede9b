// Bodies in memory: bounded in bytes, read once however many ask, and never an error that stays.
import { readFileSync } from 'node:fs'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { BodyCache } from '../../../service/cache/body-cache.ts'
import { Semaphore, SingleFlight } from '../../../service/concurrency.ts'
import { openStore, type Store, StoreError } from '../../../storage/index.ts'
import { littleKernels } from '../../helpers/core.ts'
import { ask, btfOf, RAW, recordOf, startMill } from '../../helpers/test-service.ts'

const body = (size: number) => async () => ({ bytes: Buffer.alloc(size), sha256: '' })

t.test('what was asked for last stays, as far as there is room', async (t) => {
  const memory = new BodyCache(10_000)
  for (let i = 0; i < 100; i++) {
    await memory.body('hot', body(3000))
    await memory.body(`cold ${i}`, body(3000))
    t.ok(memory.size <= 10_000, `${memory.size} bytes`)
  }
  t.same(memory.counts, { found: 99, made: 101, evicted: 99 })
  await memory.body('huge', body(20_000))
  t.ok(memory.size <= 10_000, 'what is larger than all of it is not kept')
  await memory.body('hot', body(3000))
  t.equal(memory.counts.found, 100, 'and pushes out nothing')
})

t.test('an error is told to all who wait, and is not kept', async (t) => {
  const memory = new BodyCache(10_000)
  let tries = 0
  const failing = async () => {
    tries++
    throw new Error('away')
  }
  const waiting = Array.from({ length: 5 }, () => memory.body('x', failing))
  for (const { status } of await Promise.allSettled(waiting)) t.equal(status, 'rejected')
  t.equal(tries, 1)
  await memory.body('x', body(1))
  t.equal(memory.size > 0, true)
})

t.test('what all who wanted it have left is ended, and begun anew for the next', async (t) => {
  const flights = new SingleFlight<number>()
  const ended: unknown[] = []
  let begun = 0
  const work = (nobody: AbortSignal) => {
    const n = ++begun
    return new Promise<number>((resolve, reject) => {
      nobody.addEventListener('abort', () => {
        ended.push(n)
        reject(nobody.reason)
      })
      if (n > 1) setImmediate(() => resolve(n))
    })
  }
  const clients = [0, 1].map(() => new AbortController())
  const waiting = clients.map(({ signal }) => flights.run('x', work, signal))
  clients[0]!.abort(new Error('the first'))
  await t.rejects(waiting[0]!, { message: 'the first' })
  t.same(ended, [], 'another waits')
  clients[1]!.abort(new Error('the second'))
  const next = flights.run('x', work, new AbortController().signal)
  await t.rejects(waiting[1]!, { message: 'the second' })
  t.same(ended, [1])
  t.equal(await next, 2)
  await t.rejects(flights.run('x', work, AbortSignal.abort(new Error('gone before'))), {
    message: 'gone before',
  })
  t.same(ended, [1, 3])
})

t.test('a gate lets so many through, in turn, and refuses a queue that is too long', async (t) => {
  const gate = new Semaphore(2, 3)
  let [running, most] = [0, 0]
  const done: number[] = []
  const work = (n: number) => async () => {
    most = Math.max(most, ++running)
    await new Promise((resolve) => setImmediate(resolve))
    running--
    done.push(n)
    if (n === 1) throw new Error('of one')
  }
  const all = await Promise.allSettled([0, 1, 2, 3, 4, 5, 6].map((n) => gate.run(work(n))))
  t.equal(most, 2)
  t.same(done, [0, 1, 2, 3, 4])
  t.same(
    all.map((each) => (each.status === 'rejected' ? (each.reason.code ?? 'own') : 'done')),
    ['done', 'own', 'done', 'done', 'done', 'busy', 'busy'],
  )
  await gate.run(work(7))
  t.same(done.at(-1), 7, 'and is open again')
})

/** A store that counts what is read, and fails while it is said to. */
function counting(store: Store): Store & { reads: number; away: boolean } {
  const counted = {
    url: store.url,
    reads: 0,
    away: false,
    get: async (...args: Parameters<Store['get']>) => {
      counted.reads++
      if (counted.away) throw new StoreError('unreachable', 'away')
      return await store.get(...args)
    },
    head: store.head.bind(store),
    put: store.put.bind(store),
    list: store.list.bind(store),
    delete: store.delete.bind(store),
  }
  return counted
}

t.test(
  'a herd for three cold kernels is one read of the store for each; later ones none',
  async (t) => {
    const store = counting(await openStore('memory:'))
    const raws = [RAW.little, RAW.big, readFileSync(littleKernels().get('x86_64')!)]
    const records = async () =>
      await Promise.all(
        raws.map(async (raw, n) =>
          recordOf({ release: `cold-${n}` }, { btf: await btfOf(store, raw) }),
        ),
      )
    const mill = await startMill(t, records, { store })
    store.reads = 0
    const encodings = ['zstd', 'gzip', 'identity']
    const herd = () =>
      Promise.all(
        Array.from({ length: 600 }, async (_, i) => {
          const n = i % raws.length
          const path = `${mill.url}/v1/btf/debian/12/x86_64/cold-${n}`
          const encoding = encodings[Math.floor(i / raws.length) % encodings.length]!
          const { status, headers, bytes } = await ask(path, { 'accept-encoding': encoding })
          if (status !== 200) return false
          const content = headers['content-encoding']
          if (content === 'zstd') return zstdDecompressSync(bytes).equals(raws[n]!)
          return (content === 'gzip' ? gunzipSync(bytes) : bytes).equals(raws[n]!)
        }),
      )
    t.ok((await herd()).every(Boolean))
    t.equal(store.reads, raws.length)
    store.away = true
    t.ok((await herd()).every(Boolean), 'from memory')
    t.equal(store.reads, raws.length)
  },
)

t.test('a store that was away is asked again', async (t) => {
  const store = counting(await openStore('memory:'))
  const mill = await startMill(
    t,
    async () => [recordOf({}, { btf: await btfOf(store, RAW.little) })],
    { store },
  )
  const path = `${mill.url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64`
  store.away = true
  const { status, json, headers } = await ask(path)
  t.equal(status, 503)
  t.match(json, { code: 'unavailable' })
  t.ok(headers['retry-after'])
  t.equal(headers.etag, undefined)
  store.away = false
  t.equal((await ask(path)).status, 200)
})

t.test('a damaged blob is never sent, in no encoding', async (t) => {
  const store = await openStore('memory:')
  const mill = await startMill(
    t,
    async () => [recordOf({}, { btf: await btfOf(store, RAW.little) })],
    { store },
  )
  const other = await btfOf(store, RAW.big)
  const keys = (await Array.fromAsync(store.list('blobs/'))).map(({ key }) => key)
  const [from, to] = [
    keys.find((key) => key.includes(other.sha256))!,
    keys.find((key) => !key.includes(other.sha256))!,
  ]
  const { body } = await store.get(from)
  await store.put(to, body)
  const path = `${mill.url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64`
  for (const encoding of ['zstd', 'gzip', 'identity']) {
    const { status, json } = await ask(path, { 'accept-encoding': encoding })
    t.equal(status, 500, encoding)
    t.match(json, { code: 'internal' })
  }
})
