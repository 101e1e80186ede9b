// Upstreams: what is not here is asked once, checked, kept and served; what is wrong is never kept.
import { randomBytes } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { zstdCompressSync } from 'node:zlib'
import t from 'tap'
import { Agent, request } from 'undici'
import type { Config } from '../../../service/config.ts'
import {
  Catalog,
  openStore,
  packArchive,
  putRecord,
  SNAPSHOT_KEY,
  type Store,
  sha256Of,
} from '../../../storage/index.ts'
import { nthBtf } from '../../helpers/packs.ts'
import { startServer } from '../../helpers/test-server.ts'
import { ask, btfOf, recordOf, startTestService } from '../../helpers/test-service.ts'
import { kernelOf, pathOf, putKernels, startEdge, startUpstream } from '../../helpers/upstreams.ts'
import { until } from '../../helpers/wait-until.ts'

/** All that a store has. */
async function keysIn(store: Store): Promise<string[]> {
  return (await Array.fromAsync(store.list(''))).map(({ key }) => key)
}

t.test('a thousand clients ask for three kernels, and each is read upstream once', async (t) => {
  const { proxy, records } = await startUpstream(t, 3)
  const edge = await startEdge(t, [proxy.url])
  const dispatcher = new Agent({ connections: 200 })
  t.teardown(() => dispatcher.close())
  const answers = await Promise.all(
    Array.from({ length: 1000 }, async (_, i) => {
      const answer = await request(`${edge.url}/v1/btf/${pathOf(i % 3)}`, { dispatcher })
      const bytes = Buffer.from(await answer.body.arrayBuffer())
      return answer.statusCode === 200 && sha256Of(bytes) === records[i % 3]!.btf.sha256
    }),
  )
  t.equal(answers.filter(Boolean).length, 1000, 'all get the right BTF')
  const asked = proxy.requests.filter((line) => line.includes('/v1/btf/'))
  t.same(asked.sort(), [0, 1, 2].map((n) => `GET /v1/btf/${pathOf(n)}`).sort())
})

t.test(
  'a kernel of another btfmill keeps its record, and is served when that is gone',
  async (t) => {
    const { proxy, records } = await startUpstream(t, 1)
    const edge = await startEdge(t, [`btfmill+${proxy.url}/`])
    t.equal((await edge.get(pathOf(0))).status, 200)
    const [entry] = [...(await Catalog.open(edge.store)).list()]
    const { takenFrom, ...kept } = entry!.record
    t.same(kept, records[0], 'names, build-id, uname -v, package, tool and times survive')
    t.match(takenFrom, [{ kind: 'btfmill', url: `${proxy.url}/`, vouched: 'digest' }])
    proxy.fault =
      () =>
      ({ response }) =>
        response.destroy()
    t.equal((await edge.get(pathOf(0))).status, 200)
    t.match(await edge.get(`${pathOf(0)}?build=${kernelOf(0).buildId}`), { status: 200 })
    await until(
      () => keysIn(edge.store),
      (found) => found.includes(SNAPSHOT_KEY),
    )
  },
)

t.test('what upstreams do not have is asked once, then remembered', async (t) => {
  const { proxy } = await startUpstream(t, 1)
  const edge = await startEdge(t, [`btfmill+${proxy.url}`])
  for (let i = 0; i < 3; i++)
    t.match(await edge.get(pathOf(7)), { status: 404, json: { code: 'unknown_kernel' } })
  t.equal(proxy.requests.length, 1)
})

const buildIdPath = (n: number): string => `build-id/${kernelOf(n).buildId}`

