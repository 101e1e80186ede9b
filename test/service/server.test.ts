// A server as an operator runs it: addresses, readiness, and a graceful stop.
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import dns from 'node:dns'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { Agent, type IncomingMessage, get as send } from 'node:http'
import { syncBuiltinESMExports } from 'node:module'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Client, request } from 'undici'
import type { Config } from '../../service/config.ts'
import { addToken, removeToken } from '../../service/http/token.ts'
import { startServer } from '../../service/index.ts'
import {
  Catalog,
  openStore,
  putBlob,
  putRecord,
  type Store,
  StoreError,
} from '../../storage/index.ts'
import { serve } from '../helpers/serve-process.ts'
import { btfOf, RAW, recordOf } from '../helpers/test-service.ts'
import { ready, until } from '../helpers/wait-until.ts'

/** A store that fails while `away` is set, and counts calls of `head`. */
function failing(store: Store): Store & { away: boolean; heads: number } {
  const answer = <T>(work: () => T): T => {
    if (!wrapped.away) return work()
    throw new StoreError('unreachable', 'the disk is away')
  }
  const wrapped: Store & { away: boolean; heads: number } = {
    url: store.url,
    away: false,
    heads: 0,
    get: async (...args) => answer(() => store.get(...args)),
    head: async (...args) => {
      wrapped.heads++
      return answer(() => store.head(...args))
    },
    put: async (...args) => answer(() => store.put(...args)),
    list: (...args) => answer(() => store.list(...args)),
    delete: async (...args) => answer(() => store.delete(...args)),
  }
  return wrapped
}

const PATH = '/v1/btf/debian/12/x86_64/6.1.0-1-amd64'
const sha256 = createHash('sha256').update(RAW.little).digest('hex')

async function filledStore() {
  const store = failing(await openStore('memory:'))
  await putRecord(store, recordOf({}, { btf: await btfOf(store, RAW.little) }))
  return store
}

async function start(t: Test, config: Partial<Config> = {}) {
  const store = await filledStore()
  const server = await startServer({
    store,
    config: { listen: '127.0.0.1:0', drain: 0, ...config },
  })
  t.teardown(() => server.stop())
  return { server, store, btf: `${server.url}${PATH}` }
}

const get = async (url: string) => {
  const { statusCode, headers, body } = await request(url)
  return { status: statusCode, headers, body: (await body.json()) as Record<string, unknown> }
}

t.test(
  'the server listens before its store answers, and is ready when the catalog is loaded',
  async (t) => {
    const store = await filledStore()
    store.away = true
    const server = await startServer({ store, config: { listen: '127.0.0.1:0', drain: 0 } })
    t.teardown(() => server.stop())
    t.same((await get(`${server.url}/healthz`)).body, { status: 'ok' })
    for (const path of ['/readyz', PATH, '/v1/kernels']) {
      const { status, headers, body } = await get(`${server.url}${path}`)
      t.equal(status, 503, `${path} is not 404, after which a client would give up`)
      t.match(body, { code: 'unavailable', detail: /not loaded/ })
      t.ok(Number(headers['retry-after']) > 0)
    }
    store.away = false
    await ready(server.url)
    const { statusCode, body } = await request(`${server.url}${PATH}`)
    t.equal(statusCode, 200)
    t.ok(Buffer.from(await body.arrayBuffer()).equals(RAW.little))
  },
)

t.test('the server is not ready while the store is away, and rarely probes it', async (t) => {
  const { server, store } = await start(t)
  await ready(server.url)
  const before = store.heads
  await Promise.all(Array.from({ length: 100 }, () => get(`${server.url}/readyz`)))
  t.ok(store.heads - before <= 2, 'one probe for all requests')
  store.away = true
  const { body } = await until(
    () => get(`${server.url}/readyz`),
    ({ status }) => status === 503,
  )
  t.match(body, { code: 'unavailable', detail: 'the store does not answer' })
  t.equal((await get(`${server.url}/healthz`)).status, 200)
  store.away = false
  await ready(server.url)
})

/** Listens on a unix socket, then prints a line. */
const LISTEN = `require('net').createServer().listen(process.argv[1], () => console.log('there'))`

