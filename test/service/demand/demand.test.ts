// Generation on demand against a repository behind a counting server: one generation per kernel serves all clients, and
// no client exceeds its quota.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { request } from 'undici'
import { OnDemandGenerator, type OnDemandOptions } from '../../../generator/index.ts'
import type { Config } from '../../../service/config.ts'
import { addToken } from '../../../service/http/token.ts'
import { fetchBtf, startServer } from '../../../service/index.ts'
import { Catalog, generateKeys } from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { MAIN, run } from '../../helpers/command.ts'
import { makePackage } from '../../helpers/package.ts'
import { IMPATIENT, makeRunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { startServer as startMirror } from '../../helpers/test-server.ts'
import { ask } from '../../helpers/test-service.ts'
import { type ImageOptions, makeVmlinux, RELEASE } from '../../helpers/vmlinux.ts'
import { ready, until } from '../../helpers/wait-until.ts'

const signer = makeSigner(t)
const KERNEL = { distro: 'debian', version: '12', arch: 'i686', release: RELEASE }
const PATH = `/v1/btf/debian/12/i686/${RELEASE}`

interface Options {
  image?: ImageOptions
  generator?: Partial<OnDemandOptions>
  /** replaces the mirror's normal behaviour */
  mirror?: RequestListener
}

/** The members of JSON responses that the tests read. */
interface ResponseDocument {
  job: string
  state: string
  failure: object
  links: { btf: string }
}

/** Starts a service with a generator whose only source is a repository with one kernel. */
async function start(t: Test, config: Partial<Config> = {}, options: Options = {}) {
  const { directory, store, scratch } = await makeRunDirectory(t)
  const image = join(directory, 'vmlinux')
  makeVmlinux(image, options.image)
  const repository = makeRepository(directory, {
    packages: [makePackage(directory, image)],
    signer,
  })
  const serve: RequestListener = ({ url }, response) =>
    response.end(readFileSync(join(directory, decodeURIComponent(url!))))
  const mirror = await startMirror(t, options.mirror ?? serve)
  const retry = options.mirror ? PATIENT : IMPATIENT
  const generator = await OnDemandGenerator.open({
    store,
    scratch,
    cache: join(directory, 'cache'),
    retry,
    sources: [repository.source],
    mirror: `${mirror.url}/debian`,
    limit: 8,
    ...options.generator,
  })
  t.teardown(() => generator.close())
  const settings = { listen: '127.0.0.1:0', drain: 0, generate: 'on-miss' as const, ...config }
  const server = await startServer({ store, config: settings, generator })
  t.teardown(() => server.stop())
  await ready(server.url)
  const get = async (path: string, headers: Record<string, string> = {}) => {
    const response = await ask(`${server.url}${path}`, headers)
    return { ...response, json: (response.json ?? {}) as unknown as ResponseDocument }
  }
  const downloads = () => mirror.requests.filter(({ url }) => url!.endsWith('.deb')).length
  return { server, get, downloads, directory, store, generator }
}

/** A timeout for a silent mirror that no test reaches. */
const PATIENT = { ...IMPATIENT, timeout: 3_600_000 }

/** A mirror that accepts requests and never responds. */
const silent: RequestListener = () => {}

const isDone = ({ json }: { json: ResponseDocument }) => !/ing$/.test(json.state)

t.test(
  'two hundred concurrent agents cause one generation, and all get the same BTF',
  async (t) => {
    const { server, get, downloads, directory } = await start(t)
    const responses = await Promise.all(Array.from({ length: 50 }, () => get(PATH)))
    for (const { status, headers, json } of responses) {
      t.equal(status, 202)
      t.match(json, { code: 'pending', status: 202, job: responses[0]!.json.job })
      t.ok(Number(headers['retry-after']) > 0)
    }
    const agents = Array.from({ length: 200 }, (_, i) =>
      fetchBtf({
        server: server.url,
        kernel: KERNEL,
        cache: join(directory, `agent-${i}`),
        wait: true,
        timeout: 60_000,
      }),
    )
    const { distro, version, arch, release } = KERNEL
    const kernelFlags = ['--distro', distro, '--distro-version', version, '--arch', arch]
    kernelFlags.push('--release', release)
    const output = join(directory, 'agent.btf')
    const command = run('fetch', '--server', server.url, '--wait', '-o', output, ...kernelFlags)
    const fetched = await Promise.all(agents)
    t.match(await command, { status: 0, stdout: `${output}\n` })
    t.ok(
      readFileSync(output).equals(readFileSync(fetched[0]!.path)),
      'btfmill fetch writes the same BTF',
    )
    t.equal(downloads(), 1)
    t.equal(new Set(fetched.map(({ sha256 }) => sha256)).size, 1)
    const bytes = readFileSync(fetched[0]!.path)
    t.equal(createHash('sha256').update(bytes).digest('hex'), fetched[0]!.sha256)
    t.ok((await get(PATH)).bytes.equals(bytes))
    const metrics = (await get('/metrics')).bytes.toString()
    t.match(metrics, /^btfmill_generations_total\{result="started"\} 1$/m)
    t.match(metrics, /^btfmill_generations_total\{result="published"\} 1$/m)
    t.match(metrics, /^btfmill_generations 0$/m)
  },
)

t.test('a job reports its progress as JSON and as server-sent events', async (t) => {
  const { get } = await start(t)
  const { json } = await get(PATH)
  const stream = (await get(json.job, { accept: 'text/event-stream' })).bytes.toString()
  const events = stream.split('\n\n').filter((event) => event.startsWith('event: '))
  const last = /^event: published\ndata: (.*)$/.exec(events.at(-1)!)
  t.match(JSON.parse(last?.[1] ?? '{}'), {
    kernel: KERNEL,
    state: 'published',
    packages: [{ state: 'published', name: `linux-image-${RELEASE}-dbg` }],
    links: { btf: PATH },
  })
  t.ok(events.length > 1, 'earlier states are sent, too')
  const job = await get(json.job)
  t.match(job.json, { id: json.job.split('/').pop(), state: 'published' })
  t.equal((await get(job.json.links.btf)).status, 200)
  t.match((await get(`/v1/jobs/${'0'.repeat(32)}`)).json, { code: 'unknown_job', status: 404 })
  t.equal((await get('/v1/jobs/..%2f..%2fetc')).status, 400)
})

t.test('a client is told if no source has the kernel, and why a generation failed', async (t) => {
  const service = await start(t, {}, { image: { debug: false } })
  const none = '/v1/btf/debian/12/i686/9.9.9-none'
  const { json } = await service.get(none)
  await until(() => service.get(json.job), isDone)
  t.match((await service.get(json.job)).json, { state: 'unknown', packages: [] })
  t.match((await service.get(none)).json, { code: 'unknown_kernel' })
  const foreign = await service.get('/v1/btf/plan9/4/i686/x')
  t.equal(foreign.status, 202)
  await until(() => service.get(foreign.json.job), isDone)
  t.equal((await service.get('/v1/btf/plan9/4/i686/x')).status, 404)

  const started = await service.get(PATH)
  t.equal(started.status, 202)
  const ended = await until(() => service.get(started.json.job), isDone)
  t.match(ended.json, { state: 'failed', failure: { code: 'no_dwarf' } })
  t.same(Object.keys(ended.json.failure).sort(), ['at', 'attempts', 'code', 'message', 'retryAt'])
  t.match((await service.get(PATH)).json, {
    code: 'generation_failed',
    failure: { code: 'no_dwarf' },
  })
  await t.rejects(
    fetchBtf({ server: service.server.url, kernel: KERNEL, cache: t.testdirName, wait: true }),
    { code: 'refused', problem: 'generation_failed' },
  )
})

t.test(
  'a client does not wait again for a build that the generation did not produce',
  async (t) => {
    const { get, downloads } = await start(t)
    const other = `${PATH}?build=${'ee'.repeat(20)}`
    const { status, json } = await get(other)
    t.equal(status, 202)
    await until(() => get(json.job), isDone)
    t.match((await get(other)).json, { code: 'unknown_kernel' })
    t.equal((await get(PATH)).status, 200)
    t.equal(downloads(), 1)
  },
)

t.test('routes for clients of other services give 503 with Retry-After, not 202', async (t) => {
  const { get } = await start(t, {}, { mirror: silent })
  for (const path of [
    `/debian/12/i686/${RELEASE}.btf.tar.xz`,
    `/api/v1/download?distribution=debian&distribution_version=12&arch=i686&kernel_version=${RELEASE}`,
  ]) {
    const { status, headers, json } = await get(path)
    t.equal(status, 503, path)
    t.ok(Number(headers['retry-after']) > 0)
    t.match(json, { code: 'unavailable', job: /^\/v1\/jobs\// })
  }
})

t.test(
  'only a client with the generate scope, or on this machine, starts a generation',
  async (t) => {
    const path = join(t.testdir({}), 'tokens.json')
    const bearer = async (name: string, scope: 'read' | 'generate') => ({
      authorization: `Bearer ${await addToken(path, { name, scopes: [scope] })}`,
    })
    const [reader, maker] = [await bearer('reader', 'read'), await bearer('maker', 'generate')]
    const refused = { status: 404, json: { code: 'unknown_kernel' } }

    const local = await start(t, { tokens: path }, { mirror: silent })
    for (const header of ['x-forwarded-for', 'forwarded', 'via', 'x-real-ip'])
      t.match(await local.get(PATH, { [header]: '192.0.2.1' }), refused, `forwarded: ${header}`)
    const crossSite: Record<string, string>[] = [
      { origin: 'https://evil.example' },
      { 'sec-fetch-site': 'cross-site' },
      { host: 'rebound.evil.example' },
    ]
    for (const headers of crossSite)
      t.match(await local.get(PATH, headers), refused, 'a page of another site')
    t.match(await local.get(PATH, { ...reader, via: 'proxy' }), refused)
    t.equal(local.generator.underWay, 0)
    t.equal((await local.get(PATH)).status, 202, 'a client on this machine')
    t.equal((await local.get(PATH, { via: 'proxy' })).status, 202, 'the generation is under way')

    const open = await start(t, { tokens: path, listen: '0.0.0.0:0' }, { mirror: silent })
    t.match(await open.get(PATH), refused, 'an anonymous client of a public address')
    t.match(await open.get(PATH, reader), refused)
    t.equal((await open.get(PATH, maker)).status, 202)

    const always = { listen: '0.0.0.0:0', generateAnonymous: 'always' as const }
    t.equal((await (await start(t, always, { mirror: silent })).get(PATH)).status, 202)
    const never = { tokens: path, generateAnonymous: 'never' as const }
    const strict = await start(t, never, { mirror: silent })
    t.match(await strict.get(PATH), refused)
    t.equal((await strict.get(PATH, maker)).status, 202)

    const off = await start(t, { tokens: path, generate: 'none' })
    t.match(await off.get(PATH, maker), refused)
    t.equal((await off.get('/v1/jobs/x')).status, 404)
  },
)

t.test('generation follows the allow and deny rules for kernels', async (t) => {
  const generateAllow = ['debian/12/*', 'ubuntu/*']
  const generateDeny = ['*/6.1.0-666*', 'ubuntu/18.04/*']
  const { get, generator } = await start(t, { generateAllow, generateDeny }, { mirror: silent })
  for (const kernel of [
    'debian/13/i686/6.1.0-1',
    'debian/12/i686/6.1.0-666-x',
    'ubuntu/18.04/x86_64/4.15.0-1',
    'fedora/40/x86_64/6.8.0',
    'any/any/i686/6.1.0-1',
  ])
    t.equal((await get(`/v1/btf/${kernel}`)).status, 404, kernel)
  t.equal(generator.underWay, 0)
  for (const kernel of ['debian/12/i686/6.1.0-1', 'debian/12.5/i386/6.1.0-2'])
    t.equal((await get(`/v1/btf/${kernel}`)).status, 202, kernel)
})

t.test('a client that requests a thousand kernels starts no more than its quota', async (t) => {
  const config = { generatePerClient: 3, generatePerHour: 5, trustProxy: ['127.0.0.1'] }
  const settings = { ...config, generateAnonymous: 'always' as const }
  const { get, generator } = await start(t, settings, { mirror: silent })
  const from = (address: string, release: number) =>
    get(`/v1/btf/debian/12/i686/6.1.0-${release}`, { 'x-forwarded-for': address })
  const statuses: number[] = []
  for (let i = 0; i < 1000; i++) statuses.push((await from('192.0.2.1', i)).status)
  t.equal(statuses.filter((status) => status === 202).length, 3)
  t.equal(statuses.filter((status) => status === 429).length, 997)
  t.match(await from('192.0.2.1', 999), {
    status: 429,
    json: { code: 'quota_exceeded' },
    headers: { 'retry-after': /^\d+$/ },
  })
  t.equal((await from('192.0.2.1', 0)).status, 202, 'a generation under way is still reported')
  t.equal(generator.underWay, 3)
  for (let i = 1; i < 4; i++) await from('192.0.2.2', 1000 + i)
  for (let i = 1; i < 4; i++) await from('192.0.2.3', 2000 + i)
  t.equal(generator.underWay, 8, 'the queue is full')
  t.match(await from('192.0.2.4', 3000), { status: 503, json: { code: 'busy' } })

  const hourly = await start(t, { ...settings, generatePerHour: 2 })
  const requestKernel = (release: number) => hourly.get(`/v1/btf/debian/12/i686/6.1.0-${release}`)
  for (const release of [1, 2]) {
    const { json } = await requestKernel(release)
    await until(() => hourly.get(json.job), isDone)
  }
  const { status, headers, json } = await requestKernel(3)
  t.equal(status, 429)
  t.match(json, { code: 'quota_exceeded' })
  t.ok(Number(headers['retry-after']) > 3000, 'the quota is per hour')
})

t.test(
  'a client with a public key waits until the signed catalog has the generated BTF',
  async (t) => {
    const { publicKey, secretKey } = generateKeys()
    const { server, store } = await start(t, {}, { generator: { secretKey } })
    await Catalog.publish(store, secretKey)
    const cache = join(t.testdir({}), 'cache')
    const options = { server: server.url, kernel: KERNEL, cache, publicKey }
    await t.rejects(fetchBtf(options), { code: 'refused', problem: 'unknown_kernel' })
    t.match(await fetchBtf({ ...options, wait: true, timeout: 60_000 }), { origin: 'server' })
  },
)

t.test('the event streams of a job end when the service stops', async (t) => {
  const { server, get } = await start(t, { grace: 3600 }, { mirror: silent })
  const { json } = await get(PATH)
  const headers = { accept: 'text/event-stream' }
  const watching = await Promise.all(
    Array.from({ length: 20 }, () => request(`${server.url}${json.job}`, { headers })),
  )
  const ends = watching.map(({ body }) => text(body))
  await server.stop()
  for (const stream of await Promise.all(ends)) t.match(stream, /^event: searching\n/)
})

t.test(
  'btfmill serve --generate on-miss uses the given mirror, and stops during a generation',
  async (t) => {
    const directory = t.testdir({})
    const mirror = await startMirror(t, silent)
    const child = spawn(
      process.execPath,
      [
        MAIN,
        'serve',
        '--json',
        '--listen=127.0.0.1:0',
        `--store=file:${directory}/store`,
        '--generate=on-miss',
        `--mirror=${mirror.url}/debian`,
        '--drain=0',
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const ended = once(child, 'exit')
    t.teardown(() => child.kill('SIGKILL'))
    for await (const line of createInterface({ input: child.stdout })) {
      const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(line) ?? []
      if (!url || !/listening/.test(line)) continue
      await ready(url)
      const { statusCode, body } = await request(`${url}/v1/btf/debian/12/i686/6.1.0-1-686-pae`)
      t.equal(statusCode, 202)
      t.match(await body.json(), { code: 'pending' })
      await until(
        async () => mirror.requests.length,
        (count) => count > 0,
      )
      child.kill('SIGTERM')
    }
    t.equal((await ended)[0], 0)
  },
)