t.test(
  'a build-id is asked of another btfmill, once, and what it lacks is remembered',
  async (t) => {
    const { proxy, records } = await startUpstream(t, 2)
    const edge = await startEdge(t, [`btfmill+${proxy.url}`])
    const found = await edge.get(buildIdPath(1))
    t.equal(sha256Of(found.bytes), records[1]!.btf.sha256)
    t.match(found.headers, { 'btfmill-kernel': pathOf(1), 'btfmill-found-by': 'build-id' })
    const [entry] = [...(await Catalog.open(edge.store)).list()]
    const { takenFrom: _, ...kept } = entry!.record
    t.same(kept, records[1])
    const section = `${edge.url}/buildid/${kernelOf(0).buildId}/section/.BTF`
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask(section)))
    t.ok(answers.every(({ bytes }) => sha256Of(bytes) === records[0]!.btf.sha256))
    t.equal(answers[0]!.headers['btfmill-kernel'], pathOf(0), 'by which its use is counted')
    const sent = proxy.requests.filter((line) => line.includes('/build-id/'))
    t.same(
      sent,
      [1, 0].map((n) => `GET /v1/btf/${buildIdPath(n)}`),
    )
    proxy.requests.length = 0
    for (let i = 0; i < 3; i++) {
      t.match(await edge.get(buildIdPath(7)), { status: 404, json: { code: 'unknown_kernel' } })
      t.equal((await ask(`${edge.url}/buildid/${kernelOf(7).buildId}/section/.BTF`)).status, 404)
    }
    t.equal(proxy.requests.length, 1)
  },
)

t.test('globs hold for what a build-id finds upstream', async (t) => {
  const { proxy } = await startUpstream(t, 2)
  const deny = { upstreamDeny: [`${pathOf(1)}`] }
  const edge = await startEdge(t, [`btfmill+${proxy.url}`], deny)
  t.equal((await edge.get(buildIdPath(1))).status, 404)
  t.same(await keysIn(edge.store), [])
  t.equal((await edge.get(buildIdPath(0))).status, 200)
})

t.test('a slow upstream holds up no request for a build-id', async (t) => {
  const server = await startServer(t, () => {})
  const edge = await startEdge(t, [`btfmill+${server.url}`], {
    ...{ upstreamWait: 1, upstreamTimeout: 5 },
  })
  t.match(await edge.get(buildIdPath(0)), { status: 202, json: { code: 'pending' } })
  const section = `${edge.url}/buildid/${kernelOf(0).buildId}/section/.BTF`
  t.match(await ask(section), { status: 503, json: { code: 'unavailable' } })
  await until(
    () => ask(section),
    ({ status }) => status === 502,
  )
})

t.test('archives are not asked for a build-id, which they do not know', async (t) => {
  const server = await startServer(t, files({ '/btfs/catalog.json': '{}', '/coolbpf/btf/': '' }))
  const kinds = ['btfhub', 'datadog', 'openanolis'].map((kind) => `${kind}+${server.url}`)
  const edge = await startEdge(t, kinds)
  t.equal((await edge.get(buildIdPath(0))).status, 404)
  t.equal(server.requests.length, 0)
})

t.test('several builds of a kernel are all taken, and the client chooses', async (t) => {
  const store = await openStore('memory:')
  const [first] = await putKernels(store, 1)
  const other = nthBtf(5)
  const buildId = 'ff'.repeat(20)
  const from = { ...recordOf({}).package, version: '6.1.9-2' }
  const btf = await btfOf(store, other)
  await putRecord(store, recordOf({ ...kernelOf(0), buildId }, { btf, package: from }))
  const { url } = await startTestService(t, undefined, { store })
  const edge = await startEdge(t, [`btfmill+${url}`])
  t.match(await edge.get(pathOf(0)), { status: 409, json: { code: 'ambiguous' } })
  const chosen = await edge.get(`${pathOf(0)}?build=${buildId}`)
  t.equal(sha256Of(chosen.bytes), sha256Of(other))
  const older = await edge.get(`${pathOf(0)}?build=${kernelOf(0).buildId}`)
  t.equal(sha256Of(older.bytes), first!.btf.sha256)
})

/** Answers with files by their paths. */
const files =
  (found: Readonly<Record<string, Buffer | string>>): RequestListener =>
  ({ url }, response) => {
    const file = Object.hasOwn(found, url!) ? found[url!] : undefined
    response.writeHead(file === undefined ? 404 : 200).end(file ?? '<html>not found</html>')
  }

const RELEASE = kernelOf(0).release

