// Prometheus metrics: they count what happened, and clients cannot create series.
import { join } from 'node:path'
import t from 'tap'
import { request } from 'undici'
import { startServer } from '../../../service/index.ts'
import { MAX_DISTROS } from '../../../service/kernel/catalog-counts.ts'
import { VERSION } from '../../../service/version.ts'
import { openStore, putRecord } from '../../../storage/index.ts'
import { btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'
import { ready, until } from '../../helpers/wait-until.ts'

const textOf = async (url: string) => (await request(url)).body.text()

/** Samples by name and labels. */
async function scrape(url: string): Promise<Map<string, number>> {
  const lines = (await textOf(`${url}/metrics`)).split('\n')
  return new Map(
    lines
      .filter((line) => /^[a-z]/.test(line))
      .map((line) => {
        const at = line.lastIndexOf(' ')
        return [line.slice(0, at), Number(line.slice(at + 1))]
      }),
  )
}

t.test(
  '/metrics counts requests, store operations, cached bodies and catalog records',
  async (t) => {
    const store = await openStore('memory:')
    await putRecord(store, recordOf({}, { btf: await btfOf(store, RAW.little) }))
    const server = await startServer({ store, config: { listen: '127.0.0.1:0', drain: 0 } })
    t.teardown(() => server.stop())
    await ready(server.url)
    const kernel = `${server.url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64`
    for (let i = 0; i < 3; i++) await textOf(kernel)
    await textOf(`${server.url}/v1/btf/debian/12/x86_64/none`)
    const samples = await scrape(server.url)
    const route = 'method="GET",route="/v1/btf/:distro/:version/:arch/:release"'
    const count = 'btfmill_http_request_duration_seconds_count'
    t.equal(samples.get(`${count}{${route},status="200"}`), 3)
    t.equal(samples.get(`${count}{${route},status="404"}`), 1)
    const bytes = samples.get(
      'btfmill_http_response_bytes_total{route="/v1/btf/:distro/:version/:arch/:release"}',
    )
    t.ok(bytes! > 3 * RAW.little.length)
    t.equal(samples.get('btfmill_catalog_builds'), 1)
    t.ok(samples.get('btfmill_catalog_age_seconds')! < 60)
    const made = samples.get('btfmill_body_cache_events_total{result="made"}')
    t.equal(made, 2, 'one body as stored, one raw')
    t.equal(samples.get('btfmill_body_cache_events_total{result="found"}'), 2)
    t.ok(samples.get('btfmill_body_cache_bytes')! >= RAW.little.length)
    t.equal(samples.get('btfmill_bodies_built_total{kind="read"}'), 1)
    t.equal(samples.get('btfmill_misses_total{result="counted"}'), 1)
    t.equal(samples.get('btfmill_missed_kernels'), 1)
    const operations = 'btfmill_store_operation_duration_seconds_count'
    t.ok(samples.get(`${operations}{operation="get",result="ok"}`)! >= 1)
    t.ok(samples.get(`${operations}{operation="head",result="not_found"}`)! >= 1)
    t.ok(samples.get(`${operations}{operation="list",result="ok"}`)! >= 1)
    t.ok(samples.get('process_resident_memory_bytes')! > 0)
  },
)

t.test('requests for arbitrary paths create no new series', async (t) => {
  const { url } = await startTestService(t)
  const paths = (i: number) => [
    `/v1/btf/a/b/c/${i}`,
    `/${i}`,
    `/v1/btf/sha256/${i}`,
    `/v1/kernels?x=${i}`,
  ]
  for (const path of paths(0)) await textOf(`${url}${path}`)
  // Node's own series appear with the first run of each kind of garbage collection
  const count = async () =>
    [...(await scrape(url)).keys()].filter((name) => /^btfmill/.test(name)).length
  await count()
  const before = await count()
  for (let i = 1; i < 30; i++) for (const path of paths(i)) await textOf(`${url}${path}`)
  t.equal(await count(), before)
})

const FAILURE = {
  code: 'no_dwarf',
  message: 'vmlinux has no DWARF',
  attempts: 1,
  at: '2026-11-01T12:00:00.000Z',
  retryAt: null,
} as const

t.test(
  '/metrics tells the version, the builds of each distribution by state, and its newest BTF',
  async (t) => {
    const { url, store, catalog } = await startTestService(t, async (store) => {
      const btf = await btfOf(store, RAW.little)
      return [
        recordOf({ release: 'a' }, { btf }),
        recordOf({ release: 'b' }, { btf, createdAt: '2026-11-02T00:00:00.000Z' }),
        recordOf({ release: 'c' }, { failure: FAILURE, createdAt: '2026-11-03T00:00:00.000Z' }),
        recordOf({ distro: 'ubuntu', release: 'd' }, { embedded: true }),
      ]
    })
    const before = await scrape(url)
    t.equal(before.get(`btfmill_build_info{version="${VERSION}"}`), 1)
    const builds = (samples: Map<string, number>, distro: string) =>
      ['available', 'embedded', 'failed'].map((state) =>
        samples.get(`btfmill_kernels{distro="${distro}",state="${state}"}`),
      )
    t.same(builds(before, 'debian'), [2, 0, 1])
    t.same(builds(before, 'ubuntu'), [0, 1, 0])
    const newest = 'btfmill_newest_kernel_timestamp_seconds'
    t.equal(before.get(`${newest}{distro="debian"}`), Date.parse('2026-11-02') / 1000)
    t.equal(before.has(`${newest}{distro="ubuntu"}`), false, 'it has no BTF')

    await putRecord(store, recordOf({ distro: 'ubuntu', release: 'e' }, { failure: FAILURE }))
    await catalog.refresh()
    t.same(builds(await scrape(url), 'ubuntu'), [0, 1, 1], 'after the catalog has changed')
  },
)

t.test('a catalog with many distributions makes a bounded number of series', async (t) => {
  const { url } = await startTestService(t, () => [
    ...Array.from({ length: MAX_DISTROS + 5 }, (_, i) =>
      recordOf({ distro: `small${i}` }, { embedded: true }),
    ),
    ...['x', 'y'].map((release) => recordOf({ distro: 'zlarge', release }, { embedded: true })),
  ])
  const samples = await scrape(url)
  const series = [...samples.keys()].filter((name) => name.startsWith('btfmill_kernels{'))
  t.equal(series.length, 3 * (MAX_DISTROS + 1))
  t.equal(samples.get('btfmill_kernels{distro="zlarge",state="embedded"}'), 2)
  t.equal(samples.get('btfmill_kernels{distro="other",state="embedded"}'), 6, 'of the smallest')
})

t.test('/metrics tells what the index of all types has, and what it still lacks', async (t) => {
  const index = join(t.testdir({}), 'index.sqlite')
  const started = Date.now() / 1000
  const { url, store, catalog } = await startTestService(
    t,
    async (store) => {
      const btf = await btfOf(store, RAW.little)
      return [
        recordOf({}, { btf }),
        recordOf({ release: '6.1.0-2-amd64' }, { btf: { ...btf, sha256: 'ab'.repeat(32) } }),
        recordOf({ release: '6.1.0-3-amd64' }, { embedded: true }),
      ]
    },
    { settings: { index } },
  )
  const updated = (count: number) =>
    until(
      () => scrape(url),
      (all) => all.get('btfmill_index_kernels') === count,
    )
  const all = await updated(1)
  t.equal(all.get('btfmill_index_waiting'), 1, 'the blob of one is lost')
  t.ok(all.get('btfmill_index_bytes')! >= 4096)
  t.ok(all.get('btfmill_index_update_timestamp_seconds')! >= started)
  t.ok(all.get('btfmill_index_update_duration_seconds')! > 0)
  const btf = await btfOf(store, RAW.big)
  await putRecord(store, recordOf({ release: '6.1.0-4-amd64' }, { btf }))
  await catalog.refresh()
  t.equal((await updated(2)).get('btfmill_index_waiting'), 1)

  const { url: without } = await startTestService(t)
  t.notOk([...(await scrape(without)).keys()].some((name) => name.startsWith('btfmill_index_')))
})

t.test('/metrics is not found when metrics are off', async (t) => {
  const { url } = await startTestService(t, undefined, { settings: { metrics: 'off' } })
  t.equal((await request(`${url}/metrics`)).statusCode, 404)
})
