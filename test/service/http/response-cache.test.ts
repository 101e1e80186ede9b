// The response cache: equal requests get equal responses, and a cached response is never stale or bypasses a guard.

import { join } from 'node:path'
import { Writable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { SECURITY_HEADERS } from '../../../service/http/security.ts'
import { addToken, Tokens } from '../../../service/http/token.ts'
import { buildApp } from '../../../service/index.ts'
import { Catalog, openStore, putRecord } from '../../../storage/index.ts'
import {
  type Answer,
  ask,
  btfOf,
  RAW,
  recordOf,
  startTestService,
  type TestService,
} from '../../helpers/test-service.ts'

const PATH = '/v1/btf/debian/12/x86_64/6.1.0-1-amd64'

const start = async (
  t: Test,
  options: Parameters<typeof startTestService>[2] = {},
): Promise<TestService> =>
  await startTestService(
    t,
    async (store) => [recordOf({}, { btf: await btfOf(store, RAW.little) })],
    options,
  )

/** The parts of a response that must be equal: all but its date and request id. */
const said = ({ status, headers: { date: _, 'x-request-id': __, ...headers }, bytes }: Answer) => ({
  status,
  headers,
  bytes: bytes.toString('base64'),
})

/** Sends a request three times, asserts that the responses are equal, and gives the first. */
async function often(t: Test, url: string, headers: Record<string, string> = {}): Promise<Answer> {
  const [first, ...more] = [
    await ask(url, headers),
    await ask(url, headers),
    await ask(url, headers),
  ]
  for (const answer of more) t.same(said(answer), said(first), `${url} ${JSON.stringify(headers)}`)
  return first
}

t.test('equal requests get equal responses, in every encoding and form', async (t) => {
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

t.test('a change of the catalog invalidates cached responses', async (t) => {
  const { url, store, catalog } = await start(t)
  await often(t, url + PATH)
  const other = { ...recordOf({}).package, version: '6.1.2-1' }
  await putRecord(store, recordOf({}, { package: other, btf: await btfOf(store, RAW.big) }))
  await catalog.refresh()
  t.match(await often(t, url + PATH), { status: 409, json: { code: 'ambiguous' } })
  const newest = await often(t, `${url}${PATH}?ambiguous=newest`)
  t.ok(newest.bytes.equals(RAW.big))
})

t.test('a response whose body was evicted is built again', async (t) => {
  const { url, store, catalog } = await start(t, { settings: { bodyCache: 8192 } })
  for (let n = 0; n < 3; n++) {
    t.ok((await often(t, url + PATH)).bytes.equals(RAW.little))
    await putRecord(store, recordOf({ release: `${n}` }, { btf: await btfOf(store, RAW.big) }))
    await catalog.refresh()
    t.ok((await often(t, `${url}/v1/btf/debian/12/x86_64/${n}`)).bytes.equals(RAW.big))
  }
})

t.test('rate limits and tokens apply to cached responses', async (t) => {
  const limited = await start(t, { settings: { rateLimit: 3 } })
  for (const status of [200, 200, 200, 429]) t.equal((await ask(limited.url + PATH)).status, status)
  const { url } = await start(t)
  await often(t, url + PATH)
  t.equal((await ask(url + PATH, { authorization: 'Bearer none' })).status, 401)

  const file = join(t.testdir({}), 'tokens.json')
  const token = await addToken(file, { name: 'reader', scopes: ['read'] })
  const tokens = await Tokens.open(file)
  const closed = await start(t, { tokens, settings: { read: 'token' } })
  await often(t, closed.url + PATH, { authorization: `Bearer ${token}` })
  t.equal((await ask(closed.url + PATH)).status, 401)
})

/** How often a response's body was found in memory, as /metrics reports it. */
const bodiesFound = async (app: FastifyInstance): Promise<string | undefined> =>
  /^btfmill_body_cache_events_total\{result="found"\} (\d+)$/m.exec(
    (await app.inject('/metrics')).body,
  )?.[1]

t.test(
  'a hook, a guard and a header that are added to the app apply to cached responses',
  async (t) => {
    const store = await openStore('memory:')
    await putRecord(store, recordOf({}, { btf: await btfOf(store, RAW.little) }))
    const app = await buildApp({ store, catalog: await Catalog.open(store) })
    t.teardown(() => app.close())
    const seen: string[] = []
    app.addHook('onRequest', (request, reply, done) => {
      seen.push(`onRequest ${request.headers['x-request-id']}`)
      reply.header('x-request', String(request.headers['x-request-id']))
      done()
    })
    app.addHook('preHandler', ({ headers }, reply, done) => {
      if (headers['x-refuse'] === undefined) done()
      else reply.code(403).send('refused by the guard')
    })
    app.addHook('onSend', (request, reply, payload, done) => {
      reply.header('x-sent', String(request.headers['x-request-id']))
      done(null, payload)
    })
    app.addHook('onResponse', (request, _, done) => {
      seen.push(`onResponse ${request.headers['x-request-id']}`)
      done()
    })
    const get = (id: string, headers: Record<string, string> = {}) =>
      app.inject({ url: PATH, headers: { 'x-request-id': id, ...headers } })

    for (const id of ['first', 'second']) {
      const { statusCode, headers, rawPayload } = await get(id)
      t.equal(statusCode, 200)
      t.match(headers, { 'x-request': id, 'x-sent': id, ...SECURITY_HEADERS }, id)
      t.ok(rawPayload.equals(RAW.little), id)
    }
    t.equal(await bodiesFound(app), '1', 'the second response comes from the cache')
    const { etag } = (await get('third')).headers
    for (const id of ['fourth', 'fifth']) {
      const { statusCode, headers } = await get(id, { 'if-none-match': String(etag) })
      t.equal(statusCode, 304)
      t.match(headers, { 'x-request': id, 'x-sent': id, etag }, id)
    }
    const refused = await get('sixth', { 'x-refuse': 'yes' })
    t.match(refused, { statusCode: 403, body: 'refused by the guard' })
    t.equal(refused.headers.etag, undefined)
    const ids = ['first', 'second', 'third', 'fourth', 'fifth', 'sixth']
    t.same(
      seen.filter((line) => !line.endsWith('undefined')),
      ids.flatMap((id) => [`onRequest ${id}`, `onResponse ${id}`]),
    )
  },
)

t.test('cached responses are logged and counted like all others', async (t) => {
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
  t.match(metrics, /btfmill_body_cache_events_total\{result="found"\} 2/)
  const answered = lines.filter(({ url }) => url === PATH)
  t.same(
    answered.map(({ reqId }) => reqId),
    ['a', 'b', 'c'],
  )
  const [first, second] = answered.map((line) => Object.keys(line).sort())
  t.same(second, first)
})
