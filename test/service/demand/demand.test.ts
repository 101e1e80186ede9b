// Generation on demand: a kernel that nobody has is made once for all who ask, from a repository behind a server that
// counts; and nobody has more made than he may.
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
  mill?: Partial<OnDemandOptions>
  /** what the mirror does instead of answering */
  mirror?: RequestListener
}

/** What answers say that are JSON. */
interface Said {
  job: string
  state: string
  failure: object
  links: { btf: string }
}

/** A service that makes what a repository offers: one kernel. */
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
  const patience = options.mirror ? PATIENT : IMPATIENT
  const mill = await OnDemandGenerator.open({
    ...{ store, scratch, cache: join(directory, 'cache'), patience },
    ...{ sources: [repository.source], mirror: `${mirror.url}/debian`, limit: 8 },
    ...options.mill,
  })
  t.teardown(() => mill.close())
  const settings = { listen: '127.0.0.1:0', drain: 0, generate: 'on-miss' as const, ...config }
  const server = await startServer({ store, config: settings, generator: mill })
  t.teardown(() => server.stop())
  await ready(server.url)
  const get = async (path: string, headers: Record<string, string> = {}) => {
    const answer = await ask(`${server.url}${path}`, headers)
    return { ...answer, json: (answer.json ?? {}) as unknown as Said }
  }
  const downloads = () => mirror.requests.filter(({ url }) => url!.endsWith('.deb')).length
  return { server, get, downloads, directory, store, mill }
}

/** Waits for a silent mirror longer than any test takes. */
const PATIENT = { ...IMPATIENT, timeout: 3_600_000 }

/** A mirror that takes requests and never answers. */
const silent: RequestListener = () => {}

const isDone = ({ json }: { json: Said }) => !/ing$/.test(json.state)