t.test(
  'the server listens on IPv4, IPv6, and a unix socket that a killed server left behind',
  async (t) => {
    const home = mkdtempSync(join(tmpdir(), 'socket-')) // the path of a socket has at most 107 bytes
    t.teardown(() => rmSync(home, { recursive: true }))
    const path = join(home, 'socket')
    const other = spawn(process.execPath, ['-e', LISTEN, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(other.stdout, 'data')
    for (const listen of ['127.0.0.1:0', '[::1]:0', 'localhost:0']) {
      const { server } = await start(t, { listen })
      await ready(server.url)
      t.match(server.url, /^http:\/\/(127\.0\.0\.1|\[::1\]):\d+$/, listen)
    }
    await t.rejects(
      start(t, { listen: `unix:${path}` }),
      { code: 'EADDRINUSE' },
      'another process listens',
    )
    other.kill('SIGKILL')
    await once(other, 'exit')
    t.ok(existsSync(path))

    const { server } = await start(t, { listen: `unix:${path}` })
    t.equal(server.url, `unix:${path}`)
    const client = new Client('http://localhost', { socketPath: path })
    t.equal((await client.request({ method: 'GET', path: '/healthz' })).statusCode, 200)
    await client.close()
    await server.stop()
    t.notOk(existsSync(path), 'the socket is removed')

    const file = join(home, 'a-file')
    writeFileSync(file, 'mine')
    await t.rejects(start(t, { listen: `unix:${file}` }), { code: 'EADDRINUSE' })
    t.ok(existsSync(file), 'a regular file is kept')
  },
)

t.test('the server stops after its last response, and accepts no new connections', async (t) => {
  const { server } = await start(t, { drain: 1 })
  await ready(server.url)
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
  await once(socket, 'connect')
  socket.write(`GET ${PATH} HTTP/1.1\r\nhost: x\r\n`) // the rest of the request comes while it stops
  await new Promise((resolve) => setImmediate(resolve))
  await request(`${server.url}/healthz`).then(({ body }) => body.dump())
  const stopped = server.stop()
  const last = await get(`${server.url}/readyz`)
  t.match(last.body, { code: 'unavailable', detail: 'this service is stopping' })
  t.equal(last.headers.connection, 'close')
  socket.write('\r\n')
  const pieces: Buffer[] = []
  for await (const piece of socket) pieces.push(piece as Buffer)
  const answer = Buffer.concat(pieces)
  t.match(answer.toString('latin1'), /^HTTP\/1\.1 200 /)
  t.ok(answer.subarray(-RAW.little.length).equals(RAW.little))
  await stopped
  await t.rejects(request(server.url), { code: 'ECONNREFUSED' })
})

interface Load {
  whole: number
  /** truncated or wrong responses, and resets of connections in use */
  broken: string[]
  /** responses that announce the stop, and refused connections */
  refused: number
}

/** Sends requests on one connection until it cannot connect again. */
async function ask(port: number, load: Load): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  for (let gone = false; !gone; ) {
    const asked = send({ port, host: '127.0.0.1', path: PATH, agent })
    try {
      const [answer] = (await once(asked, 'response')) as [IncomingMessage]
      const pieces: Buffer[] = []
      for await (const piece of answer) pieces.push(piece as Buffer)
      const right = createHash('sha256').update(Buffer.concat(pieces)).digest('hex') === sha256
      if (answer.statusCode === 200 && answer.complete && right) load.whole++
      else load.broken.push(`${answer.statusCode}`)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      gone = true
      if (code === 'ECONNREFUSED' || !asked.reusedSocket) load.refused++
      else load.broken.push(`${code} on a connection in use`)
    }
  }
  agent.destroy()
}

t.test('the server stops under load without a broken response', async (t) => {
  for (let round = 0; round < 3; round++) {
    const { server } = await start(t, { drain: 1 })
    await ready(server.url)
    const load: Load = { whole: 0, broken: [], refused: 0 }
    const clients = Array.from({ length: 40 }, () => ask(Number(new URL(server.url).port), load))
    await until(
      async () => load.whole,
      (whole) => whole > 200,
    )
    const before = load.whole
    await server.stop()
    await Promise.all(clients)
    t.same(load.broken, [])
    t.equal(load.refused, 40, 'every client was answered until the server was gone')
    t.ok(load.whole > before)
  }
})

t.test('a slowly read response is completed during a stop', async (t) => {
  const { server, store } = await start(t)
  const kernels = 2000
  for (let i = 0; i < kernels; i++) await putRecord(store, recordOf({ release: `6.2.0-${i}` }))
  await server.stop()
  const another = await startServer({ store, config: { listen: '127.0.0.1:0', drain: 0 } })
  t.teardown(() => another.stop())
  await ready(another.url)
  const headers = { accept: 'application/x-ndjson' }
  const { body } = await request(`${another.url}/v1/kernels`, { headers })
  const stopped = another.stop()
  await sleep(200) // no byte is read meanwhile
  const lines = (await body.text()).trimEnd().split('\n')
  t.equal(lines.length, kernels + 1)
  for (const line of lines) JSON.parse(line)
  await stopped
})

/** A store whose kernel has more bytes than the buffers of two sockets. */
async function storeOfLarge(): Promise<Store> {
  const store = await openStore('memory:')
  const btf = { ...(await btfOf(store, RAW.little)), ...(await putBlob(store, randomBytes(LARGE))) }
  await putRecord(store, recordOf({}, { btf }))
  return store
}
const LARGE = 24 * 1024 * 1024

t.test('a response that is in the socket buffer of a slow reader is sent whole', async (t) => {
  const store = await storeOfLarge()
  for (const headers of ['', 'connection: close\r\n']) {
    const config = { listen: '127.0.0.1:0', drain: 0, grace: 60 }
    const server = await startServer({ store, config })
    t.teardown(() => server.stop())
    await ready(server.url)
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
    await once(socket, 'connect')
    socket.write(`GET ${PATH} HTTP/1.1\r\nhost: x\r\n${headers}\r\n`)
    await once(socket, 'readable')
    const stopped = server.stop()
    await sleep(500) // no byte is read meanwhile
    const pieces: Buffer[] = []
    for await (const piece of socket) pieces.push(piece as Buffer)
    const answer = Buffer.concat(pieces)
    const body = answer.length - answer.indexOf('\r\n\r\n') - 4
    t.equal(body, LARGE, headers)
    await stopped
  }
})

t.test('connections that sent no whole request do not hold up a stop', async (t) => {
  t.setTimeout(25_000)
  const { server } = await start(t, { grace: 60 })
  await ready(server.url)
  const sockets = ['', 'GET / HT', `GET ${PATH} HTTP/1.1\r\nhost: x\r\n`].map((sent) => {
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1', () => socket.write(sent))
    return socket.on('error', () => {}).resume()
  })
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  await request(`${server.url}/healthz`).then(({ body }) => body.dump())
  const ended = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)))
  await server.stop()
  await Promise.all(ended)
  t.pass('all are closed before the grace period ends')
})

