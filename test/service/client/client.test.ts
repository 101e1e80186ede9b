// fetchBtf against a btfmill service, and against servers that misbehave.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type FetchOptions, fetchBtf } from '../../../service/client/client.ts'
import { FetchError } from '../../../service/client/request.ts'
import { Catalog, generateKeys, type Kernel, putRecord } from '../../../storage/index.ts'
import { btfOf, RAW, recordOf, startMill } from '../../helpers/test-service.ts'

const sha256 = createHash('sha256').update(RAW.little).digest('hex')
const { kernel } = recordOf({ release: '6.1.0-1+deb12~x', buildId: 'ab'.repeat(20) })

/** Starts a server with this listener, and returns its URL. */
async function startListener(t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const fastOptions = (
  t: Test,
  server: string,
  overrides: FetchOptions = {},
): FetchOptions & { cache: string } => ({
  server,
  kernel,
  cache: join(t.testdir({}), 'cache'),
  attempts: 3,
  pause: 5,
  timeout: 300,
  ...overrides,
})

const filesBelow = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)

t.test(
  'BTF comes from the server once, then from the cache while its file is intact',
  async (t) => {
    const service = await startMill(t, async (store) => [
      recordOf(kernel, { btf: await btfOf(store, RAW.little) }),
    ])
    const options = fastOptions(t, service.url)
    const first = await fetchBtf(options)
    t.match(first, { origin: 'server', sha256 })
    t.ok(readFileSync(first.path).equals(RAW.little))
    t.same(await fetchBtf({ ...options, server: 'http://127.0.0.1:1' }), {
      ...first,
      origin: 'cache',
    })
    t.same(filesBelow(options.cache), [`${sha256}.btf`])

    writeFileSync(first.path, 'damaged')
    t.match(await fetchBtf(options), { origin: 'server', path: first.path })
    t.ok(readFileSync(first.path).equals(RAW.little))

    const output = join(options.cache, '../deep/out.btf')
    t.match(await fetchBtf({ ...options, output }), { path: output, origin: 'cache' })
    t.ok(readFileSync(output).equals(RAW.little))
  },
)

t.test("the kernel's own BTF takes precedence over the cache and the server", async (t) => {
  const root = t.testdir({ sys: { kernel: { btf: { vmlinux: 'own' } } } })
  t.same(await fetchBtf({ root, server: 'http://127.0.0.1:1' }), {
    path: join(root, 'sys/kernel/btf/vmlinux'),
    origin: 'kernel',
  })
})

t.test('two kernels never share a file in the cache', async (t) => {
  const service = await startMill(t, async (store) => [
    recordOf(kernel, { btf: await btfOf(store, RAW.little) }),
  ])
  const options = fastOptions(t, service.url)
  await fetchBtf(options)
  const other: Kernel = { ...kernel, release: 'other', buildId: 'cd'.repeat(20) }
  await t.rejects(fetchBtf({ ...options, kernel: other }), {
    code: 'refused',
    problem: 'unknown_kernel',
  })
})

t.test('a client does not repeat a request that the server refuses', async (t) => {
  let requests = 0
  const server = await startListener(t, (_, response) => {
    requests++
    response.writeHead(404, { 'content-type': 'application/problem+json' })
    response.end(JSON.stringify({ code: 'has_own_btf', detail: 'the kernel has its own BTF' }))
  })
  await t.rejects(fetchBtf(fastOptions(t, server)), { code: 'refused', problem: 'has_own_btf' })
  t.equal(requests, 1)
})

const validResponse: RequestListener = (_, response) => {
  response.writeHead(200, { etag: `"${sha256}"` })
  response.end(RAW.little)
}

const FAULTS: Record<string, RequestListener> = {
  'a connection reset': (request) => request.socket.destroy(),
  'a truncated body': (_, response) => {
    response.writeHead(200, { etag: `"${sha256}"`, 'content-length': RAW.little.length })
    response.write(RAW.little.subarray(0, 100), () => response.destroy())
  },
  'a body with the wrong digest': (_, response) => {
    response.writeHead(200, { etag: `"${sha256}"` })
    response.end(RAW.big)
  },
  'a missing ETag': (_, response) => response.end(RAW.little),
  'invalid zstd': (_, response) => {
    response.writeHead(200, { etag: `"${sha256}-zstd"`, 'content-encoding': 'zstd' })
    response.end('not zstd')
  },
  'no response': () => {},
  'a body that stalls': (_, response) => {
    response.writeHead(200, { etag: `"${sha256}"` })
    response.write('x')
  },
  'a 503': (_, response) => response.writeHead(503, { 'retry-after': '0' }).end('<html>'),
}

