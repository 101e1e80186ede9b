// /openapi.json is valid and describes what each route does; /docs works in a browser.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020 } from 'ajv/dist/2020.js'
import t from 'tap'
import { request } from 'undici'
import type { BtfGenerator, Generation } from '../../../service/demand/generation.ts'
import {
  Catalog,
  generateKeys,
  openStore,
  putRecord,
  type Store,
  StoreError,
} from '../../../storage/index.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'
import { putPackOf } from '../../helpers/packs.ts'
import { startServer } from '../../helpers/test-server.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

const KERNEL = readFileSync(littleKernels().get('x86_64')!)
const [AA, BB, CC] = ['aa', 'bb', 'cc'].map((byte) => byte.repeat(20)) as [string, string, string]
const failure = {
  code: 'no_dwarf',
  message: 'vmlinux has no DWARF',
  log: 'what the tool said',
  attempts: 1,
  at: '2026-11-01T12:00:00.000Z',
  retryAt: null,
} as const

const JOB: Generation = {
  id: 'job-1',
  kernel: { distro: 'debian', version: '12', arch: 'x86_64', release: 'offered' },
  state: 'failed',
  packages: [{ name: 'linux', version: '1', state: 'failed', stage: 'pahole', read: 1, size: 2 }],
  failure,
}
const generator: BtfGenerator = {
  underWay: 0,
  submit: ({ release }) => ({ ...JOB, state: release === 'offered' ? 'searching' : 'unknown' }),
  get: (id) => ({ 'job-1': { ...JOB, state: 'searching' as const }, ended: JOB })[id],
  async *watch(id) {
    if (id === 'ended') yield JOB
    else await new Promise(() => {}) // for as long as the test
  },
}

/** A store that can be made unreachable. */
function leaving(store: Store): Store & { away: boolean } {
  const reach = <T>(work: () => T): T => {
    if (!left.away) return work()
    throw new StoreError('unreachable', 'away')
  }
  const left = {
    url: store.url,
    away: false,
    get: async (...args: Parameters<Store['get']>) => reach(() => store.get(...args)),
    head: async (...args: Parameters<Store['head']>) => reach(() => store.head(...args)),
    put: async (...args: Parameters<Store['put']>) => reach(() => store.put(...args)),
    list: (...args: Parameters<Store['list']>) => reach(() => store.list(...args)),
    delete: async (...args: Parameters<Store['delete']>) => reach(() => store.delete(...args)),
  }
  return left
}

const store = leaving(await openStore('memory:'))
const [little, big, core] = await Promise.all(
  [RAW.little, RAW.big, KERNEL].map((raw) => btfOf(store, raw)),
)
const cold = { ...little!, sha256: 'c0'.repeat(32) }
const records = [
  recordOf({ buildId: AA, unameVersion: '#1' }, { btf: little! }),
  recordOf({ release: 'core' }, { btf: core! }),
  recordOf({ release: 'embedded', buildId: BB }, { embedded: true }),
  recordOf({ release: 'failed' }, { failure }),
  recordOf({ release: 'lost', buildId: CC }, { btf: cold }),
  recordOf(
    { release: 'twins' },
    { btf: little!, package: { ...recordOf({}).package, version: '1' } },
  ),
  recordOf({ release: 'twins' }, { btf: big!, package: { ...recordOf({}).package, version: '2' } }),
]
for (const record of records) await putRecord(store, record)
await Catalog.publish(store, generateKeys().secretKey)
const index = join(t.testdir(), 'index.sqlite')
const pack = await putPackOf(store)
const [BROKEN, MADE] = ['be'.repeat(20), 'fe'.repeat(20)]
// an upstream that has no kernels, an answer that is none for some of them, and that makes another
const upstream = await startServer(t, ({ url }, response) => {
  if (/broken|(?:be){20}/.test(url!)) response.writeHead(200).end('?')
  else if (url!.includes(MADE)) response.writeHead(202).end('{"code":"pending"}')
  else response.writeHead(404).end('{"code":"unknown_kernel"}')
})
const settings = { generate: 'on-miss' as const, index, upstream: [`btfmill+${upstream.url}`] }
const options = { store, settings, generator }
const { url } = await startTestService(t, () => [], options)
await until(
  () => ask(`${url}/v1/stats`),
  ({ status }) => status === 200,
)