t.test(
  'a btfhub-archive, Datadog and OpenAnolis are upstreams, and found out by themselves',
  async (t) => {
    const raw = nthBtf(0)
    const archive = await packArchive(RELEASE, raw)
    const catalogue = { i686: { debian: { 12: { [RELEASE]: { sha256: sha256Of(archive) } } } } }
    const trees: Record<string, [Record<string, Buffer | string>, string]> = {
      btfhub: [{ [`/${pathOf(0)}.btf.tar.xz`]: archive }, 'none'],
      datadog: [
        {
          '/btfs/catalog.json': JSON.stringify(catalogue),
          [`/btfs/${pathOf(0)}.btf.tar.xz`]: archive,
        },
        'digest',
      ],
      openanolis: [
        { '/coolbpf/btf/': '<html>', [`/coolbpf/btf/i686/vmlinux-${RELEASE}`]: raw },
        'none',
      ],
    }
    for (const [kind, [tree, vouched]] of Object.entries(trees)) {
      const server = await startServer(t, files(tree))
      for (const url of [server.url, `${kind}+${server.url}`]) {
        const edge = await startEdge(t, [url])
        t.equal(sha256Of((await edge.get(pathOf(0))).bytes), sha256Of(raw), url)
        const [entry] = [...(await Catalog.open(edge.store)).list()]
        t.match(entry!.record, {
          origin: 'import',
          package: { authenticated: 'none' },
          takenFrom: [{ kind, url: `${server.url}/`, vouched }],
        })
        t.equal((await edge.get(pathOf(1))).status, 404)
      }
    }
  },
)

t.test(
  'a kernel of OpenAnolis gets its distribution from its release if nobody names it',
  async (t) => {
    const releases = { '4.19.91-26.an8.i686': 'anolis/8', '6.1.0-1-686': 'linux/rolling' }
    for (const [release, name] of Object.entries(releases)) {
      const { url } = await startServer(t, files({ [`/btf/i686/vmlinux-${release}`]: nthBtf(0) }))
      const edge = await startEdge(t, [`openanolis+${url}/btf`])
      const { status, headers } = await edge.get(`any/any/i686/${release}`)
      t.match([status, headers['btfmill-kernel']], [200, `${name}/i686/${release}`])
    }
  },
)

t.test('a release alone is taken from Datadog if all of its kernels are equal', async (t) => {
  const archive = await packArchive(RELEASE, nthBtf(0))
  const sha256 = sha256Of(archive)
  const other = await packArchive(RELEASE, nthBtf(1))
  const catalogue = {
    i686: {
      debian: { 12: { [RELEASE]: { sha256 } }, 13: { [RELEASE]: { sha256 } } },
      ubuntu: { '24.04': { [RELEASE]: { sha256: sha256Of(other) } } },
    },
  }
  const { url } = await startServer(
    t,
    files({
      '/btfs/catalog.json': JSON.stringify(catalogue),
      [`/btfs/debian/12/i686/${RELEASE}.btf.tar.xz`]: archive,
      [`/btfs/debian/13/i686/${RELEASE}.btf.tar.xz`]: archive,
      [`/btfs/ubuntu/24.04/i686/${RELEASE}.btf.tar.xz`]: other,
    }),
  )
  const edge = await startEdge(t, [`datadog+${url}`])
  t.match(await edge.get(`any/any/i686/${RELEASE}`), { status: 409, json: { code: 'ambiguous' } })
  const debian = await startEdge(t, [`datadog+${url}`])
  const { bytes } = await debian.get(`debian/any/i686/${RELEASE}`)
  t.equal(sha256Of(bytes), sha256Of(nthBtf(0)))
})

t.test('a VERSION_ID with a minor number is found in an archive under the major one', async (t) => {
  const archive = await packArchive(RELEASE, nthBtf(0))
  const { url } = await startServer(t, files({ [`/rhel/8/i686/${RELEASE}.btf.tar.xz`]: archive }))
  const edge = await startEdge(t, [`btfhub+${url}`])
  t.equal((await edge.get(`rhel/8.6/i686/${RELEASE}`)).status, 200)
})

const endless: RequestListener = (_, response) => {
  response.writeHead(200)
  const write = () => {
    while (!response.destroyed && response.write(Buffer.alloc(2 ** 20))) {}
    response.once('drain', write)
  }
  write()
}

const HTML = '<!doctype html><title>Welcome</title>'.padEnd(5000)