/** Makes `localhost` stand for these addresses, as for 127.0.0.1 and ::1 where there is IPv6. */
function resolveLocalhost(t: Test, addresses: readonly string[]): void {
  const { lookup } = dns
  const { lookup: promised } = dns.promises
  const found = addresses.map((address) => ({ address, family: 4 }))
  // biome-ignore lint/suspicious/noExplicitAny: overloads
  const replace = (one: any, other: any) => {
    Object.assign(dns, { lookup: one })
    Object.assign(dns.promises, { lookup: other })
    syncBuiltinESMExports()
  }
  replace(
    (host: string, options: dns.LookupOptions, done: (...results: unknown[]) => void) =>
      host === 'localhost'
        ? options.all
          ? done(null, found)
          : done(null, addresses[0], 4)
        : lookup(host, options, done),
    async (host: string, options: dns.LookupAllOptions) =>
      host === 'localhost' ? found : await promised(host, options),
  )
  t.teardown(() => replace(lookup, promised))
}

t.test('on localhost, all addresses of IPv4 and IPv6 stop in the same way', async (t) => {
  const addresses = ['127.0.0.1', '127.0.0.2']
  resolveLocalhost(t, addresses)
  const store = await storeOfLarge()
  for (const grace of [60, 1]) {
    const config = { listen: 'localhost:0', drain: 0, grace }
    const server = await startServer({ store, config })
    t.teardown(() => server.stop())
    await ready(server.url)
    const port = Number(new URL(server.url).port)
    const sockets = addresses.map((address) => connect(port, address).on('error', () => {}))
    for (const socket of sockets) {
      socket.write(`GET ${PATH} HTTP/1.1\r\nhost: x\r\n\r\n`)
      await once(socket, 'readable')
    }
    const before = performance.now()
    const stopped = server.stop()
    if (grace === 1) {
      await stopped
      t.ok(performance.now() - before > 900, 'it waits for the grace period, for every address')
      t.ok(performance.now() - before < 10_000, 'and not longer')
      for (const socket of sockets) socket.destroy()
      continue
    }
    await sleep(500) // no byte is read meanwhile
    // together: the connections close when the last response has been sent
    const answers = await Promise.all(sockets.map((socket) => socket.toArray()))
    for (const pieces of answers) {
      const answer = Buffer.concat(pieces)
      t.equal(answer.length - answer.indexOf('\r\n\r\n') - 4, LARGE)
    }
    await stopped
  }
})