for (const [name, fault] of Object.entries(FAULTS)) {
  t.test(`after ${name} the client retries, and keeps no invalid file`, async (t) => {
    let faults = 1
    const server = await startListener(t, (request, response) =>
      (faults-- > 0 ? fault : validResponse)(request, response),
    )
    const options = fastOptions(t, server)
    t.match(await fetchBtf(options), { origin: 'server', sha256 })

    faults = Infinity
    const never = fastOptions(t, server, { kernel: { ...kernel, release: 'never' } })
    const error = await fetchBtf(never).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    t.type(error, FetchError)
    mkdirSync(never.cache, { recursive: true })
    t.same(filesBelow(never.cache), [])
  })
}

t.test('a client waits for a generation if it asks to, and otherwise fails at once', async (t) => {
  let pending = 5
  const server = await startListener(t, (request, response) => {
    if (pending-- <= 0) return validResponse(request, response)
    response.writeHead(202, { 'retry-after': '0' })
    response.end(JSON.stringify({ code: 'pending' }))
  })
  await t.rejects(fetchBtf(fastOptions(t, server)), { code: 'refused', problem: 'pending' })
  pending = 5
  t.match(await fetchBtf(fastOptions(t, server, { wait: true })), { sha256 })
})

t.test('an output or cache that cannot be written gives not_writable', async (t) => {
  const server = await startListener(t, validResponse)
  const options = fastOptions(t, server)
  writeFileSync(options.cache, 'a file in place of the directory')
  await t.rejects(fetchBtf(options), { code: 'not_writable' })
  await t.rejects(fetchBtf({ ...options, output: join(options.cache, 'out.btf') }), {
    code: 'not_writable',
  })
})

t.test('an aborted signal ends the fetch with its reason', async (t) => {
  const server = await startListener(t, () => {})
  const signal = AbortSignal.timeout(50)
  await t.rejects(fetchBtf(fastOptions(t, server, { signal, timeout: 60_000 })), {
    name: 'TimeoutError',
  })
})

t.test('with a public key the client accepts only BTF from the signed catalog', async (t) => {
  const { publicKey, secretKey } = generateKeys()
  const service = await startMill(t, async (store) => [
    recordOf(kernel, { btf: await btfOf(store, RAW.little) }),
  ])
  const options = fastOptions(t, service.url, { publicKey })
  await t.rejects(fetchBtf(options), { code: 'refused' }, 'without a signed catalog')

  await Catalog.publish(service.store, secretKey)
  const first = await fetchBtf(options)
  t.match(first, { origin: 'server', sha256 })
  t.same(await fetchBtf({ ...options, server: 'http://127.0.0.1:1' }), {
    ...first,
    origin: 'cache',
  })
  const other = { ...options, publicKey: generateKeys().publicKey }
  await t.rejects(
    fetchBtf(other),
    { code: 'invalid_signature' },
    'the cache of another key is not used',
  )

  // a record of the server has other BTF than the signed catalog
  const untrusted = { ...options, cache: `${options.cache}-2` }
  await putRecord(service.store, recordOf(kernel, { btf: await btfOf(service.store, RAW.big) }))
  await service.catalog.refresh()
  t.match(await fetchBtf(untrusted), { sha256 })
  await service.store.put('catalog/snapshot.ndjson.zst', Buffer.from('changed'))
  await t.rejects(fetchBtf({ ...untrusted, cache: `${options.cache}-4` }), {
    code: 'invalid_signature',
  })
  const unknown = { ...kernel, buildId: 'cd'.repeat(20), release: 'unknown' }
  await Catalog.publish(service.store, secretKey)
  await t.rejects(fetchBtf({ ...untrusted, kernel: unknown }), {
    code: 'refused',
    problem: 'unknown_kernel',
  })
})
