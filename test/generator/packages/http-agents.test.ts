import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Agent } from 'undici'
import { download, downloadAll, downloadUnless } from '../../../generator/packages/download.ts'
import {
  type AgentLease,
  HttpAgents,
  MAX_CONNECTIONS,
} from '../../../generator/packages/http-agents.ts'
import { startServer } from '../../helpers/test-server.ts'

const retry = { timeout: 5000, retries: 1, minDelay: 1, maxDelay: 1 }
/** undici's types know `closed` for an Agent alone. */
const isClosed = (agent: AgentLease['agent']): boolean => (agent as Agent).closed

const body = Buffer.alloc(100_000, 'x')

const socketsOf = (requests: readonly IncomingMessage[]): number =>
  new Set(requests.map(({ socket }) => socket)).size

t.test('downloads one after the other reuse a connection', async (t) => {
  const { url, requests } = await startServer(t, (_, response) => void response.end(body))
  for (let i = 0; i < 20; i++) {
    t.equal((await downloadAll(`${url}/${i}`, 1e6, { retry })).length, body.length)
  }
  t.equal(requests.length, 20)
  t.ok(socketsOf(requests) <= 2, `${socketsOf(requests)} connections`)
})

t.test('a connection is reused after 304, 404 and a redirect', async (t) => {
  const answers: Record<string, (response: ServerResponse) => void> = {
    '/unchanged': (response) => response.writeHead(304).end(),
    '/missing': (response) => response.writeHead(404).end('not here'),
    '/moved': (response) => response.writeHead(302, { location: '/new' }).end('there'),
    '/new': (response) => response.end(body),
  }
  const { url, requests } = await startServer(t, (request, response) =>
    answers[request.url!]!(response),
  )
  for (let i = 0; i < 5; i++) {
    const unchanged = await downloadUnless(`${url}/unchanged`, { etag: '"1"' }, 9, { retry })
    t.equal(unchanged, undefined)
    await t.rejects(download(`${url}/missing`, { retry }), { code: 'not_found_upstream' })
    t.equal((await downloadAll(`${url}/moved`, 1e6, { retry })).length, body.length)
  }
  t.equal(requests.length, 20)
  t.ok(socketsOf(requests) <= 2, `${socketsOf(requests)} connections`)
})

t.test('concurrent downloads from a server share a bounded number of connections', async (t) => {
  const open = new Set<Socket>()
  let most = 0
  const { url, requests } = await startServer(t, async (request, response) => {
    open.add(request.socket)
    most = Math.max(most, open.size)
    request.socket.once('close', () => open.delete(request.socket))
    await sleep(5)
    response.end(body)
  })
  const all = Array.from({ length: 50 }, (_, i) => downloadAll(`${url}/${i}`, 1e6, { retry }))
  for (const bytes of await Promise.all(all)) t.equal(bytes.length, body.length)
  t.equal(requests.length, 50)
  t.equal(most, MAX_CONNECTIONS)
})

t.test('a download that waits for a connection ends when its signal aborts', async (t) => {
  const { url, requests } = await startServer(t, (_, response) => {
    response.writeHead(200, { 'content-length': 1e9 }).write(body)
  })
  const running = await Promise.all(
    Array.from({ length: MAX_CONNECTIONS }, () => download(url, { retry })),
  )
  const [stop, reason] = [new AbortController(), new Error('enough')]
  const waiting = download(url, { retry, signal: stop.signal })
  stop.abort(reason)
  await t.rejects(waiting, reason)
  t.equal(requests.length, MAX_CONNECTIONS, 'the server has not seen it')
  for (const { body } of running) body.destroy()
})

t.test('a body that is destroyed before it is read frees its connection', async (t) => {
  const { url, requests } = await startServer(t, (_, response) => {
    response.writeHead(200, { 'content-length': 1e9 }).write(body)
  })
  for (let i = 0; i < 2 * MAX_CONNECTIONS; i++) (await download(url, { retry })).body.destroy()
  t.equal(requests.length, 2 * MAX_CONNECTIONS)
})

t.test(
  'agents are shared by their TLS files, timeout and proxies, and closed when idle',
  async (t) => {
    const agents = new HttpAgents(20)
    const cert = (text: string) => ({ cert: Buffer.from(text) })
    const first = agents.acquire({}, 1000)
    t.equal(agents.acquire({}, 1000).agent, first.agent)
    const leases = [
      agents.acquire({}, 2000),
      agents.acquire(cert('a'), 1000),
      agents.acquire(cert('b'), 1000),
      agents.acquire({ ca: Buffer.from('a') }, 1000),
      agents.acquire({}, 1000, { http: 'http://proxy.test/', https: '', except: '' }),
    ]
    t.equal(new Set(leases.map(({ agent }) => agent).concat(first.agent)).size, 6)
    t.equal(agents.acquire(cert('a'), 1000).agent, leases[1]!.agent)
    t.equal(agents.size, 6)

    leases[0]!.release()
    first.release()
    first.release()
    await sleep(100)
    t.equal(agents.size, 5, 'a lease that is released twice counts once')
    t.ok(isClosed(leases[0]!.agent))
    t.notOk(isClosed(first.agent))

    leases[2]!.release()
    const again = agents.acquire(cert('b'), 1000)
    await sleep(100)
    t.equal(again.agent, leases[2]!.agent, 'a new lease keeps an idle agent open')
    t.notOk(isClosed(again.agent))
  },
)
