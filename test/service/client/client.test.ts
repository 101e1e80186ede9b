// fetchBtf against our server and against servers that misbehave.
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type OutgoingHttpHeaders, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { constants, zstdCompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { request } from 'undici'
import { type FetchOptions, fetchBtf } from '../../../service/client/client.ts'
import { FetchError } from '../../../service/client/request.ts'
import {
  Catalog,
  generateKeys,
  type Kernel,
  putRecord,
  SNAPSHOT_KEY,
  signatureKey,
  signContent,
} from '../../../storage/index.ts'
import { MAIN } from '../../helpers/command.ts'
import { startForwardProxy } from '../../helpers/forward-proxy.ts'
import { aptWith, setVariables } from '../../helpers/proxy-variables.ts'
import { btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const sha256 = createHash('sha256').update(RAW.little).digest('hex')
const { kernel } = recordOf({ release: '6.1.0-1+deb12~x', buildId: 'ab'.repeat(20) })

/** Starts a server with that listener, and returns its URL. */
async function serverThat(t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const quick = (
  t: Test,
  server: string,
  rest: FetchOptions = {},
): FetchOptions & { cache: string } => ({
  server,
  kernel,
  cache: join(t.testdir({}), 'cache'),
  attempts: 3,
  minDelay: 5,
  timeout: 300,
  ...rest,
})

const filesBelow = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)

t.test(
  'the client fetches BTF from the server once, then uses its cache, and replaces a damaged file',
  async (t) => {
    const testService = await startTestService(t, async (store) => [
      recordOf(kernel, { btf: await btfOf(store, RAW.little) }),
    ])
    const options = quick(t, testService.url)
    const first = await fetchBtf(options)
    const name = 'debian/12/x86_64/6.1.0-1+deb12~x'
    t.match(first, { origin: 'server', sha256, found: { name, by: 'name' } })
    t.ok(readFileSync(first.path).equals(RAW.little))
    t.same(await fetchBtf({ ...options, server: 'http://127.0.0.1:1' }), {
      path: first.path,
      sha256,
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

t.test('the client refuses an option that is unknown or at the wrong depth', async (t) => {
  const root = t.testdir({ sys: { kernel: { btf: { vmlinux: 'own' } } } })
  const { release, ...incomplete } = kernel
  const named = { root, release: '6.1.0-1-amd64' }
  // @ts-expect-error: without the error it would be the BTF of this machine
  const misplaced: FetchOptions = named
  // @ts-expect-error: a part of the name is missing
  const partial: FetchOptions = { root, kernel: incomplete }
  for (const [options, message] of [
    [misplaced, 'option release at the wrong depth: expected { kernel: { release } }'],
    [partial, 'invalid kernel.release undefined: expected a string'],
    [{ root, kernel: { ...kernel, release: 6 } }, 'invalid kernel.release 6: expected a string'],
    [{ root, kernel: { ...kernel, server: 'http://x' } }, /^unknown kernel\.server: expected /],
    [{ root, kernels: kernel }, /^unknown option kernels: expected some of server, pack, token, /],
    [{ root, server: 'btfmill.test:8080' }, 'invalid server: expected http://HOST:PORT'],
    [{ root, token: 'two\nlines' }, /^invalid token: /],
  ] as [FetchOptions, string | RegExp][])
    await t.rejects(fetchBtf(options), { code: 'invalid_options', message })
  t.equal((await fetchBtf({ root })).origin, 'kernel')
})

t.test(
  'the client sends a token to the server, and not where the server redirects to',
  async (t) => {
    const seen: [string, string | undefined][] = []
    const bucket = await serverThat(t, ({ headers }, response) => {
      seen.push(['bucket', headers.authorization])
      response.end(RAW.little)
    })
    const server = await serverThat(t, ({ headers }, response) => {
      seen.push(['server', headers.authorization])
      response.writeHead(307, { location: `${bucket}/blob`, etag: `"${sha256}"` }).end()
    })
    t.match(await fetchBtf(quick(t, server, { token: 'a.b-c' })), { origin: 'server', sha256 })
    t.same(seen, [
      ['server', 'Bearer a.b-c'],
      ['bucket', undefined],
    ])
  },
)

t.test('btfmill fetch sends the token of its file, else that of the environment', async (t) => {
  const seen: (string | undefined)[] = []
  const server = await serverThat(t, (request, response) => {
    seen.push(request.headers.authorization)
    whole(request, response)
  })
  const dir = t.testdir({ token: 'from-file\n' })
  const names = ['--distro', 'debian', '--distro-version', '12', '--release', 'x']
  const fetch = (env: Record<string, string>, ...args: string[]) => {
    const output = ['-o', join(dir, 'out.btf')]
    const XDG_CACHE_HOME = join(dir, `cache-${seen.length}`)
    return promisify(execFile)(
      process.execPath,
      [MAIN, 'fetch', '--server', server, ...names, ...output, ...args],
      { env: { PATH: process.env.PATH, XDG_CACHE_HOME, ...env } },
    )
  }
  const file = join(dir, 'token')
  await fetch({ BTFMILL_TOKEN: 'from-environment' })
  await fetch({ BTFMILL_TOKEN: 'from-environment', BTFMILL_TOKEN_FILE: file })
  await fetch({}, '--token-file', file)
  t.same(seen, ['Bearer from-environment', 'Bearer from-file', 'Bearer from-file'])
})

t.test('the client asks through a proxy of the environment or of apt', async (t) => {
  const server = await serverThat(t, whole)
  const proxy = await startForwardProxy(t, server)
  const apt = aptWith(t, `Acquire::http::Proxy "${proxy.url}";`)
  const ask = async (variables: Record<string, string>, url = 'http://btfmill.test:8080') => {
    setVariables(t, variables)
    const { code } = await fetchBtf(quick(t, url, { attempts: 1 })).then(
      () => ({ code: 'done' }),
      (error: FetchError) => error,
    )
    return [code, proxy.requests.splice(0).map((request) => request.replace(/\/v1.*/, ''))]
  }
  const http = 'GET http://btfmill.test:8080'
  t.same(await ask({ HTTP_PROXY: proxy.url }), ['done', [http]])
  t.same(await ask({ http_proxy: proxy.url.replace('http://', '') }), ['done', [http]])
  t.same(await ask({ HTTPS_PROXY: proxy.url }), ['unreachable', []])
  t.same(await ask({ HTTP_PROXY: proxy.url, NO_PROXY: 'x,.test' }), ['unreachable', []])
  t.same(await ask({ HTTP_PROXY: proxy.url }, server), ['done', []], 'loopback needs no proxy')
  for (const variable of ['HTTPS_PROXY', 'HTTP_PROXY'])
    t.same(await ask({ [variable]: proxy.url }, 'https://btfmill.test'), [
      'unreachable',
      ['CONNECT btfmill.test:443'],
    ])
  t.same(await ask({ PATH: apt }), ['done', [http]])
  t.same(await ask({ PATH: apt, HTTP_PROXY: '' }), ['unreachable', []])
  t.same(await ask({ PATH: apt, NO_PROXY: '*' }), ['unreachable', []])
  const direct = aptWith(
    t,
    `Acquire::http::Proxy "${proxy.url}";\nAcquire::http::Proxy::btfmill.test "DIRECT";`,
  )
  t.same(await ask({ PATH: direct }), ['unreachable', []])

  setVariables(t, { HTTP_PROXY: 'socks5://user:secret@proxy.test' })
  const refused = await fetchBtf(quick(t, server)).catch((error: Error) => error)
  t.match(refused, { message: /expected http:\/\/HOST:PORT/ })
  t.notMatch(refused, { message: /secret/ })
  setVariables(t, { HTTP_PROXY: 'http://user:secret@127.0.0.1:1' })
  const unreachable = await fetchBtf(quick(t, 'http://x.test')).catch((error: Error) => error)
  t.match(unreachable, { code: 'unreachable' })
  t.notMatch(unreachable, { message: /secret/ })
})

t.test("the client returns the kernel's own BTF without asking a server", async (t) => {
  const root = t.testdir({ sys: { kernel: { btf: { vmlinux: 'own' } } } })
  t.same(await fetchBtf({ root, server: 'http://127.0.0.1:1' }), {
    path: join(root, 'sys/kernel/btf/vmlinux'),
    origin: 'kernel',
  })
})

t.test('two kernels never share a file in the cache', async (t) => {
  const testService = await startTestService(t, async (store) => [
    recordOf(kernel, { btf: await btfOf(store, RAW.little) }),
  ])
  const options = quick(t, testService.url)
  await fetchBtf(options)
  const other: Kernel = { ...kernel, release: 'other', buildId: 'cd'.repeat(20) }
  await t.rejects(fetchBtf({ ...options, kernel: other }), {
    code: 'refused',
    problem: 'unknown_kernel',
  })
})

t.test('the client does not repeat a request that the server refuses', async (t) => {
  let asked = 0
  const server = await serverThat(t, (_, response) => {
    asked++
    response.writeHead(404, { 'content-type': 'application/problem+json' })
    response.end(JSON.stringify({ code: 'has_own_btf', detail: 'the kernel has its own BTF' }))
  })
  await t.rejects(fetchBtf(quick(t, server)), { code: 'refused', problem: 'has_own_btf' })
  t.equal(asked, 1)
})

const whole: RequestListener = (_, response) => {
  response.writeHead(200, { etag: `"${sha256}"` })
  response.end(RAW.little)
}

const FAULTS: Record<string, RequestListener> = {
  'a connection reset': (request) => request.socket.destroy(),
  'a truncated body': (_, response) => {
    response.writeHead(200, { etag: `"${sha256}"`, 'content-length': RAW.little.length })
    response.write(RAW.little.subarray(0, 100), () => response.destroy())
  },
  'other bytes': (_, response) => {
    response.writeHead(200, { etag: `"${sha256}"` })
    response.end(RAW.big)
  },
  'a response without a digest': (_, response) => response.end(RAW.little),
  'invalid zstd': (_, response) => {
    response.writeHead(200, { etag: `"${sha256}-zstd"`, 'content-encoding': 'zstd' })
    response.end('not zstd')
  },
  'a response that never starts': () => {},
  'a body that stalls': (_, response) => {
    response.writeHead(200, { etag: `"${sha256}"` })
    response.write('x')
  },
  'a 503': (_, response) => response.writeHead(503, { 'retry-after': '0' }).end('<html>'),
}

for (const [name, fault] of Object.entries(FAULTS)) {
  t.test(`after ${name}, the client tries again and caches nothing invalid`, async (t) => {
    let faults = 1
    const server = await serverThat(t, (request, response) =>
      (faults-- > 0 ? fault : whole)(request, response),
    )
    const options = quick(t, server)
    t.match(await fetchBtf(options), { origin: 'server', sha256 })

    faults = Infinity
    const never = quick(t, server, { kernel: { ...kernel, release: 'never' } })
    const error = await fetchBtf(never).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    t.type(error, FetchError)
    mkdirSync(never.cache, { recursive: true })
    t.same(filesBelow(never.cache), [])
  })
}

t.test('the client waits for a generation only if the caller says so', async (t) => {
  let pending = 5
  const server = await serverThat(t, (request, response) => {
    if (pending-- <= 0) return whole(request, response)
    response.writeHead(202, { 'retry-after': '0' })
    response.end(JSON.stringify({ code: 'pending' }))
  })
  await t.rejects(fetchBtf(quick(t, server)), { code: 'refused', problem: 'pending' })
  pending = 5
  t.match(await fetchBtf(quick(t, server, { wait: true })), { sha256 })
})

t.test('an output or a cache that cannot be written is reported as not_writable', async (t) => {
  const server = await serverThat(t, whole)
  const options = quick(t, server)
  writeFileSync(options.cache, 'a file instead of a directory')
  await t.rejects(fetchBtf(options), { code: 'not_writable' })
  await t.rejects(fetchBtf({ ...options, output: join(options.cache, 'out.btf') }), {
    code: 'not_writable',
  })
})

t.test('a server that sends a byte now and then holds nobody beyond the deadline', async (t) => {
  const server = await serverThat(t, (_, response) => {
    const timer = setInterval(() => response.write('x'), 20)
    response.on('close', () => clearInterval(timer))
  })
  const options = quick(t, server, { deadline: 500, timeout: 60_000 })
  await t.rejects(fetchBtf(options), { code: 'timeout', message: 'no BTF within 0.5 seconds' })
  const pending = await serverThat(t, (_, response) => {
    response.writeHead(202, { 'retry-after': '60' }).end('{"code":"pending"}')
  })
  await t.rejects(fetchBtf({ ...options, server: pending, wait: true }), { code: 'timeout' })
})

t.test('a small response that decompresses to gigabytes costs little memory', async (t) => {
  const bomb = zstdCompressSync(Buffer.alloc(2 ** 30), {
    params: { [constants.ZSTD_c_windowLog]: 26 },
  })
  t.ok(bomb.length < 200_000, `${bomb.length} bytes`)
  const server = await serverThat(t, (_, response) => {
    response.writeHead(200, { etag: `"${sha256}"`, 'content-encoding': 'zstd' }).end(bomb)
  })
  const client = join(import.meta.dirname, '../../../service/client/client.ts')
  const script = `
    const { fetchBtf } = await import(${JSON.stringify(client)})
    const before = process.resourceUsage().maxRSS
    const { code } = await fetchBtf(${JSON.stringify(quick(t, server))}).catch((error) => error)
    console.log(code, process.resourceUsage().maxRSS - before)`
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--input-type=module',
    '--eval',
    script,
  ])
  const [, code, kibibytes] = /^(\w+) (\d+)/.exec(stdout)!
  t.equal(code, 'digest_mismatch')
  t.ok(Number(kibibytes) < 300 * 1024, `${kibibytes} KiB`)
})

t.test('an error that quotes a server is short and has no control characters', async (t) => {
  const detail = `\x1b[2J\u202e\x9b\r\n${'x'.repeat(60_000)}`
  const server = await serverThat(t, (_, response) => {
    response.writeHead(404).end(JSON.stringify({ code: '\x1b[2J', detail }))
  })
  const error = (await fetchBtf(quick(t, server)).catch((thrown) => thrown)) as FetchError
  t.match(error, { code: 'refused', problem: undefined })
  t.match(error.message, /^\?\[2J\?{4}x{500,600}…$/)
  const endless = await serverThat(t, (_, response) => {
    response.writeHead(404)
    const timer = setInterval(() => response.write('x'.repeat(60_000)), 1)
    response.on('close', () => clearInterval(timer))
  })
  await t.rejects(fetchBtf(quick(t, endless)), {
    code: 'invalid_response',
    message: /exceeds 65536 bytes/,
  })
})

t.test('the client takes neither a link nor a pipe from its cache', async (t) => {
  const server = await serverThat(t, whole)
  const options = quick(t, server)
  const { path } = await fetchBtf(options)
  for (const plant of [
    () => symlinkSync('/dev/zero', path),
    () => execFileSync('mkfifo', [path]),
    () => execFileSync('truncate', ['--size=4G', path]),
  ]) {
    rmSync(path)
    plant()
    t.match(await fetchBtf(options), { origin: 'server', path })
    t.ok(lstatSync(path).isFile())
    t.ok(readFileSync(path).equals(RAW.little))
  }
})

t.test('an abort signal ends the fetch with its own reason', async (t) => {
  const server = await serverThat(t, () => {})
  const signal = AbortSignal.timeout(50)
  await t.rejects(fetchBtf(quick(t, server, { signal, timeout: 60_000 })), { name: 'TimeoutError' })
})

t.test(
  'with a public key, the client accepts only BTF that the signed catalog names',
  async (t) => {
    const { publicKey, secretKey } = generateKeys()
    const testService = await startTestService(t, async (store) => [
      recordOf(kernel, { btf: await btfOf(store, RAW.little) }),
    ])
    const options = quick(t, testService.url, { publicKey })
    await t.rejects(fetchBtf(options), { code: 'refused' }, 'the catalog is not signed')

    await Catalog.publish(testService.store, secretKey)
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
      'another key does not share the cache',
    )

    // the server lies: a new record names other BTF, and the signed catalog does not have it
    const lie = { ...options, cache: `${options.cache}-2` }
    await putRecord(
      testService.store,
      recordOf(kernel, { btf: await btfOf(testService.store, RAW.big) }),
    )
    await testService.catalog.refresh()
    t.match(await fetchBtf(lie), { sha256 })
    await testService.store.put('catalog/snapshot.ndjson.zst', Buffer.from('changed'))
    await t.rejects(fetchBtf({ ...lie, cache: `${options.cache}-4` }), {
      code: 'invalid_signature',
    })
    const unknown = { ...kernel, buildId: 'cd'.repeat(20), release: 'unknown' }
    await Catalog.publish(testService.store, secretKey)
    await t.rejects(fetchBtf({ ...lie, kernel: unknown }), {
      code: 'refused',
      problem: 'unknown_kernel',
    })
  },
)

/** A store with one kernel whose BTF was replaced, and the signed catalog of before and after. */
async function replacedCatalog(t: Test) {
  const { publicKey, secretKey } = generateKeys()
  const { store, url } = await startTestService(t, async (store) => [
    recordOf(kernel, { btf: await btfOf(store, RAW.big) }),
  ])
  const signed = () =>
    Promise.all(
      [SNAPSHOT_KEY, signatureKey(SNAPSHOT_KEY)].map(async (key) => {
        const { body } = await store.get(key)
        return { key, bytes: Buffer.concat(await body.toArray()) }
      }),
    )
  await Catalog.publish(store, secretKey)
  const before = await signed()
  await putRecord(store, recordOf(kernel, { btf: await btfOf(store, RAW.little) }))
  await Catalog.publish(store, secretKey)
  const after = await signed()
  const serve = async (objects: typeof before) => {
    for (const { key, bytes } of objects) await store.put(key, bytes)
  }
  return { publicKey, secretKey, url, store, serve, before, after }
}

t.test('a signed catalog that is older than one seen before is refused', async (t) => {
  const { publicKey, url, serve, before, after } = await replacedCatalog(t)
  const options = quick(t, url, { publicKey })
  t.match(await fetchBtf(options), { sha256 })
  await serve(before)
  const again = () => {
    for (const name of readdirSync(options.cache))
      if (name !== 'catalogs') rmSync(join(options.cache, name), { recursive: true })
    return fetchBtf(options)
  }
  await t.rejects(again(), {
    code: 'outdated_catalog',
    message: /^the catalog was signed at .*Z: expected not before .*Z, as one before$/,
  })
  const [memory] = readdirSync(join(options.cache, 'catalogs'))
  const directory = join(options.cache, 'catalogs', memory!)
  t.equal(readdirSync(directory).length, 1)
  for (const name of ['damaged', '0', '-1', '1e99', '99999999999999'])
    writeFileSync(join(directory, name), '\0')
  for (const name of readdirSync(directory)) writeFileSync(join(directory, name), '\0 damaged')
  await t.rejects(again(), { code: 'outdated_catalog' }, 'files that are damaged change nothing')
  await serve(after)
  t.match(await again(), { sha256 })
  const other = { ...options, publicKey: generateKeys().publicKey }
  await t.rejects(fetchBtf(other), { code: 'invalid_signature' })
  t.equal(readdirSync(join(options.cache, 'catalogs')).length, 1, 'only what is signed counts')
})

t.test(
  'agents that fetch at once remember the newest catalog that any of them has seen',
  async (t) => {
    const { publicKey, url, serve, before, after } = await replacedCatalog(t)
    const options = quick(t, url, { publicKey })
    await serve(before)
    await fetchBtf({ ...options, output: join(options.cache, 'out.btf') })
    await serve(after)
    const fetches = Array.from({ length: 8 }, (_, n) =>
      fetchBtf({ ...options, kernel: { ...kernel, unameVersion: `#${n}` } }),
    )
    await Promise.all(fetches)
    await serve(before)
    const unseen = { ...options, kernel: { ...kernel, arch: 'any' } }
    await t.rejects(fetchBtf(unseen), { code: 'outdated_catalog' })
  },
)

t.test('with a maximum age, a catalog that nobody has signed for longer is refused', async (t) => {
  const { publicKey, secretKey, url, store } = await replacedCatalog(t)
  const { body } = await store.get(SNAPSHOT_KEY)
  const content = Buffer.concat(await body.toArray())
  const sign = (comment: string) =>
    store.put(signatureKey(SNAPSHOT_KEY), Buffer.from(signContent(content, secretKey, comment)))
  const options = quick(t, url, { publicKey, maxAge: 3600 })
  await sign(`timestamp:${Math.floor(Date.now() / 1000) - 4000}\tfile:x`)
  await t.rejects(fetchBtf(options), {
    code: 'outdated_catalog',
    message: /expected within the last 3600 seconds/,
  })
  await sign('by another program')
  await t.rejects(fetchBtf(options), {
    code: 'outdated_catalog',
    message: /^the catalog was signed without a time: /,
  })
  t.match(await fetchBtf({ ...options, maxAge: 5000 * 365 * 24 * 3600 }), { sha256 }, 'any age')
  await sign(`timestamp:${Math.floor(Date.now() / 1000) - 3000}\tfile:x`)
  t.match(await fetchBtf({ ...options, cache: `${options.cache}-2` }), { sha256 })
})

t.test(
  'a client that waits gets a new kernel whose catalog is signed a moment later',
  async (t) => {
    const { publicKey, secretKey } = generateKeys()
    const testService = await startTestService(t)
    await Catalog.publish(testService.store, secretKey)
    const record = recordOf(kernel, { btf: await btfOf(testService.store, RAW.little) })
    let asked = 0
    // passes on to the service, and publishes the record at the first question and the catalog at the third
    const server = await serverThat(t, async ({ url, headers }, response) => {
      if (url?.includes(kernel.release.replace('+', '%2B')) || url?.includes(kernel.release)) {
        asked++
        if (asked === 1) await putRecord(testService.store, record)
        if (asked === 3) await Catalog.publish(testService.store, secretKey)
      }
      const answer = await request(`${testService.url}${url}`, {
        headers: headers as Record<string, string>,
      })
      response.writeHead(answer.statusCode, answer.headers as OutgoingHttpHeaders)
      response.end(Buffer.from(await answer.body.arrayBuffer()))
    })
    const options = quick(t, server, { publicKey, wait: true, attempts: 5 })
    t.match(await fetchBtf(options), { origin: 'server', sha256 })
    t.ok(asked >= 3)
  },
)