/** Lies of an upstream: its kind, the code that each gets, the answers, and what is asked for. */
async function lies(): Promise<Record<string, [string, string, RequestListener, string?]>> {
  const raw = nthBtf(0)
  const path = `/${pathOf(0)}.btf.tar.xz`
  const archive = await packArchive(RELEASE, raw)
  const big = Buffer.alloc(80 * 2 ** 20)
  const sha256 = sha256Of(archive)
  const catalogue = JSON.stringify({ i686: { debian: { 12: { [RELEASE]: { sha256 } } } } })
  const btfmill =
    (body: Buffer, headers: Record<string, string>, records: unknown): RequestListener =>
    ({ url }, response) => {
      const isRecords = url!.startsWith('/v1/kernels/')
      const sent = { 'btfmill-kernel': pathOf(0), ...(!isRecords && headers) }
      response.writeHead(200, sent).end(isRecords ? JSON.stringify(records) : body)
    }
  const store = await openStore('memory:')
  const [record, other] = await putKernels(store, 2)
  const etag = `"${record!.btf.sha256}"`
  return {
    'another digest than announced': [
      'datadog',
      'digest_mismatch',
      files({
        '/btfs/catalog.json': catalogue,
        [`/btfs${path}`]: await packArchive(RELEASE, nthBtf(1)),
      }),
    ],
    'a catalogue that is a list': [
      'datadog',
      'invalid_response',
      files({ '/btfs/catalog.json': '[]' }),
    ],
    "another kernel's archive": [
      'btfhub',
      'kernel_mismatch',
      files({ [path]: await packArchive(kernelOf(1).release, raw) }),
    ],
    'HTML in place of an archive': ['btfhub', 'invalid_response', files({ [path]: HTML })],
    'a damaged archive': ['btfhub', 'invalid_btf', files({ [path]: archive.subarray(0, -40) })],
    'an archive that unpacks to 80 MB': [
      'btfhub',
      'invalid_btf',
      files({ [path]: await packArchive(RELEASE, big) }),
    ],
    'an endless archive': ['btfhub', 'too_large', endless],
    'HTML in place of BTF': [
      'openanolis',
      'invalid_btf',
      files({ [`/coolbpf/btf/i686/vmlinux-${RELEASE}`]: HTML }),
    ],
    'random bytes': [
      'openanolis',
      'invalid_btf',
      files({ [`/coolbpf/btf/i686/vmlinux-${RELEASE}`]: randomBytes(10_000) }),
    ],
    'a redirect without end': [
      'openanolis',
      'invalid_response',
      ({ url }, response) => response.writeHead(302, { location: `${url}x` }).end(),
    ],
    'bytes of another digest than its ETag': [
      'btfmill',
      'digest_mismatch',
      btfmill(nthBtf(1), { etag }, { builds: [record] }),
    ],
    'BTF that none of its records names': [
      'btfmill',
      'invalid_response',
      btfmill(raw, { etag }, { builds: [other] }),
    ],
    'a record of another name for a build-id': [
      'btfmill',
      'kernel_mismatch',
      btfmill(raw, { etag }, { builds: [record] }),
      `build-id/${kernelOf(1).buildId}`,
    ],
    'the record of another kernel': [
      'btfmill',
      'kernel_mismatch',
      btfmill(raw, { etag }, { builds: [{ ...other, btf: record!.btf }] }),
    ],
    'a record that is none': [
      'btfmill',
      'invalid_response',
      btfmill(raw, { etag }, { builds: [{ ...record, kernel: 7 }] }),
    ],
    'a frame that unpacks to 80 MB': [
      'btfmill',
      'digest_mismatch',
      btfmill(zstdCompressSync(big), { etag, 'content-encoding': 'zstd' }, { builds: [record] }),
    ],
    'a broken gzip': [
      'btfmill',
      'invalid_response',
      btfmill(raw, { etag, 'content-encoding': 'gzip' }, { builds: [record] }),
    ],
    'a proxy that has an error page': ['btfmill', 'invalid_response', files({})],
    'an error': ['btfmill', 'unreachable', (_, response) => response.writeHead(500).end('no')],
    'a connection that breaks off': [
      'btfmill',
      'unreachable',
      (_, response) =>
        response.writeHead(200, { 'content-length': 99 }).write('x', () => response.destroy()),
    ],
    'a demand for a password': [
      'btfhub',
      'refused',
      (_, response) => response.writeHead(401).end(),
    ],
  }
}