interface Case {
  path: string
  headers?: Record<string, string>
  /** makes the request a POST */
  body?: FormData | string
  /** sent while the store does not answer */
  away?: boolean
}

const ranges = (path: string): Case[] => [
  { path },
  { path, headers: { range: 'bytes=0-3' } },
  { path, headers: { range: 'bytes=99999999-' } },
  { path, headers: { 'if-none-match': '*' } },
]
const BAD = '%2e%2e'
/** Requests for a kernel in each state, on a route that takes `uname -r`. */
const states = (door: (release: string) => string): Case[] =>
  ['none', 'embedded', 'failed', 'twins', 'offered', 'lost', 'broken'].map((release) => ({
    path: door(release),
  }))
const away = (path: string): Case => ({ path, away: true })
const query = (release: string) =>
  `?distribution=debian&distribution_version=12&arch=x86_64&kernel_version=${release}`
const form = (bytes: Uint8Array<ArrayBuffer>, name = 'bpf'): FormData => {
  const data = new FormData()
  data.append(name, new Blob([bytes]), 'x')
  return data
}
const object = new Uint8Array(readFileSync(coreObjects('el').get('task')!))
const customize = (release: string, body: FormData | string = form(object)): Case => ({
  ...{ path: `/api/v1/customize${query(release)}`, body },
})

const sent = (path: string, body: FormData | string = form(object, 'object')): Case => ({
  ...{ path, body },
})
const bundle = (asked: string, body?: FormData | string) => sent(`/v1/bundles?${asked}`, body)
/** Requests to a route that takes objects for kernels. */
const surveyed = (route: string): Case[] => [
  sent(route),
  sent(`${route}?digest=${core!.sha256}`),
  sent(`${route}?digest=${cold.sha256}`),
  ...['core', 'none', 'embedded', 'failed', 'twins', 'offered', 'lost', 'broken'].map((release) =>
    sent(`${route}?kernel=debian/12/x86_64/${release}`),
  ),
  sent(`${route}?arch=riscv64`),
  sent(`${route}?kernel=core`),
  sent(route, 'text'),
  sent(route, form(new Uint8Array(33 * 1024 * 1024), 'object')),
  sent(route, form(new Uint8Array(4), 'object')),
  { ...sent(`${route}?kernel=debian/12/x86_64/lost`), away: true },
]

/** Requests to a route of the index: those with an answer also by a client that has it. */
const indexed = (path: string, ...others: string[]): Case[] => [
  { path },
  { path, headers: { 'if-none-match': '*' } },
  ...others.map((other) => ({ path: other })),
  { path: `${path}${path.includes('?') ? '&' : '?'}unknown=1` },
]
const formOf = async (name: string): Promise<string> => {
  const { json } = await ask(`${url}/v1/types/${name}`)
  return (json as { declarations: { form: string }[] }).declarations[0]!.form
}

const headerPath = (release: string): string => {
  const [name = '', query = ''] = release.split('?')
  return `/v1/btf/debian/12/x86_64/${name}/vmlinux.h${query && `?${query}`}`
}