t.test('two hundred agents ask at once: one generation, and all get the same BTF', async (t) => {
  const { server, get, downloads, directory } = await start(t)
  const answers = await Promise.all(Array.from({ length: 50 }, () => get(PATH)))
  for (const { status, headers, json } of answers) {
    t.equal(status, 202)
    t.match(json, { code: 'pending', status: 202, job: answers[0]!.json.job })
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
  const names = Object.entries(KERNEL).flatMap(([name, value]) => [`--${name}`, value])
  const output = join(directory, 'agent.btf')
  const command = run('fetch', '--server', server.url, '--wait', '-o', output, ...names)
  const fetched = await Promise.all(agents)
  t.match(await command, { status: 0, stdout: `${output}\n` })
  t.ok(readFileSync(output).equals(readFileSync(fetched[0]!.path)), 'and so does the command')
  t.equal(downloads(), 1)
  t.equal(new Set(fetched.map(({ sha256 }) => sha256)).size, 1)
  const bytes = readFileSync(fetched[0]!.path)
  t.equal(createHash('sha256').update(bytes).digest('hex'), fetched[0]!.sha256)
  t.ok((await get(PATH)).bytes.equals(bytes))
  const metrics = (await get('/metrics')).bytes.toString()
  t.match(metrics, /^btfmill_generations_total\{result="begun"\} 1$/m)
  t.match(metrics, /^btfmill_generations_total\{result="published"\} 1$/m)
  t.match(metrics, /^btfmill_generations 0$/m)
})

t.test('its job tells how it goes, as JSON and as events', async (t) => {
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
  t.ok(events.length > 1, 'and what came before')
  const job = await get(json.job)
  t.match(job.json, { id: json.job.split('/').pop(), state: 'published' })
  t.equal((await get(job.json.links.btf)).status, 200)
  t.match((await get(`/v1/jobs/${'0'.repeat(32)}`)).json, { code: 'unknown_job', status: 404 })
  t.equal((await get('/v1/jobs/..%2f..%2fetc')).status, 400)
})

t.test('what no source offers, and what fails', async (t) => {
  const offered = await start(t, {}, { image: { debug: false } })
  const none = '/v1/btf/debian/12/i686/9.9.9-none'
  const { json } = await offered.get(none)
  await until(() => offered.get(json.job), isDone)
  t.match((await offered.get(json.job)).json, { state: 'unknown', packages: [] })
  t.match((await offered.get(none)).json, { code: 'unknown_kernel' })
  const foreign = await offered.get('/v1/btf/plan9/4/i686/x')
  t.equal(foreign.status, 202)
  await until(() => offered.get(foreign.json.job), isDone)
  t.equal((await offered.get('/v1/btf/plan9/4/i686/x')).status, 404)

  const started = await offered.get(PATH)
  t.equal(started.status, 202)
  const ended = await until(() => offered.get(started.json.job), isDone)
  t.match(ended.json, { state: 'failed', failure: { code: 'no_dwarf' } })
  t.same(Object.keys(ended.json.failure).sort(), ['at', 'attempts', 'code', 'message', 'retryAt'])
  t.match((await offered.get(PATH)).json, {
    code: 'generation_failed',
    failure: { code: 'no_dwarf' },
  })
  await t.rejects(
    fetchBtf({ server: offered.server.url, kernel: KERNEL, cache: t.testdirName, wait: true }),
    { code: 'refused', problem: 'generation_failed' },
  )
})

t.test('a build that is not among those made is not waited for again', async (t) => {
  const { get, downloads } = await start(t)
  const other = `${PATH}?build=${'ee'.repeat(20)}`
  const { status, json } = await get(other)
  t.equal(status, 202)
  await until(() => get(json.job), isDone)
  t.match((await get(other)).json, { code: 'unknown_kernel' })
  t.equal((await get(PATH)).status, 200)
  t.equal(downloads(), 1)
})

t.test('clients of other services are told to come again: they know no 202', async (t) => {
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

t.test('who may have something made', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const bearer = async (name: string, scope: 'read' | 'generate') => ({
    authorization: `Bearer ${await addToken(path, { name, scopes: [scope] })}`,
  })
  const [reader, maker] = [await bearer('reader', 'read'), await bearer('maker', 'generate')]
  const refused = { status: 404, json: { code: 'unknown_kernel' } }

  const local = await start(t, { tokens: path }, { mirror: silent })
  for (const header of ['x-forwarded-for', 'forwarded', 'via', 'x-real-ip'])
    t.match(await local.get(PATH, { [header]: '192.0.2.1' }), refused, `passed on: ${header}`)
  for (const headers of [
    { origin: 'https://evil.example' },
    { 'sec-fetch-site': 'cross-site' },
    { host: 'rebound.evil.example' },
  ])
    t.match(
      await local.get(PATH, headers as Record<string, string>),
      refused,
      'a page of another site',
    )
  t.match(await local.get(PATH, { ...reader, via: 'proxy' }), refused)
  t.equal(local.mill.underWay, 0)
  t.equal((await local.get(PATH)).status, 202, 'this machine itself')
  t.equal((await local.get(PATH, { via: 'proxy' })).status, 202, 'it is under way')

  const open = await start(t, { tokens: path, listen: '0.0.0.0:0' }, { mirror: silent })
  t.match(await open.get(PATH), refused, 'nobody, on a public address')
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
})

t.test('which kernels may be made', async (t) => {
  const generateAllow = ['debian/12/*', 'ubuntu/*']
  const generateDeny = ['*/6.1.0-666*', 'ubuntu/18.04/*']
  const { get, mill } = await start(t, { generateAllow, generateDeny }, { mirror: silent })
  for (const kernel of [
    'debian/13/i686/6.1.0-1',
    'debian/12/i686/6.1.0-666-x',
    'ubuntu/18.04/x86_64/4.15.0-1',
    'fedora/40/x86_64/6.8.0',
    'any/any/i686/6.1.0-1',
  ])
    t.equal((await get(`/v1/btf/${kernel}`)).status, 404, kernel)
  t.equal(mill.underWay, 0)
  for (const kernel of ['debian/12/i686/6.1.0-1', 'debian/12.5/i386/6.1.0-2'])
    t.equal((await get(`/v1/btf/${kernel}`)).status, 202, kernel)
})

t.test('a stranger does not start a thousand downloads', async (t) => {
  const config = { generatePerClient: 3, generatePerHour: 5, trustProxy: ['127.0.0.1'] }
  const settings = { ...config, generateAnonymous: 'always' as const }
  const { get, mill } = await start(t, settings, { mirror: silent })
  const from = (address: string, release: number) =>
    get(`/v1/btf/debian/12/i686/6.1.0-${release}`, { 'x-forwarded-for': address })
  const statuses: number[] = []
  for (let i = 0; i < 1000; i++) statuses.push((await from('192.0.2.1', i)).status)
  t.equal(statuses.filter((status) => status === 202).length, 3)
  t.equal(statuses.filter((status) => status === 503).length, 997)
  t.match(await from('192.0.2.1', 999), { json: { code: 'busy' }, headers: { 'retry-after': /./ } })
  t.equal((await from('192.0.2.1', 0)).status, 202, 'what is under way is told as before')
  t.equal(mill.underWay, 3)
  for (let i = 1; i < 4; i++) await from('192.0.2.2', 1000 + i)
  for (let i = 1; i < 4; i++) await from('192.0.2.3', 2000 + i)
  t.equal(mill.underWay, 8, 'as many as may be at once')
  t.equal((await from('192.0.2.4', 3000)).status, 503)

  const soon = await start(t, { ...settings, generatePerHour: 2 })
  const ask = (release: number) => soon.get(`/v1/btf/debian/12/i686/6.1.0-${release}`)
  for (const release of [1, 2]) {
    const { json } = await ask(release)
    await until(() => soon.get(json.job), isDone)
  }
  const { status, headers } = await ask(3)
  t.equal(status, 503)
  t.ok(Number(headers['retry-after']) > 3000, 'in an hour')
})

t.test('who trusts a key alone waits, too', async (t) => {
  const { publicKey, secretKey } = generateKeys()
  const { server, store } = await start(t, {}, { mill: { secretKey } })
  await Catalog.publish(store, secretKey)
  const cache = join(t.testdir({}), 'cache')
  const options = { server: server.url, kernel: KERNEL, cache, publicKey }
  await t.rejects(fetchBtf(options), { code: 'refused', problem: 'unknown_kernel' })
  t.match(await fetchBtf({ ...options, wait: true, timeout: 60_000 }), { origin: 'server' })
})

t.test('who watches is let go when the service stops', async (t) => {
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
  'the command: it makes what the mirror it is told has, and stops while it does',
  async (t) => {
    const directory = t.testdir({})
    const mirror = await startMirror(t, silent)
    const child = spawn(
      process.execPath,
      [
        ...[
          MAIN,
          'serve',
          '--json',
          '--listen',
          '127.0.0.1:0',
          '--store',
          `file:${directory}/store`,
        ],
        ...['--generate', 'on-miss', '--mirror', `${mirror.url}/debian`, '--drain', '0'],
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
        (asked) => asked > 0,
      )
      child.kill('SIGTERM')
    }
    t.equal((await ended)[0], 0)
  },
)
