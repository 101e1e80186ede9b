// A server as an operator runs it: health, a store that is away, and an end that cuts nobody off.

import { once } from 'node:events'
import { connect } from 'node:net'
import t from 'tap'
import { request } from 'undici'
import { startServer } from '../../service/index.ts'
import { openStore, putRecord, type Store, StoreError } from '../../storage/index.ts'
import { btfOf, RAW, recordOf } from './mill.ts'

/** A store whose reads fail while it is said to be away. */
function failing(store: Store): Store & { away: boolean } {
  const answer = <T>(work: () => T): T => {
    if (!wrapped.away) return work()
    throw new StoreError('unreachable', 'the disk is away')
  }
  const wrapped = {
    url: store.url,
    away: false,
    get: async (...args: Parameters<Store['get']>) => answer(() => store.get(...args)),
    head: async (...args: Parameters<Store['head']>) => answer(() => store.head(...args)),
    put: async (...args: Parameters<Store['put']>) => answer(() => store.put(...args)),
    list: (...args: Parameters<Store['list']>) => answer(() => store.list(...args)),
    delete: async (...args: Parameters<Store['delete']>) => answer(() => store.delete(...args)),
  }
  return wrapped
}

async function start() {
  const store = failing(await openStore('memory:'))
  await putRecord(store, recordOf({}, { btf: await btfOf(store, RAW.little) }))
  const server = await startServer({ store, host: '127.0.0.1', port: 0 })
  return { server, store, btf: `${server.url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64` }
}

t.test('health, and readiness without a store', async (t) => {
  const { server, store, btf } = await start()
  t.teardown(() => server.stop())
  const get = async (url: string) => {
    const { statusCode, headers, body } = await request(url)
    return { status: statusCode, headers, body: (await body.json()) as Record<string, unknown> }
  }
  t.same((await get(`${server.url}/healthz`)).body, { status: 'ok' })
  t.equal((await get(`${server.url}/readyz`)).status, 200)
  store.away = true
  t.equal((await get(`${server.url}/healthz`)).status, 200)
  for (const url of [`${server.url}/readyz`, btf]) {
    const { status, headers, body } = await get(url)
    t.equal(status, 503, 'not "not found": a client would stop asking')
    t.match(body, { code: 'unavailable' })
    t.notMatch(body, { detail: /disk/ })
    t.ok(Number(headers['retry-after']) > 0)
  }
})

t.test('it stops when the last answer is out, and takes no new connections', async (t) => {
  const { server } = await start()
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
  await once(socket, 'connect')
  const path = '/v1/btf/debian/12/x86_64/6.1.0-1-amd64'
  socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n`) // the rest of the request comes while it stops
  await new Promise((resolve) => setImmediate(resolve))
  await request(`${server.url}/healthz`).then(({ body }) => body.dump())
  const stopped = server.stop()
  socket.write('\r\n')
  const pieces: Buffer[] = []
  for await (const piece of socket) pieces.push(piece as Buffer)
  const answer = Buffer.concat(pieces)
  t.match(answer.toString('latin1'), /^HTTP\/1\.1 200 /)
  t.ok(answer.subarray(-RAW.little.length).equals(RAW.little))
  await stopped
  await t.rejects(request(server.url), { code: 'ECONNREFUSED' })
})