/** Requests to each operation of the document. */
const CASES: Record<string, Case[]> = {
  'get /v1/btf/{distro}/{version}/{arch}/{release}': [
    ...ranges('/v1/btf/debian/12/x86_64/6.1.0-1-amd64'),
    ...states((release) => `/v1/btf/debian/12/x86_64/${release}`),
    { path: '/v1/btf/debian/12/x86_64/6.1.0-1-amd64?dialect=libbpf-0.5' },
    { path: `/v1/btf/debian/12/x86_64/core?have=${core!.sha256}` },
    { path: '/v1/btf/debian/12/x86_64/x?build=x' },
    away('/v1/btf/debian/12/x86_64/lost'),
  ],
  'get /v1/btf': [
    ...ranges('/v1/btf?release=6.1.0-1-amd64'),
    ...states((release) => `/v1/btf?release=${release}&distro=debian&version=12&arch=x86_64`),
    { path: '/v1/btf' },
    away('/v1/btf?release=lost'),
  ],
  'get /v1/btf/build-id/{buildId}': [
    ...ranges(`/v1/btf/build-id/${AA}`),
    ...[BB, CC, BROKEN, MADE, 'dd', 'x'].map((id) => ({ path: `/v1/btf/build-id/${id}` })),
    away(`/v1/btf/build-id/${CC}`),
  ],
  'get /v1/btf/sha256/{digest}': [
    ...ranges(`/v1/btf/sha256/${little!.sha256}`),
    { path: '/v1/btf/sha256/x' },
    { path: `/v1/btf/sha256/${cold.sha256}` },
    away(`/v1/btf/sha256/${cold.sha256}`),
  ],
  'get /v1/btf/{distro}/{version}/{arch}/{release}/sha256': [
    { path: '/v1/btf/debian/12/x86_64/6.1.0-1-amd64/sha256' },
    ...states((release) => `/v1/btf/debian/12/x86_64/${release}/sha256`),
    { path: '/v1/btf/debian/12/x86_64/x/sha256?build=x' },
    away('/v1/btf/debian/12/x86_64/nobody/sha256'),
  ],
  'get /v1/btf/{distro}/{version}/{arch}/{release}/vmlinux.h': [
    ...ranges('/v1/btf/debian/12/x86_64/6.1.0-1-amd64/vmlinux.h'),
    ...states((release) => `/v1/btf/debian/12/x86_64/${release}/vmlinux.h`),
    { path: '/v1/btf/debian/12/x86_64/x/vmlinux.h?build=x' },
    away('/v1/btf/debian/12/x86_64/lost/vmlinux.h'),
  ],
  'post /v1/btf/{distro}/{version}/{arch}/{release}/vmlinux.h': [
    ...[
      ...['core', 'none', 'embedded', 'failed', 'twins', 'offered', 'lost', 'broken', 'a%2fb'],
      'core?build=x',
    ].map((release) => sent(headerPath(release))),
    sent(headerPath('core'), 'text'),
    sent(headerPath('core'), form(new Uint8Array(33 * 1024 * 1024), 'object')),
    sent(headerPath('core'), form(new Uint8Array(4), 'object')),
    { ...sent(headerPath('lost')), away: true },
  ],
  'get /v1/search': indexed('/v1/search?q=task', '/v1/search'),
  'get /v1/types/{name}': indexed(
    '/v1/types/task_struct',
    ...['/v1/types/none', '/v1/types/int?kernel=none', '/v1/types/int?kernel=twins'],
    ...['/v1/types/int?kernel=*', '/v1/types/int?kind=x'],
  ),
  'get /v1/types/{name}/history': indexed('/v1/types/int/history', '/v1/types/none/history'),
  'get /v1/types/{name}/members/{member}/history': indexed(
    '/v1/types/task_struct/members/pid/history',
    '/v1/types/task_struct/members/none/history',
  ),
  'get /v1/types/{name}/forms/{form}': indexed(
    `/v1/types/task_struct/forms/${await formOf('task_struct')}`,
    `/v1/types/task_struct/forms/${'0'.repeat(16)}`,
    '/v1/types/task_struct/forms/x',
  ),
  'get /v1/functions/{name}': indexed('/v1/functions/first', '/v1/functions/none'),
  'get /v1/diff': indexed(
    '/v1/diff?from=6.1.0-1-amd64&to=core',
    ...['/v1/diff?from=none&to=core', '/v1/diff?from=*&to=core', '/v1/diff'],
  ),
  'get /v1/kernels/{distro}/{version}/{arch}/{release}/neighbours': indexed(
    '/v1/kernels/debian/12/x86_64/core/neighbours',
    ...['none', 'a%2fb'].map((release) => `/v1/kernels/debian/12/x86_64/${release}/neighbours`),
  ),
  'get /v1/stats': indexed('/v1/stats'),
  'get /v1/misses': [{ path: '/v1/misses' }, { path: '/v1/misses?limit=x' }],
  'get /v1/kernels': [
    { path: '/v1/kernels?limit=2' },
    { path: '/v1/kernels', headers: { accept: 'application/x-ndjson' } },
    { path: '/v1/kernels?limit=0' },
  ],
  'get /v1/kernels/{distro}/{version}/{arch}/{release}': [
    { path: '/v1/kernels/debian/12/x86_64/twins' },
    { path: '/v1/kernels/debian/12/x86_64/failed' },
    { path: '/v1/kernels/debian/12/x86_64/none' },
    { path: `/v1/kernels/debian/12/x86_64/a%2fb` },
    away('/v1/kernels/debian/12/x86_64/nobody-either'),
  ],
  'get /v1/jobs/{id}': [
    { path: '/v1/jobs/job-1' },
    { path: '/v1/jobs/ended' },
    { path: '/v1/jobs/ended', headers: { accept: 'text/event-stream' } },
    { path: '/v1/jobs/job-2' },
    { path: '/v1/jobs/$' },
  ],
  'get /v1/catalog/snapshot.ndjson.zst': [
    { path: '/v1/catalog/snapshot.ndjson.zst' },
    { path: '/v1/catalog/snapshot.ndjson.zst', headers: { 'if-none-match': '*' } },
    away('/v1/catalog/snapshot.ndjson.zst'),
  ],
  'get /v1/catalog/snapshot.ndjson.zst.minisig': [
    { path: '/v1/catalog/snapshot.ndjson.zst.minisig' },
    { path: '/v1/catalog/snapshot.ndjson.zst.minisig', headers: { 'if-none-match': '*' } },
    away('/v1/catalog/snapshot.ndjson.zst.minisig'),
  ],
  'get /v1/packs': [{ path: '/v1/packs' }, away('/v1/packs')],
  'get /v1/packs/{digest}': [
    ...ranges(`/v1/packs/${pack}`),
    { path: `/v1/packs/${'00'.repeat(32)}` },
    { path: '/v1/packs/x' },
    away(`/v1/packs/${pack}`),
  ],
  'get /{distro}/{version}/{arch}/{file}': [
    ...ranges('/debian/12/x86_64/6.1.0-1-amd64.btf.tar.xz'),
    ...states((release) => `/debian/12/x86_64/${release}.btf.tar.xz`),
    { path: `/debian/12/x86_64/a%2fb.btf.tar.xz` },
    { path: '/debian/12/x86_64/else' },
    away('/debian/12/x86_64/lost.btf.tar.xz'),
  ],
  'get /btfs/{distro}/{version}/{arch}/{file}': [
    ...ranges('/btfs/debian/12/x86_64/6.1.0-1-amd64.btf.tar.xz'),
    ...states((release) => `/btfs/debian/12/x86_64/${release}.btf.tar.xz`),
    { path: `/btfs/debian/12/x86_64/a%2fb.btf.tar.xz` },
    away('/btfs/debian/12/x86_64/lost.btf.tar.xz'),
  ],
  'get /btfs/catalog.json': [
    { path: '/btfs/catalog.json' },
    { path: '/btfs/catalog.json', headers: { 'if-none-match': '*' } },
  ],
  ...Object.fromEntries(
    ['/coolbpf/btf', '/home/hive/btf'].map((directory) => [
      `get ${directory}/{arch}/{file}`,
      [
        ...ranges(`${directory}/x86_64/vmlinux-6.1.0-1-amd64`),
        ...states((release) => `${directory}/x86_64/vmlinux-${release}`),
        { path: `${directory}/x86_64/vmlinux-a%2fb` },
        { path: `${directory}/x86_64/else` },
        away(`${directory}/x86_64/vmlinux-lost`),
      ],
    ]),
  ),
  'get /api/v1/list': [
    { path: '/api/v1/list' },
    { path: '/api/v1/list', headers: { 'if-none-match': '*' } },
  ],
  'get /api/v1/download': [
    ...ranges(`/api/v1/download${query('6.1.0-1-amd64')}`),
    ...states((release) => `/api/v1/download${query(release)}`),
    { path: '/api/v1/download' },
    away(`/api/v1/download${query('lost')}`),
  ],
  'post /api/v1/customize': [
    customize('core'),
    customize('core', form(new Uint8Array(4))),
    customize('core', form(new Uint8Array(33 * 1024 * 1024))),
    customize('core', 'text'),
    customize(BAD),
    ...['none', 'embedded', 'failed', 'twins', 'offered', 'lost', 'broken'].map((name) =>
      customize(name),
    ),
    { ...customize('lost'), away: true },
  ],
  'post /v1/check': surveyed('/v1/check'),
  'post /v1/minimize': surveyed('/v1/minimize'),
  'post /v1/bundles': [
    ...['tree', 'tree&zstd=true', 'bcc', 'btfhub'].map((profile) => bundle(`profile=${profile}`)),
    bundle('profile=datadog&part=manifest'),
    bundle('profile=bcc&zstd=true'),
    bundle('profile=tree&arch=riscv64'),
    bundle('profile=tree', form(new Uint8Array(33 * 1024 * 1024), 'object')),
    bundle('profile=tree', 'text'),
    bundle('profile=tree', form(new Uint8Array(4), 'object')),
    bundle('profile=tree&unsupported=fail'),
  ],
  'get /buildid/{buildId}/section/.BTF': [
    ...ranges(`/buildid/${AA}/section/.BTF`),
    ...[BB, CC, BROKEN, 'dd', 'x'].map((id) => ({ path: `/buildid/${id}/section/.BTF` })),
    away(`/buildid/${CC}/section/.BTF`),
  ],
  'get /healthz': [{ path: '/healthz' }],
  'get /readyz': [{ path: '/readyz' }],
  'get /metrics': [{ path: '/metrics' }],
  'get /openapi.json': [{ path: '/openapi.json' }],
}

