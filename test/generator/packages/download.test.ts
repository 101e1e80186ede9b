import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import {
  type DownloadOptions,
  type DownloadRetryOptions,
  download,
  downloadAll,
} from '../../../generator/packages/download.ts'
import { startForwardProxy } from '../../helpers/forward-proxy.ts'
import { aptWith, setVariables } from '../../helpers/proxy-variables.ts'
import { type Server, startServer } from '../../helpers/test-server.ts'

const BYTES = randomBytes(1_000_000)
const HALF = BYTES.length / 2
const ETAG = '"one"'

const retry: DownloadRetryOptions = { timeout: 400, retries: 3, minDelay: 1, maxDelay: 10 }

/** Reads a URL whole. */
async function read(url: string, options: DownloadOptions = {}): Promise<Buffer> {
  return await buffer((await download(url, { retry, ...options })).body)
}

/** Sends the headers of BYTES and its first half, then breaks the connection. */
function breakMidway(response: ServerResponse, headers: Record<string, string> = {}): void {
  response.writeHead(200, { 'content-length': BYTES.length, etag: ETAG, ...headers })
  response.write(BYTES.subarray(0, HALF), () => response.destroy())
}

/** Sends the requested range. */
function resume(request: IncomingMessage, response: ServerResponse, etag = ETAG): void {
  const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1])
  const range = `bytes ${start}-${BYTES.length - 1}/${BYTES.length}`
  const headers = { 'content-range': range, 'content-length': BYTES.length - start, etag }
  response.writeHead(206, headers).end(BYTES.subarray(start))
}

/** Starts a server that gives these answers in turn, and repeats the last one. */
async function answers(
  t: Test,
  ...list: ((request: IncomingMessage, response: ServerResponse) => void)[]
): Promise<Server> {
  let at = 0
  return await startServer(t, (request, response) => {
    list[Math.min(at++, list.length - 1)]!(request, response)
  })
}

const whole = (_: IncomingMessage, response: ServerResponse) => void response.end(BYTES)
const broken = (_: IncomingMessage, response: ServerResponse) => breakMidway(response)
const status =
  (code: number, headers: Record<string, string> = {}) =>
  (_: IncomingMessage, response: ServerResponse) =>
    void response.writeHead(code, headers).end()

t.test(
  'a local file is read by path and by URL, and other kinds of files are rejected',
  async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'download-'))
    t.teardown(() => rmSync(directory, { recursive: true }))
    const path = join(directory, 'a b%20+~.deb')
    writeFileSync(path, BYTES)
    for (const url of [path, pathToFileURL(path).href]) {
      const { size, body } = await download(url)
      t.equal(size, BYTES.length)
      t.ok(BYTES.equals(await buffer(body)))
    }
    await t.rejects(download(join(directory, 'missing')), { code: 'not_found_upstream' })
    await t.rejects(download(`file://${directory}/missing`), { code: 'not_found_upstream' })
    for (const other of [directory, '/dev/zero'])
      await t.rejects(download(other), { code: 'unreachable', message: /not a regular file/ })
    await t.rejects(
      download('gopher://127.0.0.1/'),
      { code: 'not_found_upstream' },
      'an unknown scheme is read as a path',
    )
  },
)

t.test('a file is downloaded with one request', async (t) => {
  const { url, requests } = await answers(t, whole)
  t.ok(BYTES.equals(await read(url)))
  t.equal(requests.length, 1)
})

t.test('a download that breaks off is resumed where it stopped', async (t) => {
  const { url, requests } = await answers(t, broken, resume)
  t.ok(BYTES.equals(await read(url)))
  const [, second] = requests
  t.equal(requests.length, 2)
  const [, start] = /^bytes=(\d+)-/.exec(second?.headers.range ?? '') ?? []
  t.ok(Number(start) > 0 && Number(start) <= HALF, `requested from ${start}`)
  t.equal(second?.headers['if-match'], ETAG, 'and only if the file is the same')
})

t.test('a server that cannot resume the same file makes the download fail', async (t) => {
  for (const [what, second] of [
    ['ignores Range', whole],
    ['the file has changed', (request, response) => resume(request, response, '"two"')],
    ['If-Match fails', status(412)],
    ['out of range', status(416)],
    ['the file no longer exists', status(404)],
  ] as [string, (request: IncomingMessage, response: ServerResponse) => void][]) {
    const { url } = await answers(t, broken, second)
    await t.rejects(read(url), { code: 'truncated', message: url }, what)
  }
})

t.test('a request whose connections all break fails after the last retry', async (t) => {
  const { url, requests } = await answers(t, (_, response) => void response.destroy())
  await t.rejects(read(url), { code: 'unreachable' })
  t.equal(requests.length, 1 + retry.retries)
})

t.test('a refused connection is unreachable', async (t) => {
  await t.rejects(read('http://127.0.0.1:9/'), { code: 'unreachable', message: /ECONNREFUSED/ })
})

t.test(
  '5xx and 429 are retried, and Retry-After is honoured up to the maximum delay',
  async (t) => {
    const { url, requests } = await answers(
      t,
      status(500),
      status(503, { 'retry-after': '999999' }),
      status(429, { 'retry-after': new Date(Date.now() + 9e8).toUTCString() }),
      whole,
    )
    t.ok(BYTES.equals(await read(url)))
    t.equal(requests.length, 4)
  },
)

t.test('a request that always gets 503 fails after the last retry', async (t) => {
  const { url, requests } = await answers(t, status(503))
  await t.rejects(read(url), { code: 'unreachable', message: /503/ })
  t.equal(requests.length, 1 + retry.retries)
})

