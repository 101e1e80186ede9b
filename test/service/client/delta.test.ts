// Deltas to BTF that a client has: smaller, right, and never in the way.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { applyDelta, encodeDelta } from '../../../bpf/index.ts'
import { BodyCache } from '../../../service/cache/body-cache.ts'
import type { Bodies } from '../../../service/cache/btf-bodies.ts'
import { Deltas } from '../../../service/cache/deltas.ts'
import { fetchBtf } from '../../../service/client/client.ts'
import { DELTA_TYPE } from '../../../service/client/delta.ts'
import { ServiceError } from '../../../service/error.ts'
import type { Pool } from '../../../service/threads/pool.ts'
import {
  blobKey,
  Catalog,
  generateKeys,
  openStore,
  SNAPSHOT_KEY,
  type Store,
  sha256Of,
} from '../../../storage/index.ts'
import { nthBtf } from '../../helpers/packs.ts'
import { startProxy } from '../../helpers/proxy.ts'
import { ask, startTestService } from '../../helpers/test-service.ts'
import { kernelOf, pathOf, putKernels } from '../../helpers/upstreams.ts'

const COUNT = 4
const store = await openStore('memory:')
const records = await putKernels(store, COUNT)
const keys = generateKeys()
await Catalog.publish(store, keys.secretKey)
const { url } = await startTestService(t, undefined, { store })
const digest = (n: number): string => records[n]!.btf.sha256

