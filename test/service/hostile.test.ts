/*
 * Hostile requests. Random requests are generated from the OpenAPI document, so new routes are attacked, too. No response may
 * be a 500 or reveal paths or code, and the server must answer the next request.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { Client, type Dispatcher, request } from 'undici'
import type { Config } from '../../service/config.ts'
import { startServer } from '../../service/index.ts'
import { openStore, putRecord } from '../../storage/index.ts'
import { ask, btfOf, RAW, recordOf, sendRaw } from '../helpers/test-service.ts'
import { ready, until } from '../helpers/wait-until.ts'

const REQUESTS = 10_000
/** Requests at a time, each on its own connection. */
const AT_ONCE = 50

/** Texts that no response may contain. Below /home/hive/btf are addresses of the service. */
const LEAKS =
  /\/work|\/tmp\/|\/home(?!\/hive\/btf)|node_modules|\n\s+at |\.ts:\d|root:x:|node:internal|EACCES|ENOENT/

/** A record with details that only the operator may read. */
const FAILED = recordOf(
  { release: 'failed' },
  {
    failure: {
      code: 'internal',
      message: 'a defect',
      log: 'Error: a defect\n    at run (/home/me/btfmill/pipeline.ts:1:1)',
      attempts: 1,
      at: '2026-11-01T12:00:00.000Z',
      retryAt: null,
    },
    package: { name: 'x', version: '1', url: '/home/me/x.deb', authenticated: 'none' },
  },
)

async function start(t: Test, config: Partial<Config> = {}) {
  const store = await openStore(`file:${join(t.testdir({}), 'store')}`)
  await putRecord(store, recordOf({}, { btf: await btfOf(store, RAW.little) }))
  await putRecord(store, FAILED)
  const server = await startServer({
    store,
    config: { listen: '127.0.0.1:0', drain: 0, ...config },
  })
  t.teardown(() => server.stop())
  await ready(server.url)
  return server
}

interface Route {
  method: string
  path: string
  query: string[]
}

/** The routes in the document. */
async function routesOf(url: string): Promise<Route[]> {
  const { paths } = (await ask(`${url}/openapi.json`)).json as {
    paths: Record<string, Record<string, { parameters?: { in: string; name: string }[] }>>
  }
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { parameters = [] }]) => ({
      method: method.toUpperCase(),
      path,
      query: parameters.filter((parameter) => parameter.in === 'query').map(({ name }) => name),
    })),
  )
}

/** Path traversal, injection and other hostile values. */
const HOSTILE = [
  ...['..', '.', '../../../../etc/passwd', '..\\..\\windows', '/etc/passwd', '%2e%2e%2f', '..;/'],
  ...[
    '....//....//etc/passwd',
    '\0',
    'a\0.btf',
    '~root',
    'file:///etc/passwd',
    '.tmp',
    '.git/config',
  ],
  ...[
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    '$(id)',
    '`id`',
    ';id',
    '|id',
    "' OR 1=1--",
  ],
  ...[
    '<script>alert(1)</script>',
    '%',
    '%zz',
    '%00',
    '\r\nx-injected: 1',
    '\u202e',
    'ä',
    '\ud800',
    '𝕏',
  ],
  ...[
    '-1',
    '0',
    '1e309',
    'NaN',
    '9'.repeat(400),
    'a'.repeat(5000),
    '',
    ' ',
    '*',
    '?',
    '[',
    '{}',
    '[]',
    'null',
  ],
]
const KNOWN = [
  ...[
    'debian',
    '12',
    'x86_64',
    '6.1.0-1-amd64',
    '6.1.0-1-amd64.btf',
    '6.1.0-1-amd64.btf.tar.xz',
    'any',
  ],
  ...[
    'aa'.repeat(20),
    'aa'.repeat(32),
    'libbpf-0.5',
    'merged',
    'newest',
    '1',
    '100',
    'vmlinux-6.1.0-1-amd64',
  ],
]