t.test('on localhost, the server waits for a response on any address', async (t) => {
  resolveLocalhost(t, ['127.0.0.1', '127.0.0.2'])
  const store = await storeOfLarge()
  const config = { listen: 'localhost:0', drain: 0, grace: 60 }
  const server = await startServer({ store, config })
  t.teardown(() => server.stop())
  await ready(server.url)
  const socket = connect(Number(new URL(server.url).port), '127.0.0.2')
  socket.write(`GET ${PATH} HTTP/1.1\r\nhost: x\r\n\r\n`)
  await once(socket, 'readable')
  let done = false
  const stopped = server.stop().then(() => {
    done = true
  })
  await sleep(500)
  t.notOk(done, 'the response is not sent yet')
  for await (const _ of socket);
  await stopped
})

t.test('a slow reader is cut off when the grace period ends', async (t) => {
  const store = await storeOfLarge()
  const server = await startServer({ store, config: { listen: '127.0.0.1:0', drain: 0, grace: 1 } })
  await ready(server.url)
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.write(`GET ${PATH} HTTP/1.1\r\nhost: x\r\n\r\n`)
  await once(socket, 'readable')
  const before = performance.now()
  await server.stop()
  t.ok(performance.now() - before > 900, 'it waits')
  t.ok(performance.now() - before < 10_000, 'not for longer than the grace period')
  socket.destroy()
})

t.test('SIGHUP reloads the catalog and the tokens, and the service goes on', async (t) => {
  const home = t.testdir({})
  const location = `file:${join(home, 'store')}`
  const tokens = join(home, 'tokens.json')
  const token = await addToken(tokens, { name: 'a', scopes: ['read'] })
  const store = await openStore(location)
  await Catalog.publish(store)
  const args = ['--store', location, '--tokens', tokens, '--refresh', '3600']
  const { url, pid } = await serve(t, args)
  const headers = { authorization: `Bearer ${token}` }
  // a list shows the catalog as it is: a request for one missing kernel looks into the store
  const listed = async () => {
    const { statusCode, body } = await request(`${url}/v1/kernels`, { headers })
    const text = await body.text()
    return statusCode === 200 ? `${JSON.parse(text).kernels.length} kernels` : `${statusCode}`
  }
  t.equal(await listed(), '0 kernels')
  await putRecord(store, recordOf({}, { btf: await btfOf(store, RAW.little) }))
  await Catalog.publish(store)
  process.kill(pid, 'SIGHUP')
  await until(listed, (found) => found === '1 kernels')
  await removeToken(tokens, 'a')
  process.kill(pid, 'SIGHUP')
  await until(listed, (found) => found === '401')
})

t.test('a request that outlasts the grace period is closed', async (t) => {
  const { server } = await start(t, { grace: 0 })
  await ready(server.url)
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
  await once(socket, 'connect')
  socket.write('GET / HTTP/1.1\r\n')
  await sleep(20) // until it has been read
  const closed = once(socket.resume(), 'close')
  await server.stop()
  await closed
  t.pass('it is closed')
})

t.test(
  'one record and a snapshot that cannot be read do not keep a server from serving',
  async (t) => {
    const root = mkdtempSync(join(tmpdir(), 'server-'))
    t.teardown(() => rmSync(root, { recursive: true }))
    const store = await openStore(`file:${root}`)
    for (const release of ['6.1.0-1-amd64', '6.1.0-2-amd64'])
      await putRecord(store, recordOf({ release }, { btf: await btfOf(store, RAW.little) }))
    await Catalog.publish(store)
    for (const { key } of await Array.fromAsync(store.list('')))
      if (key.includes('6.1.0-2') || key.startsWith('catalog/')) {
        rmSync(join(root, key))
        symlinkSync(join(root, key), join(root, key))
      }
    const server = await startServer({ store, config: { listen: '127.0.0.1:0', drain: 0 } })
    t.teardown(() => server.stop())
    await ready(server.url)
    const { statusCode, body } = await request(`${server.url}${PATH}`)
    t.equal(statusCode, 200)
    t.ok(Buffer.from(await body.arrayBuffer()).equals(RAW.little))
    const metrics = await (await request(`${server.url}/metrics`)).body.text()
    t.match(metrics, /^btfmill_catalog_unusable_records 1$/m)
  },
)