t.test('an upstream that lies gets a code, and nothing of it is kept', async (t) => {
  for (const [title, [kind, code, listener, path = pathOf(0)]] of Object.entries(await lies())) {
    await t.test(title, async (t) => {
      const server = await startServer(t, listener)
      const edge = await startEdge(t, [`${kind}+${server.url}`])
      const { status, json, headers } = await edge.get(path)
      t.equal(status, 502)
      t.match(json, { code: 'upstream_failed', upstreams: [{ url: `${server.url}/`, code }] })
      t.ok(headers['retry-after'])
      t.same(await keysIn(edge.store), [])
      const asked = server.requests.length
      t.equal((await edge.get(path)).status, 502)
      t.equal(server.requests.length, asked, 'it is not asked again at once')
    })
  }
})

t.test("BTF of another architecture's kernel is refused", async (t) => {
  const path = `/debian/12/x86_64/${RELEASE}.btf.tar.xz`
  const server = await startServer(t, files({ [path]: await packArchive(RELEASE, nthBtf(0)) }))
  const edge = await startEdge(t, [`btfhub+${server.url}`])
  const { json } = await edge.get(`debian/12/x86_64/${RELEASE}`)
  t.match(json, { upstreams: [{ code: 'invalid_btf', message: /not one of x86_64/ }] })
  t.same(await keysIn(edge.store), [])
})

/** Settings under which nobody waits long. */
const IMPATIENT: Partial<Config> = { upstreamWait: 1, upstreamTimeout: 2 }

t.test('a silent upstream holds up no client beyond its time limit, and then nobody', async (t) => {
  const server = await startServer(t, () => {})
  const edge = await startEdge(t, [`btfmill+${server.url}`], IMPATIENT)
  const first = await edge.get(pathOf(0))
  t.match(first, { status: 202, json: { code: 'pending' } })
  t.ok(Number(first.headers['retry-after']) > 0)
  await until(
    () => edge.get(pathOf(0)),
    ({ status }) => status === 502,
  )
  for (const n of [1, 2])
    await until(
      () => edge.get(pathOf(n)),
      ({ status }) => status === 502,
    )
  const asked = server.requests.length
  t.match(await edge.get(pathOf(3)), {
    status: 502,
    json: { upstreams: [{ code: 'unreachable', message: /is asked later/ }] },
  })
  t.equal(server.requests.length, asked, 'it is not asked while it counts as away')
})

t.test('a drop-in client gets 503 while an upstream is slow, and then the archive', async (t) => {
  const { proxy } = await startUpstream(t, 1)
  const gate = Promise.withResolvers<void>()
  proxy.fault =
    () =>
    async ({ forward, response }) => {
      await gate.promise
      forward((from) => from.pipe(response.writeHead(from.statusCode!, from.headers)))
    }
  const edge = await startEdge(t, [`btfmill+${proxy.url}`], { upstreamWait: 1 })
  const archive = `${edge.url}/${pathOf(0)}.btf.tar.xz`
  t.equal((await request(archive, { method: 'HEAD' })).statusCode, 503)
  gate.resolve()
  const status = async () => (await request(archive, { method: 'HEAD' })).statusCode
  t.equal(await until(status, (code) => code === 200), 200)
})

t.test('a dead upstream does not hide the next one', async (t) => {
  const { proxy } = await startUpstream(t, 1)
  const silent = await startServer(t, () => {})
  const edge = await startEdge(t, ['btfhub+http://127.0.0.1:1', `btfhub+${silent.url}`, proxy.url])
  t.equal((await edge.get(pathOf(0))).status, 200)
})