const word = fc.oneof(
  fc.constantFrom(...KNOWN),
  fc.constantFrom(...HOSTILE),
  fc.string({ unit: 'binary', maxLength: 40 }),
)
/** A value in a URL: encoded once, twice, or raw where HTTP allows it. */
const written = fc.tuple(word, fc.nat(3)).map(([text, form]) => {
  const once = encodeURIComponent(text.toWellFormed())
  if (form === 0) return encodeURIComponent(once)
  return form === 1 && /^[!-~]*$/.test(text) ? text : once
})

const header = fc.oneof(
  word.map((text) => text.replace(/[^\t -~]/g, '')),
  fc.constantFrom(
    'bytes=0-',
    'bytes=5-1',
    'bytes=-1',
    'zstd',
    'gzip;q=0',
    '*',
    'application/x-ndjson',
  ),
  fc.constantFrom(
    'application/json',
    'multipart/form-data',
    'multipart/form-data; boundary=x',
    '"x"',
    'W/"x"',
  ),
)
const HEADERS = [
  ...[
    'accept',
    'accept-encoding',
    'range',
    'if-range',
    'if-none-match',
    'authorization',
    'content-type',
  ],
  ...[
    'x-request-id',
    'x-forwarded-for',
    'forwarded',
    'cookie',
    'user-agent',
    'accept-version',
    'origin',
  ],
]

const BODIES = [
  ...['', '{', '{"__proto__":{"x":1}}', '[]', 'null', '--x', '--x--', '--x\r\n\r\n--x--'],
  ...[
    '--x\r\ncontent-disposition: form-data; name="object"; filename="../../a"\r\n\r\n\u007fELF\r\n--x--',
  ],
  ...[
    '--x\r\ncontent-disposition: form-data\r\n\r\n',
    `--x\r\n${'a: b\r\n'.repeat(3000)}\r\n`,
    'a'.repeat(70_000),
  ],
]

function requestFor(routes: readonly Route[]): fc.Arbitrary<Dispatcher.RequestOptions> {
  return fc
    .record({
      route: fc.constantFrom(...routes),
      method: fc.constantFrom(
        undefined,
        undefined,
        undefined,
        'HEAD',
        'POST',
        'PUT',
        'DELETE',
        'OPTIONS',
        'PATCH',
      ),
      parts: fc.array(written, { minLength: 6, maxLength: 6 }),
      query: fc.array(fc.tuple(fc.nat(12), written), { maxLength: 4 }),
      headers: fc.dictionary(fc.constantFrom(...HEADERS), header, { maxKeys: 4 }),
      body: fc.oneof(fc.constantFrom(...BODIES), fc.string({ unit: 'binary', maxLength: 200 })),
    })
    .map(({ route, method = route.method, parts, query, headers, body }) => {
      let at = 0
      const path = route.path.replace(/\{\w+\}/g, () => parts[at++] ?? 'x')
      const pairs = query.map(([i, value]) => `${route.query[i] ?? value.slice(0, 20)}=${value}`)
      const address = pairs.length > 0 ? `${path}?${pairs.join('&')}` : path
      const sent = method === 'GET' || method === 'HEAD' ? {} : { body }
      return { method, path: address, headers, ...sent } as Dispatcher.RequestOptions
    })
}