/** Responses that these requests do not reach, by operation; other tests cover each. */
const ELSEWHERE: Record<string, string[]> = {
  // readiness reuses its last probe for a second; tested in `server.test.ts`
  'get /readyz': ['503'],
  // this store has a snapshot and a signature
  'get /v1/catalog/snapshot.ndjson.zst': ['404'],
  'get /v1/catalog/snapshot.ndjson.zst.minisig': ['404'],
  // needs 2000 watchers
  'get /v1/jobs/{id}': ['503'],
  // needs two builds with one build-id and different BTF
  'get /v1/btf/build-id/{buildId}': ['409'],
  'get /buildid/{buildId}/section/.BTF': ['409'],
  // needs concurrent bundles; tested in `bundles.test.ts`
  'post /v1/bundles': ['503'],
  // need a service whose index is not whole, or that has none; tested in `declarations.test.ts`
  ...Object.fromEntries(
    Object.keys(CASES)
      .filter((name) => CASES[name]!.some(({ path }) => path.endsWith('unknown=1')))
      .map((name) => [name, ['404', '503']]),
  ),
  // the catalogue is built from memory
  'get /btfs/catalog.json': ['503'],
}

type Schema = Record<string, unknown>
interface Operation {
  summary?: string
  tags?: string[]
  responses: Record<string, { description: string; content?: Record<string, { schema: Schema }> }>
}
interface Document {
  paths: Record<string, Record<string, Operation>>
}

