// Answers that were given before: the same again to the same question, and never to another, or when they are no longer
// true.

import { Writable } from 'node:stream'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { putRecord } from '../../../storage/index.ts'
import {
  type Answer,
  ask,
  btfOf,
  type Mill,
  RAW,
  recordOf,
  startMill,
} from '../../helpers/test-service.ts'

const PATH = '/v1/btf/debian/12/x86_64/6.1.0-1-amd64'

const start = async (t: Test, options: Parameters<typeof startMill>[2] = {}): Promise<Mill> =>
  await startMill(
    t,
    async (store) => [recordOf({}, { btf: await btfOf(store, RAW.little) })],
    options,
  )

/** What of an answer has to be the same: all but when it was given, and to which request. */
const said = ({ status, headers: { date: _, 'x-request-id': __, ...headers }, bytes }: Answer) => ({
  ...{ status, headers, bytes: bytes.toString('base64') },
})

/** Asks several times for what is to be answered from memory, and gives the answer, which is always the same. */
async function often(t: Test, url: string, headers: Record<string, string> = {}): Promise<Answer> {
  const [first, ...more] = [
    await ask(url, headers),
    await ask(url, headers),
    await ask(url, headers),
  ]
  for (const answer of more) t.same(said(answer), said(first), `${url} ${JSON.stringify(headers)}`)
  return first
}

t.test('who asks as another did gets the same, in each form', async (t) => {
  const { url } = await start(t)
  const { headers } = await often(t, url + PATH)
  t.ok((await often(t, url + PATH)).bytes.equals(RAW.little))
  for (const encoding of ['zstd', 'gzip', 'zstd;q=0.5, gzip']) {
    const answer = await often(t, url + PATH, { 'accept-encoding': encoding })
    t.equal(answer.headers['content-encoding'], /^zstd$/.test(encoding) ? 'zstd' : 'gzip')
  }
  t.equal((await often(t, url + PATH, { 'if-none-match': headers.etag! })).status, 304)
  t.equal((await often(t, url + PATH, { 'if-none-match': '"other"' })).status, 200)
  t.equal((await often(t, url + PATH, { range: 'bytes=0-3' })).bytes.length, 4)
  t.equal((await ask(url + PATH, {}, 'HEAD')).bytes.length, 0)
  t.ok((await often(t, url + headers['content-location']!)).bytes.equals(RAW.little))
  t.equal((await often(t, `${url}${PATH}?build=00`)).status, 200)
  t.equal((await often(t, `${url}${PATH}?nonsense=1`)).status, 400)
})

t.test('once the catalog says otherwise, so do the answers', async (t) => {
  const { url, store, catalog } = await start(t)
  await often(t, url + PATH)
  const other = { ...recordOf({}).package, version: '6.1.2-1' }
  await putRecord(store, recordOf({}, { package: other, btf: await btfOf(store, RAW.big) }))
  await catalog.refresh()
  t.match(await often(t, url + PATH), { status: 409, json: { code: 'ambiguous' } })
  const newest = await often(t, `${url}${PATH}?ambiguous=newest`)
  t.ok(newest.bytes.equals(RAW.big))
})

t.test('bodies that had to go are read again', async (t) => {
  const { url, store, catalog } = await start(t, { settings: { bodyCache: 8192 } })
  for (let n = 0; n < 3; n++) {
    t.ok((await often(t, url + PATH)).bytes.equals(RAW.little))
    await putRecord(store, recordOf({ release: `${n}` }, { btf: await btfOf(store, RAW.big) }))
    await catalog.refresh()
    t.ok((await often(t, `${url}/v1/btf/debian/12/x86_64/${n}`)).bytes.equals(RAW.big))
  }
})

t.test('limits and tokens hold for what was answered before', async (t) => {
  const limited = await start(t, { settings: { rateLimit: 3 } })
  for (const status of [200, 200, 200, 429]) t.equal((await ask(limited.url + PATH)).status, status)
  const { url } = await start(t)
  await often(t, url + PATH)
  t.equal((await ask(url + PATH, { authorization: 'Bearer none' })).status, 401)
})

t.test('they are logged and counted as others are', async (t) => {
  const lines: Record<string, unknown>[] = []
  const sink = new Writable({
    write: (chunk, _, done) => {
      lines.push(JSON.parse(String(chunk)))
      done()
    },
  })
  const { url } = await start(t, { logger: pino(sink) })
  for (const id of ['a', 'b', 'c']) await ask(url + PATH, { 'x-request-id': id })
  const metrics = String((await ask(`${url}/metrics`)).bytes)
  const route = 'method="GET",route="/v1/btf/:distro/:version/:arch/:release",status="200"'
  t.match(metrics, `btfmill_http_request_duration_seconds_count{${route}} 3`)
  t.match(metrics, /btfmill_memory_bodies_total\{result="found"\} 2/)
  const answered = lines.filter(({ url }) => url === PATH)
  t.same(
    answered.map(({ reqId }) => reqId),
    ['a', 'b', 'c'],
  )
  const [first, second] = answered.map((line) => Object.keys(line).sort())
  t.same(second, first)
})