t.test(
  `${REQUESTS} random requests generated from the document never get a 500 or a leak`,
  async (t) => {
    const { url } = await start(t)
    const routes = await routesOf(url)
    t.ok(routes.length > 10)
    const clients = Array.from({ length: AT_ONCE }, () => new Client(url))
    t.teardown(() => Promise.all(clients.map((client) => client.destroy())))
    const statuses = new Map<number, number>()
    const property = fc.asyncProperty(
      fc.array(requestFor(routes), { minLength: AT_ONCE, maxLength: AT_ONCE }),
      async (requests) => {
        const answers = requests.map(async (request, i) => {
          const { statusCode, headers, body } = await clients[i]!.request(request)
          const text = await body.text()
          const said = `${request.method} ${request.path}: ${statusCode}`
          statuses.set(statusCode, (statuses.get(statusCode) ?? 0) + 1)
          if (statusCode >= 500) throw new Error(`${said}: ${text}`)
          if (LEAKS.test(text) || LEAKS.test(JSON.stringify(headers)))
            throw new Error(`${said} says too much: ${text.slice(0, 500)}`)
          if ('x-injected' in headers) throw new Error(`${said}: a header was put in`)
          const problem = headers['content-type'] === 'application/problem+json'
          if (statusCode >= 400 && request.method !== 'HEAD' && !problem)
            throw new Error(`${said}: ${headers['content-type']}`)
        })
        await Promise.all(answers)
      },
    )
    await fc.assert(property, { numRuns: REQUESTS / AT_ONCE, endOnFailure: true })
    t.comment(
      [...statuses]
        .sort()
        .map(([status, count]) => `${status}: ${count}`)
        .join(', '),
    )
    t.ok(statuses.get(200)! > 0, 'some were right')
    t.equal((await ask(`${url}/readyz`)).status, 200)
    const { kernels } = (await ask(`${url}/v1/kernels`)).json as { kernels: object[] }
    t.notMatch(JSON.stringify(kernels), LEAKS)
    t.match(kernels[1], { failure: { code: 'internal' }, package: { url: 'x.deb' } })
  },
)

t.test('path traversal in each parameter of each route reveals nothing', async (t) => {
  const { url } = await start(t)
  const client = new Client(url)
  t.teardown(() => client.destroy())
  for (const { method, path, query } of await routesOf(url)) {
    const names = path.match(/\{\w+\}/g) ?? []
    const fill = (hostile: string, at: number) => {
      let i = 0
      return path.replace(/\{\w+\}/g, () => (i++ === at ? hostile : 'x'))
    }
    for (const hostile of HOSTILE) {
      const encoded = encodeURIComponent(hostile.toWellFormed())
      const addresses = [
        ...names.map((_, at) => fill(encoded, at)),
        ...query.map((name) => `${fill('x', -1)}?${name}=${encoded}`),
      ]
      for (const address of addresses) {
        const { statusCode, body } = await client.request({
          method: method as 'GET',
          path: address,
        })
        const text = await body.text()
        if (statusCode >= 500 || LEAKS.test(text)) t.fail(`${address}: ${statusCode}: ${text}`)
      }
    }
  }
  t.equal((await ask(`${url}/readyz`)).status, 200)
})

/** Sends a chunk repeatedly on one connection until the server closes it. Gives the response. */
async function drip(port: number, first: string, piece: string): Promise<string> {
  const socket: Socket = connect(port, '127.0.0.1')
  let answer = ''
  socket.on('data', (bytes) => {
    answer += bytes
  })
  socket.on('error', () => {})
  const closed = once(socket, 'close')
  socket.write(first)
  const timer = setInterval(() => socket.write(piece), 100)
  await closed
  clearInterval(timer)
  return answer
}

t.test('a slow sender is disconnected and delays nobody', async (t) => {
  const { url } = await start(t, { requestTimeout: 1 })
  const port = Number(new URL(url).port)
  const slow = [
    ...Array.from({ length: 50 }, () =>
      drip(port, 'GET /v1/kernels HTTP/1.1\r\nhost: x\r\n', 'x: y\r\n'),
    ),
    ...Array.from({ length: 20 }, () => drip(port, '', 'G')),
    ...Array.from({ length: 20 }, () =>
      drip(port, 'POST /api/v1/customize HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n', 'x'),
    ),
  ]
  let answered = 0
  const others = (async () => {
    for (let i = 0; i < 50; i++) {
      if ((await ask(`${url}/v1/kernels`)).status === 200) answered++
      await sleep(10)
    }
  })()
  await others
  t.equal(answered, 50)
  const answers = await Promise.all(slow)
  t.equal(answers.length, 90, 'all are closed')
  for (const answer of answers.slice(0, 50))
    t.match(answer, /^HTTP\/1\.1 408 [\s\S]*"code":"timeout"/)
})