t.test('a permanent error status is not retried', async (t) => {
  for (const [code, expected] of [
    [404, 'not_found_upstream'],
    [410, 'not_found_upstream'],
    [403, 'unreachable'],
    [204, 'unreachable'],
  ] as const) {
    const { url, requests } = await answers(t, status(code))
    await t.rejects(read(url), { code: expected, message: `${code}` })
    t.equal(requests.length, 1, `${code}`)
  }
})

t.test('redirects are followed up to a limit', async (t) => {
  const { url, requests } = await startServer(t, (request, response) => {
    if (request.url === '/loop') response.writeHead(302, { location: '/loop' }).end()
    else if (request.url === '/old') response.writeHead(301, { location: '/new' }).end()
    else response.end(BYTES)
  })
  t.ok(BYTES.equals(await read(`${url}/old`)))
  await t.rejects(read(`${url}/loop`), { code: 'unreachable' })
  t.ok(requests.length < 20)
})

t.test('a wrong Content-Length makes the download fail, or limits it', async (t) => {
  const long = await answers(t, (_, response) => {
    response.writeHead(200, { 'content-length': BYTES.length + 1, connection: 'close' })
    response.write(BYTES, () => response.socket?.end())
  })
  await t.rejects(read(long.url), { code: 'truncated' }, 'less arrives than is announced')
  const short = await answers(t, (_, response) => {
    response.socket?.end(
      `HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n${'more than nine'.repeat(99)}`,
    )
  })
  const got = await read(short.url).catch(({ code }) => code)
  t.ok(got === 'truncated' || got.length === 9, 'no more than the announced bytes are read')
})

t.test('a body of unknown length that breaks off is truncated', async (t) => {
  const { url } = await answers(t, (_, response) => {
    response.write(BYTES.subarray(0, HALF), () => response.destroy())
  })
  await t.rejects(read(url), { code: 'truncated' })
})

t.test('a server that stops responding before or within the body is stalled', async (t) => {
  const options = { retry: { ...retry, retries: 1 } }
  const mute = await answers(t, () => {})
  await t.rejects(read(mute.url, options), { code: 'stalled', message: /stopped responding/ })
  const stalling = await answers(
    t,
    (_, response) => {
      response.writeHead(200, { 'content-length': BYTES.length }).write(BYTES.subarray(0, HALF))
    },
    () => {},
  )
  await t.rejects(read(stalling.url, options), { code: 'stalled' })
})

t.test('a server that does not speak HTTP is unreachable', async (t) => {
  const { url } = await answers(t, (_, response) => void response.socket?.end('220 ready\r\n'))
  await t.rejects(read(url), { code: 'unreachable' })
})

t.test('a signal aborts a download at any time, with its reason', async (t) => {
  const reason = new Error('enough')
  await t.rejects(read('http://127.0.0.1:9/', { signal: AbortSignal.abort(reason) }), reason)

  const waiting = new AbortController()
  const mute = await answers(t, () => waiting.abort(reason))
  await t.rejects(read(mute.url, { signal: waiting.signal }), reason)
  t.equal(mute.requests.length, 1)

  const reading = new AbortController()
  const { url } = await answers(t, (_, response) => {
    response.writeHead(200, { 'content-length': BYTES.length }).write(BYTES.subarray(0, HALF))
  })
  const { body } = await download(url, { retry, signal: reading.signal })
  body.once('data', () => reading.abort(reason))
  await t.rejects(buffer(body), reason)
})

t.test('destroying the body closes the connection', async (t) => {
  let closed: Promise<unknown> | undefined
  const { url } = await startServer(t, (request, response) => {
    closed = new Promise((resolve) => request.socket.once('close', resolve))
    response.writeHead(200, { 'content-length': 1e12 })
    const pour = () => {
      while (response.write(BYTES));
    }
    response.on('drain', pour)
    pour()
  })
  const { body } = await download(url, { retry })
  for await (const _ of body) break
  await closed
  t.ok(body.destroyed)
})

t.test('downloadAll returns a whole file, and rejects one over the limit', async (t) => {
  const { url } = await answers(t, whole)
  t.ok(BYTES.equals(await downloadAll(url, BYTES.length, { retry })))
  await t.rejects(downloadAll(url, BYTES.length - 1, { retry }), { code: 'too_large' })
})

t.test('a download goes through a proxy of the environment or of apt', async (t) => {
  const { url } = await startServer(t, (_, response) => void response.end('whole'))
  const proxy = await startForwardProxy(t, url)
  const apt = aptWith(t, `Acquire::http::Proxy "${proxy.url}";`)
  const once = { timeout: 5000, retries: 0, minDelay: 1, maxDelay: 1 }
  const ask = async (variables: Record<string, string>, from = 'http://mirror.test/file') => {
    setVariables(t, variables)
    const result = await downloadAll(from, 1e6, { retry: once }).then(String, ({ code }) => code)
    return [result, proxy.requests.splice(0)]
  }
  const request = 'GET http://mirror.test/file'
  t.same(await ask({ http_proxy: proxy.url }), ['whole', [request]])
  t.same(await ask({ HTTP_PROXY: proxy.url }), ['whole', [request]])
  t.same(await ask({ HTTP_PROXY: proxy.url, NO_PROXY: 'mirror.test' }), ['unreachable', []])
  t.same(await ask({ HTTP_PROXY: proxy.url }, `${url}/file`), ['whole', []], 'loopback')
  const tunnel = ['unreachable', ['CONNECT mirror.test:443']]
  t.same(await ask({ HTTPS_PROXY: proxy.url }, 'https://mirror.test/file'), tunnel)
  t.same(await ask({ PATH: apt }), ['whole', [request]])
  t.same(await ask({ PATH: apt, http_proxy: '' }), ['unreachable', []])
})
