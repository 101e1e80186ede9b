// The body cache: bounded in bytes, one read of the store for concurrent requests, and no cached errors.
import { readFileSync } from 'node:fs'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { BodyCache } from '../../../service/cache/body-cache.ts'
import { openStore, type Store, StoreError } from '../../../storage/index.ts'
import { littleKernels } from '../../helpers/core.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const body = (size: number) => async () => ({ bytes: Buffer.alloc(size), sha256: '' })

t.test('the cache evicts the least recently used body to stay within its size', async (t) => {
  const cache = new BodyCache(10_000)
  for (let i = 0; i < 100; i++) {
    await cache.body('hot', body(3000))
    await cache.body(`cold ${i}`, body(3000))
    t.ok(cache.size <= 10_000, `${cache.size} bytes`)
  }
  t.same(cache.counts, { found: 99, made: 101, evicted: 99 })
  await cache.body('huge', body(20_000))
  t.ok(cache.size <= 10_000, 'a body larger than the cache is not kept')
  await cache.body('hot', body(3000))
  t.equal(cache.counts.found, 100, 'it evicts nothing')
})

t.test(
  'all waiting callers get the error of one call, and the next caller tries again',
  async (t) => {
    const cache = new BodyCache(10_000)
    let tries = 0
    const failing = async () => {
      tries++
      throw new Error('away')
    }
    const waiting = Array.from({ length: 5 }, () => cache.body('x', failing))
    for (const { status } of await Promise.allSettled(waiting)) t.equal(status, 'rejected')
    t.equal(tries, 1)
    await cache.body('x', body(1))
    t.ok(cache.size > 0)
  },
)

/** A store that counts its reads, and fails them while `away` is true. */
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
  'concurrent requests for an uncached kernel share one read of the store, and later ones need none',
  async (t) => {
    const store = counting(await openStore('memory:'))
    const raws = [RAW.little, RAW.big, readFileSync(littleKernels().get('x86_64')!)]
    const records = async () =>
      await Promise.all(
        raws.map(async (raw, n) =>
          recordOf({ release: `cold-${n}` }, { btf: await btfOf(store, raw) }),
        ),
      )
    const testService = await startTestService(t, records, { store })
    store.reads = 0
    const encodings = ['zstd', 'gzip', 'identity']
    const herd = () =>
      Promise.all(
        Array.from({ length: 600 }, async (_, i) => {
          const n = i % raws.length
          const path = `${testService.url}/v1/btf/debian/12/x86_64/cold-${n}`
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
    t.ok((await herd()).every(Boolean), 'from the cache')
    t.equal(store.reads, raws.length)
  },
)

t.test(
  'a request fails while the store is unreachable, and succeeds when it is back',
  async (t) => {
    const store = counting(await openStore('memory:'))
    const testService = await startTestService(
      t,
      async () => [recordOf({}, { btf: await btfOf(store, RAW.little) })],
      { store },
    )
    const path = `${testService.url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64`
    store.away = true
    const { status, json, headers } = await ask(path)
    t.equal(status, 503)
    t.match(json, { code: 'unavailable' })
    t.ok(headers['retry-after'])
    t.equal(headers.etag, undefined)
    store.away = false
    t.equal((await ask(path)).status, 200)
  },
)

t.test('a damaged blob is not sent in any encoding', async (t) => {
  const store = await openStore('memory:')
  const testService = await startTestService(
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
  const path = `${testService.url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64`
  for (const encoding of ['zstd', 'gzip', 'identity']) {
    const { status, json } = await ask(path, { 'accept-encoding': encoding })
    t.equal(status, 500, encoding)
    t.match(json, { code: 'internal' })
  }
})