t.test('globs choose the kernels that are asked for', async (t) => {
  const { proxy } = await startUpstream(t, 2)
  const allow = { upstreamAllow: ['debian/*'], upstreamDeny: ['debian/12/i686/6.1.0-2-*'] }
  const edge = await startEdge(t, [`btfmill+${proxy.url}`], allow)
  t.equal((await edge.get(pathOf(0))).status, 200)
  const asked = proxy.requests.length
  t.equal((await edge.get(pathOf(1))).status, 404)
  t.equal((await edge.get(`ubuntu/24.04/x86_64/6.8.0-1-generic`)).status, 404)
  t.equal(proxy.requests.length, asked)
  const wild = `any/any/any/${kernelOf(1).release}`
  t.equal((await edge.get(wild)).status, 404, 'a name with wildcards does not pass a rule by')
  t.equal((await keysIn(edge.store)).filter((key) => key.startsWith('kernels/')).length, 1)
})

t.test('two services that are upstreams of each other end at once', async (t) => {
  let other = ''
  const relay = await startServer(t, (from, to) => {
    request(`${other}${from.url}`, { headers: from.headers as Record<string, string> }).then(
      async ({ statusCode, headers, body }) =>
        to.writeHead(statusCode, headers).end(Buffer.from(await body.arrayBuffer())),
      () => to.destroy(),
    )
  })
  const first = await startEdge(t, [`btfmill+${relay.url}`])
  const second = await startEdge(t, [`btfmill+${first.url}`])
  other = second.url
  const both = (path: string) => Promise.all([first.get(path), second.get(path)])
  const isMissing = (answers: { status: number }[]) => answers.every(({ status }) => status === 404)
  // at first contact one may be told to come again
  await until(() => both(pathOf(0)), isMissing)
  for (const n of [1, 2, 3]) t.ok(isMissing(await both(pathOf(n))))
  for (const n of [1, 2, 3]) t.ok(isMissing(await both(buildIdPath(n))), 'by build-id too')
  t.match(relay.requests[0]!.headers.via, /^1\.1 btfmill-[0-9a-f]{16}$/)
})

t.test('a btfmill that redirects to its bucket still says which kernel it is', async (t) => {
  const { proxy, records } = await startUpstream(t, 1)
  const bucket = await startServer(t, (_, response) =>
    response.writeHead(200, { etag: '"of the bucket"' }).end(nthBtf(0)),
  )
  proxy.fault = (_, { url }) => {
    const headers = {
      location: `${bucket.url}/blob`,
      etag: `"${records[0]!.btf.sha256}-zstd"`,
      'btfmill-kernel': pathOf(0),
    }
    const redirect = url!.startsWith('/v1/btf/')
    return redirect ? ({ response }) => void response.writeHead(307, headers).end() : undefined
  }
  const edge = await startEdge(t, [`btfmill+${proxy.url}`])
  t.equal((await edge.get(pathOf(0))).status, 200)
})

t.test('credentials go to the upstream alone, and are shown nowhere', async (t) => {
  const elsewhere = await startServer(t, (_, response) => response.writeHead(404).end())
  const server = await startServer(t, (_, response) =>
    response.writeHead(302, { location: `${elsewhere.url}/there` }).end(),
  )
  const host = server.url.slice('http://'.length)
  const edge = await startEdge(t, [`btfhub+http://me:s3cret@${host}`])
  t.equal((await edge.get(pathOf(0))).status, 404)
  t.equal(server.requests[0]!.headers.authorization, `Basic ${btoa('me:s3cret')}`)
  t.equal(elsewhere.requests[0]!.headers.authorization, undefined)
  const failing = await startServer(t, (_, response) => response.writeHead(500).end())
  const token = `btfmill+http://:t0ken@${failing.url.slice('http://'.length)}`
  const { bytes } = await (await startEdge(t, [token])).get(pathOf(0))
  t.equal(failing.requests[0]!.headers.authorization, 'Bearer t0ken')
  t.notMatch(bytes.toString(), /t0ken|s3cret/)
})

t.test('BTF that was made here is not replaced', async (t) => {
  const { proxy } = await startUpstream(t, 1)
  const edge = await startEdge(t, [`btfmill+${proxy.url}`])
  const from = { ...recordOf({}).package, version: '6.1.0-1' }
  const own = recordOf(kernelOf(0), { btf: await btfOf(edge.store, nthBtf(9)), package: from })
  await putRecord(edge.store, own)
  const { bytes } = await edge.get(pathOf(0))
  t.equal(sha256Of(bytes), own.btf!.sha256)
})