function cacheOf(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'delta-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

t.test('a client that names BTF gets the difference from the first that is here', async (t) => {
  const have = ['0'.repeat(64), digest(1), digest(0)].join()
  for (const path of [pathOf(2), `sha256/${digest(2)}`]) {
    const plain = await ask(`${url}/v1/btf/${path}`, { 'accept-encoding': 'zstd' })
    const { status, headers, bytes } = await ask(`${url}/v1/btf/${path}?have=${have}`)
    t.equal(status, 200)
    t.match(headers, {
      'content-type': DELTA_TYPE,
      'btfmill-delta-parent': digest(1),
      'btfmill-delta-result': digest(2),
    })
    t.equal(headers['content-encoding'], undefined)
    t.ok(bytes.length < plain.bytes.length)
    const made = applyDelta(zstdDecompressSync(bytes), nthBtf(1))
    t.equal(sha256Of(made), digest(2))
  }
})

t.test('everybody else gets the whole BTF', async (t) => {
  const paths = [
    `${pathOf(2)}?have=${'0'.repeat(64)}`,
    `${pathOf(2)}?have=${digest(1)}&dialect=libbpf-0.5`,
    `${pathOf(2)}?have=${digest(1)}&container=elf`,
  ]
  for (const path of paths) {
    const { status, headers } = await ask(`${url}/v1/btf/${path}`)
    t.match({ status, type: headers['content-type'] }, { status: 200, type: /octet-stream/ }, path)
  }
  const range = await ask(`${url}/v1/btf/${pathOf(2)}?have=${digest(1)}`, { range: 'bytes=0-3' })
  t.equal(range.status, 206)
  const nine = Array.from({ length: 9 }, () => digest(0)).join()
  for (const have of ['x', `${digest(0)},`, nine])
    t.equal((await ask(`${url}/v1/btf/${pathOf(2)}?have=${have}`)).status, 400)
})

t.test('damaged BTF of a neighbour is no reason to send nothing', async (t) => {
  const other = await openStore('memory:')
  await putKernels(other, 2)
  await other.put(blobKey(digest(0)), Buffer.from('damaged'))
  const service = await startTestService(t, undefined, { store: other })
  const { status, bytes } = await ask(`${service.url}/v1/btf/${pathOf(1)}?have=${digest(0)}`)
  t.equal(status, 200)
  t.equal(sha256Of(bytes), digest(1))
})

t.test(
  'a delta that is too large or takes too long is left out, and tried again if it was busy',
  async (t) => {
    const catalog = await Catalog.open(store)
    const outcomes = [new ServiceError('busy', 'x'), Buffer.alloc(10), Buffer.alloc(1e6)]
    const pool = {
      threads: 1,
      run: async () => {
        const next = outcomes.shift()!
        if (next instanceof Error) throw next
        return next
      },
    } as unknown as Pool
    const bodies = { get: async () => ({ bytes: Buffer.alloc(1000) }) } as unknown as Bodies
    const deltas = new Deltas({ catalog, bodies, pool, cache: new BodyCache(2 ** 20) })
    t.equal(await deltas.find(digest(1), [digest(0)]), undefined)
    t.match(await deltas.find(digest(1), [digest(0)]), { parent: digest(0) })
    t.equal(await deltas.find(digest(2), [digest(0)]), undefined)
    t.equal(await deltas.find(digest(2), [digest(0)]), undefined, 'it is remembered')
    t.equal(outcomes.length, 0)
  },
)

/** Fetches a kernel through a proxy, and returns the paths that were asked for. */
async function fetched(t: Test, cache: string, n: number, options = {}) {
  const proxy = await startProxy(t, url)
  const kernel = kernelOf(n)
  const { path, sha256 } = await fetchBtf({ server: proxy.url, kernel, cache, ...options })
  t.equal(sha256Of(readFileSync(path)), digest(n))
  t.equal(sha256, digest(n))
  return proxy.requests.map((line) => line.replace(/^GET /, ''))
}

t.test(
  'fetch names what its cache has, of the same series first, and keeps the result',
  async (t) => {
    const cache = cacheOf(t)
    t.same((await fetched(t, cache, 0)).length, 1)
    const [second, ...more] = await fetched(t, cache, 1)
    t.same(more, [])
    t.match(decodeURIComponent(second!), new RegExp(`[?&]have=${digest(0)}$`))
    const [third] = await fetched(t, cache, 2)
    t.match(decodeURIComponent(third!), new RegExp(`[?&]have=${digest(1)},${digest(0)}$`))
    t.same(await fetched(t, cache, 2), [], 'it is in the cache')
    const signed = await fetched(t, cache, 3, { publicKey: keys.publicKey })
    t.match(
      decodeURIComponent(signed.at(-1)!),
      new RegExp(`sha256/${digest(3)}\\?have=${digest(2)},`),
    )
  },
)

t.test('damaged deltas, lost files and older servers cost one request more', async (t) => {
  const good = zstdCompressSync(encodeDelta(nthBtf(1), nthBtf(0)))
  const delta = (body: Buffer, parent = digest(0), result = digest(1)) => ({
    status: 200,
    headers: {
      'content-type': DELTA_TYPE,
      'btfmill-delta-parent': parent,
      'btfmill-delta-result': result,
    },
    body,
  })
  const answers = {
    'no delta': delta(Buffer.from('no delta')),
    'a bomb': delta(zstdCompressSync(Buffer.alloc(80 * 2 ** 20))),
    'of another parent': delta(good, digest(3)),
    'to another result': delta(good, digest(0), digest(2)),
    'of an older server': {
      status: 400,
      headers: { 'content-type': 'application/problem+json' },
      body: Buffer.from('{"code":"invalid_request","detail":"unknown parameter have"}'),
    },
  }
  for (const [title, { status, headers, body }] of Object.entries(answers)) {
    const cache = cacheOf(t)
    await fetched(t, cache, 0)
    const proxy = await startProxy(t, url)
    proxy.fault = (_, request) =>
      request.url!.includes('have=')
        ? ({ response }) => void response.writeHead(status, headers).end(body)
        : undefined
    const result = await fetchBtf({ server: proxy.url, kernel: kernelOf(1), cache })
    t.equal(sha256Of(readFileSync(result.path)), digest(1), title)
    t.equal(proxy.requests.length, 2, title)
  }
  const cache = cacheOf(t)
  const { path } = await fetchBtf({ server: url, kernel: kernelOf(0), cache })
  writeFileSync(path, 'damaged')
  t.equal((await fetched(t, cache, 1)).length, 2, 'a damaged file of the cache')
})

t.test('with a key, only the BTF that the signed catalog names is taken', async (t) => {
  const lying: Store = await openStore('memory:')
  await putKernels(lying, 1)
  await Catalog.publish(lying, keys.secretKey)
  const service = await startTestService(t, undefined, { store: lying })
  const proxy = await startProxy(t, service.url)
  const other = nthBtf(7)
  const etag = `"${sha256Of(other)}"`
  proxy.fault = (_, request) =>
    request.url!.includes('/v1/btf/')
      ? ({ response }) => void response.writeHead(200, { etag }).end(other)
      : undefined
  const cache = cacheOf(t)
  const options = { publicKey: keys.publicKey, attempts: 1, cache }
  const error = { code: 'digest_mismatch', message: /the signed catalog says/ }
  await t.rejects(fetchBtf({ server: proxy.url, kernel: kernelOf(0), ...options }), error)
  t.ok(proxy.requests.some((line) => line.includes(SNAPSHOT_KEY)))
  t.notOk(existsSync(join(cache, 'debian')))
})