const document = (await ask(`${url}/openapi.json`)).json as unknown as Document
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => [`${method} ${path}`, operation] as const),
)

t.test('the document is valid OpenAPI 3.1', async (t) => {
  const { valid, errors } = await new Validator().validate({ ...document })
  t.ok(valid, JSON.stringify(errors))
  for (const [name, { summary, tags }] of operations) {
    t.ok(summary, name)
    t.ok(tags?.length, `${name} is in a group`)
  }
  const ids = operations.map(([name]) => name)
  t.equal(new Set(ids).size, ids.length)
})

/** The schema with additionalProperties: false everywhere. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed)
  if (typeof schema !== 'object' || schema === null) return schema
  const inner = Object.fromEntries(
    Object.entries(schema).map(([key, value]) => [key, closed(value)]),
  )
  const open = 'properties' in inner && !('additionalProperties' in inner)
  return open ? { ...inner, additionalProperties: false } : inner
}

const ajv = new Ajv2020({ strict: false, validateFormats: false })
const validators = new WeakMap<Schema, ReturnType<typeof ajv.compile>>()

/** The errors of a body by its schema; undefined for a valid body. */
function wrongWith(schema: Schema, body: unknown): string | undefined {
  const validate = validators.get(schema) ?? ajv.compile(closed(schema) as Schema)
  validators.set(schema, validate)
  return validate(body) ? undefined : ajv.errorsText(validate.errors)
}