t.test('connections over the limit are refused', async (t) => {
  const { url } = await start(t, { connections: 20 })
  const port = Number(new URL(url).port)
  const sockets = Array.from({ length: 60 }, () => connect(port, '127.0.0.1').on('error', () => {}))
  await Promise.all(
    sockets.slice(20).map((socket) => once(socket.resume(), 'close').catch(() => {})),
  )
  t.ok(sockets.filter((socket) => !socket.destroyed).length <= 20)
  for (const socket of sockets) socket.destroy()
  await sleep(50)
  t.equal((await ask(`${url}/healthz`)).status, 200, 'the next one is answered')
})

t.test('bodies that are too long or of another type are refused', async (t) => {
  const { url } = await start(t, { bodyLimit: 1000 })
  const send = (type: string, body: string) =>
    sendRaw(
      url,
      `POST /api/v1/customize HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    )
  t.match(await send('application/json', `"${'x'.repeat(2000)}"`), /^HTTP\/1\.1 4(13|00|04|15|22) /)
  t.match(await send('application/x-nothing', 'x'), /^HTTP\/1\.1 4\d\d /)
  t.match(
    await sendRaw(
      url,
      'POST /api/v1/customize HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    ),
    /^HTTP\/1\.1 400 /,
    'two lengths: smuggling',
  )
  t.equal((await ask(`${url}/healthz`)).status, 200)
})

const CUSTOMIZE =
  '/api/v1/customize?distribution=debian&distribution_version=12&arch=x86_64&kernel_version=6.1.0-1-amd64'

/** Sends a raw form, and gives status and problem. */
async function sendForm(url: string, body: string, type = 'multipart/form-data; boundary=x') {
  const headers = { 'content-type': type }
  const answer = await request(`${url}${CUSTOMIZE}`, { method: 'POST', headers, body })
  return { status: answer.statusCode, text: await answer.body.text() }
}

t.test('invalid multipart forms are refused', async (t) => {
  const { url } = await start(t, { uploadLimit: 4096 })
  const part = (disposition: string, content = 'x') =>
    `--x\r\ncontent-disposition: ${disposition}\r\n\r\n${content}\r\n`
  const file = (name: string, content?: string) =>
    part(`form-data; name="${name}"; filename="../../../etc/passwd"`, content)
  const forms = {
    nothing: '',
    'no end': file('bpf'),
    'no header': '--x\r\n\r\n--x--',
    'no name': `${part('form-data')}--x--`,
    'a field': `${part('form-data; name="bpf"')}--x--`,
    'another name': `${file('other')}--x--`,
    'two files': `${file('bpf')}${file('bpf')}--x--`,
    'no object': `${file('bpf')}--x--`,
    'a long file': `${file('bpf', 'y'.repeat(10_000))}--x--`,
    'many headers': `--x\r\n${'a: b\r\n'.repeat(5000)}\r\nx\r\n--x--`,
    'a long header': `--x\r\ncontent-disposition: ${'z'.repeat(60_000)}\r\n\r\nx\r\n--x--`,
    'a prototype': `${file('__proto__')}--x--`,
    'a form in a form': `--x\r\ncontent-type: multipart/mixed; boundary=x\r\n\r\n${file('bpf')}--x--`,
  }
  for (const [what, form] of Object.entries(forms)) {
    const { status, text } = await sendForm(url, form)
    t.ok(status >= 400 && status < 500, `${what}: ${status}`)
    t.equal(JSON.parse(text).status, status, what)
    t.notMatch(text, LEAKS, what)
  }
  for (const type of [
    'multipart/form-data',
    'multipart/form-data; boundary=',
    'multipart/x; boundary=x',
  ]) {
    const { status } = await sendForm(url, forms['no object'], type)
    t.ok(status >= 400 && status < 500, `${type}: ${status}`)
  }
  t.equal((await ask(`${url}/readyz`)).status, 200)
})

const FORM_TYPE = 'content-type: multipart/form-data; boundary=x'
const FILE = '--x\r\ncontent-disposition: form-data; name="bpf"; filename="a"\r\n\r\n'

/** Announces a form with a file of some size, and sends the first `sent` bytes of it. */
function startUpload(url: string, size: number, sent: number, headers = ''): Socket {
  const socket = connect(Number(new URL(url).port), '127.0.0.1').on('error', () => {})
  const head = `POST ${CUSTOMIZE} HTTP/1.1\r\nhost: x\r\n${headers}${FORM_TYPE}\r\n`
  socket.write(`${head}content-length: ${size}\r\n\r\n${FILE}${'y'.repeat(sent)}`)
  return socket
}

/** The first bytes of an answer; empty if the connection is closed without one. */
async function answerOf(socket: Socket): Promise<string> {
  for await (const bytes of socket) return String(bytes)
  return ''
}

t.test('idle uploads that announce large bodies do not keep others from uploading', async (t) => {
  const MIB = 1024 * 1024
  const { url } = await start(t, { uploadLimit: MIB, uploadMemory: 4 * MIB })
  const idle = Array.from({ length: 60 }, () => startUpload(url, MIB, 0))
  await Promise.all(idle.map((socket) => once(socket, 'connect')))
  await sleep(200) // until the server has read the headers
  const { status } = await sendForm(url, `${FILE}${'x'.repeat(MIB - 1000)}\r\n--x--`)
  t.equal(status, 422, 'it is read, and no object')
  for (const socket of idle) socket.destroy()
})

t.test('a client has a share of the memory for uploads, and others have theirs', async (t) => {
  const settings = { uploadLimit: 1024 * 1024, uploadMemory: 8 * 1024 * 1024 }
  const { url } = await start(t, { ...settings, trustProxy: ['127.0.0.1'] })
  const from = (client: string) =>
    Array.from({ length: 4 }, () =>
      startUpload(url, 1_000_000, 900_000, `x-forwarded-for: ${client}\r\n`),
    )
  const greedy = from('192.0.2.1')
  const refused = await Promise.race(greedy.map(answerOf))
  t.match(refused, /^HTTP\/1\.1 503 [\s\S]*"code":"busy"/)
  const headers = { 'content-type': FORM_TYPE.slice(14), 'x-forwarded-for': '192.0.2.2' }
  const body = `${FILE}${'y'.repeat(900_000)}\r\n--x--`
  for (let sent = 0; sent < 5; sent++) {
    const answer = await request(`${url}${CUSTOMIZE}`, { method: 'POST', headers, body })
    t.equal(answer.statusCode, 422, 'another client is served, and has its room back each time')
    await answer.body.dump()
  }
  for (const socket of greedy) socket.destroy()
  const again = { ...headers, 'x-forwarded-for': '192.0.2.1' }
  const { statusCode } = await until(
    async () => {
      const later = await request(`${url}${CUSTOMIZE}`, { method: 'POST', headers: again, body })
      await later.body.dump()
      return later
    },
    ({ statusCode: status }) => status !== 503,
  )
  t.equal(statusCode, 422, 'and its room is free again')
})

t.test('an upload that stalls is ended with 408', async (t) => {
  const { url } = await start(t, { uploadTimeout: 1 })
  const before = performance.now()
  const socket = startUpload(url, 1_000_000, 1000)
  let answer = ''
  for await (const bytes of socket) answer += bytes // until the server closes the connection
  t.match(answer, /^HTTP\/1\.1 408 [\s\S]*"code":"timeout"/)
  t.ok(performance.now() - before < 15_000, 'long before the timeout of the request')
})

t.test('a body that is no form is refused before it is read', async (t) => {
  const { url } = await start(t)
  for (const path of ['/v1/check', '/v1/minimize', '/v1/bundles?profile=tree', CUSTOMIZE]) {
    const socket = connect(Number(new URL(url).port), '127.0.0.1').on('error', () => {})
    const head = `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`
    socket.write(`${head}content-length: 1000000\r\n\r\n"x`) // the rest is never sent
    const answer = await Promise.race([answerOf(socket), sleep(5000, 'nothing')])
    t.match(answer, /^HTTP\/1\.1 415 [\s\S]*"code":"unsupported_media_type"/, path)
    socket.destroy()
  }
})
