// Prometheus metrics: they count what happened, and clients cannot create series.
import t from 'tap'
import { request } from 'undici'
import { startServer } from '../../../service/index.ts'
import { openStore, putRecord } from '../../../storage/index.ts'
import { btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'
import { ready } from '../../helpers/wait-until.ts'

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

t.test('/metrics is not found when metrics are off', async (t) => {
  const { url } = await startTestService(t, undefined, { settings: { metrics: 'off' } })
  t.equal((await request(`${url}/metrics`)).statusCode, 404)
})