async function send({ path, headers = {}, body, away = false }: Case) {
  store.away = away
  try {
    // fetch encodes forms; undici's request does not resolve dot segments
    if (body === undefined) {
      const answer = await request(`${url}${path}`, { headers })
      const type = String(answer.headers['content-type'] ?? '')
      return { status: answer.statusCode, type, text: await answer.body.text() }
    }
    const answer = await fetch(`${url}${path}`, { method: 'POST', headers, body })
    const type = answer.headers.get('content-type') ?? ''
    return { status: answer.status, type, text: await answer.text() }
  } finally {
    store.away = false
  }
}

for (const [name, { responses }] of operations)
  t.test(name, async (t) => {
    const cases = CASES[name]
    if (!cases) {
      t.fail('every route is walked: add what is asked of this one to CASES')
      return
    }
    const seen = new Set<string>()
    for (const one of cases) {
      const { status, type, text } = await send(one)
      const what = `${one.path} ${JSON.stringify(one.headers ?? {})}${one.away ? ' away' : ''}`
      t.not(status, 500, what)
      const said = responses[status]
      if (!said) {
        t.fail(`${what}: ${status} is not in the document`)
        continue
      }
      seen.add(String(status))
      const [media = ''] = type.split(';')
      if (!said.content) {
        t.equal(text, '', `${what}: ${status} has no body`)
        continue
      }
      t.same(said.content[media] && media, media, `${what}: ${status} as ${media}`)
      const { schema } = said.content[media] ?? {}
      if (/\/json$|\+json$/.test(media) && schema)
        t.equal(wrongWith(schema, JSON.parse(text)), undefined, what)
    }
    const unseen = Object.keys(responses).filter(
      (status) => status !== 'default' && !seen.has(status) && !ELSEWHERE[name]?.includes(status),
    )
    t.same(unseen, [], 'every answer in the document was seen')
  })

t.test('every test case belongs to a route of the document', async (t) => {
  const names: string[] = operations.map(([name]) => name)
  t.same(
    Object.keys(CASES).filter((name) => !names.includes(name)),
    [],
  )
})

t.test('/docs sends no request to another host', async (t) => {
  const page = await ask(`${url}/docs/`)
  t.equal(page.status, 200)
  t.match(page.headers['content-type'], /^text\/html/)
  t.match(page.headers['content-security-policy'], /default-src 'self'/)
  const html = page.bytes.toString()
  const loaded = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, address]) => address!)
  t.ok(loaded.length > 0)
  for (const address of loaded) {
    t.notMatch(address, /^(https?:)?\/\//, address)
    t.equal((await ask(new URL(address, `${url}/docs/`).href)).status, 200, address)
  }
  t.equal((await ask(`${url}/docs`)).status, 301)
})
