// /v1/btf: which BTF a kernel gets, or the reason why it gets none.
import t from 'tap'
import { request } from 'undici'
import { type BuildRecord, putRecord } from '../../../storage/index.ts'
import { btfOf, RAW, recordOf, sendRaw, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

const failure = {
  code: 'no_dwarf',
  message: 'vmlinux has no DWARF',
  attempts: 2,
  at: '2026-11-01T12:00:00.000Z',
  retryAt: null,
} as const

/** Two builds with one name, which differ in build-id and `uname -v`. */
const TWINS = [
  { buildId: 'aa'.repeat(20), unameVersion: '#1 SMP Debian 6.1.1-1', raw: RAW.little },
  { buildId: 'bb'.repeat(20), unameVersion: '#1 SMP Debian 6.1.1-2', raw: RAW.big },
]

const testService = await startTestService(t, async (store) => {
  const twins: BuildRecord[] = []
  for (const [at, { raw, ...kernel }] of TWINS.entries()) {
    const record = recordOf({ release: 'twins', ...kernel }, { btf: await btfOf(store, raw) })
    twins.push({ ...record, package: { ...record.package, version: `6.1.1-${at + 1}` } })
  }
  return [
    recordOf({ arch: 's390x', release: '6.1.0-1+deb12~x' }, { btf: await btfOf(store, RAW.big) }),
    recordOf({ release: 'failed' }, { failure }),
    recordOf({ release: 'embedded' }, { embedded: true }),
    ...twins,
  ]
})

const get = async (path: string) => {
  const { statusCode, headers, body } = await request(`${testService.url}${path}`)
  const bytes = Buffer.from(await body.arrayBuffer())
  const problem = headers['content-type'] === 'application/problem+json'
  return { status: statusCode, headers, bytes, problem: problem && JSON.parse(bytes.toString()) }
}

t.test(
  'a name with + and ~ is found plain or encoded, under any alias of the architecture',
  async (t) => {
    for (const release of ['6.1.0-1+deb12~x', encodeURIComponent('6.1.0-1+deb12~x')]) {
      for (const arch of ['s390x', 'S390X']) {
        const { status, bytes } = await get(`/v1/btf/debian/12/${arch}/${release}`)
        t.equal(status, 200, `${arch} ${release}`)
        t.ok(bytes.equals(RAW.big))
      }
    }
  },
)

t.test('BTF by digest is cached as immutable, BTF by name is not', async (t) => {
  const named = await get('/v1/btf/debian/12/s390x/6.1.0-1+deb12~x')
  t.notMatch(named.headers['cache-control'], /immutable/)
  const location = String(named.headers['content-location'])
  const { status, headers, bytes } = await get(location)
  t.equal(status, 200)
  t.match(headers['cache-control'], /immutable/)
  t.ok(bytes.equals(RAW.big))
})

t.test('the sha256 route gives a line that sha256sum accepts', async (t) => {
  const { bytes } = await get('/v1/btf/debian/12/s390x/6.1.0-1+deb12~x/sha256')
  const [, sha256] = /^([0-9a-f]{64}) {2}6\.1\.0-1\+deb12~x\.btf\n$/.exec(bytes.toString()) ?? []
  t.ok((await get(`/v1/btf/sha256/${sha256}`)).bytes.equals(RAW.big))
})

t.test('several builds with different BTF get 409 unless the request selects one', async (t) => {
  const path = '/v1/btf/debian/12/x86_64/twins'
  const { status, problem } = await get(path)
  t.equal(status, 409)
  t.match(problem, { code: 'ambiguous', status: 409, builds: { length: 2 } })
  for (const { buildId, unameVersion, raw } of TWINS) {
    t.ok((await get(`${path}?build=${buildId.toUpperCase()}`)).bytes.equals(raw))
    t.ok((await get(`${path}?uname-version=${encodeURIComponent(unameVersion)}`)).bytes.equals(raw))
  }
  t.match((await get(`${path}?build=${'cc'.repeat(20)}`)).problem, { code: 'unknown_kernel' })
})

t.test('a kernel is found by uname -r alone, or by build-id under any name', async (t) => {
  const release = '/s390x/6.1.0-1+deb12~x'
  t.ok((await get(`/v1/btf/any/any${release}`)).bytes.equals(RAW.big))
  t.equal((await get('/v1/btf/any/any/x86_64/6.1.0-1+deb12~x')).status, 404, 'another architecture')
  t.match((await get('/v1/btf/any/any/x86_64/twins')).problem, {
    code: 'ambiguous',
    builds: [{ distro: 'debian', version: '12' }, {}],
  })
  const [, { buildId, raw }] = TWINS as [unknown, (typeof TWINS)[number]]
  t.ok((await get(`/v1/btf/any/any/x86_64/x?build=${buildId}`)).bytes.equals(raw))
})

t.test(
  'values of os-release are accepted as written: point release, quotes, upper case',
  async (t) => {
    for (const name of ['debian/12.5', 'Debian/12', '%22debian%22/%2212%22'])
      t.equal((await get(`/v1/btf/${name}/s390x/6.1.0-1+deb12~x`)).status, 200, name)
  },
)

t.test('a kernel without BTF gets the code of the reason', async (t) => {
  const none = {
    '/v1/btf/debian/12/x86_64/none': [404, { code: 'unknown_kernel' }],
    '/v1/btf/debian/12/x86_64/embedded': [404, { code: 'has_own_btf' }],
    '/v1/btf/debian/12/x86_64/failed': [
      404,
      { code: 'generation_failed', failure: { code: 'no_dwarf', attempts: 2, retryAt: null } },
    ],
    [`/v1/btf/sha256/${'0'.repeat(64)}`]: [404, { code: 'unknown_blob' }],
    '/v1/nothing': [404, { code: 'not_found' }],
  } as const
  for (const [path, [expected, document]] of Object.entries(none)) {
    const { status, problem, headers } = await get(path)
    t.equal(status, expected, path)
    t.match(problem, { ...document, type: 'about:blank', status: expected }, path)
    t.equal(headers['cache-control'], 'no-store', path)
    t.equal(headers.etag, undefined, path)
  }
})

t.test('impossible kernel names get 400', async (t) => {
  const bad = [
    '/v1/btf/debian/12/x86_64/..%2f..%2fetc%2fpasswd',
    '/v1/btf/debian/12/x86_64/%2e%2e',
    '/v1/btf/%2e%2e/%2e%2e/x86_64/a',
    '/v1/btf/debian/12/x86_64/a%00b',
    '/v1/btf/debian/12/x86_64/a%0ab',
    '/v1/btf/debian/12/x86_64/a%5cb',
    `/v1/btf/debian/12/x86_64/${'a'.repeat(256)}`,
    `/v1/btf/debian/12/x86_64/${'a'.repeat(4000)}`,
    '/v1/btf/debian/12/x86_64/%zz',
    '/v1/btf/debian/12/x86_64/%ff',
    '/v1/btf/debian/12/x86_64/twins?build=xyz',
    '/v1/btf/sha256/abc',
    `/v1/btf/sha256/${'A'.repeat(64)}`,
    '/v1/kernels/debian/12/x86_64/%2e%2e',
    '/v1/kernels?limit=0',
    '/v1/kernels?limit=x',
  ]
  for (const path of bad) {
    // sent raw: a client would resolve the dots
    const answer = await sendRaw(
      testService.url,
      `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
    )
    t.match(answer, /^HTTP\/1\.1 (400|414) /, path.slice(0, 80))
    t.match(answer, /"code":"(invalid_request|invalid_name)"/, path.slice(0, 80))
  }
})

t.test('dot segments in the path get 404', async (t) => {
  for (const path of ['/v1/btf/../../etc/passwd', '/../../../../etc/passwd', '//etc/passwd'])
    t.match(
      await sendRaw(
        testService.url,
        `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
      ),
      /^HTTP\/1\.1 40[04] /,
      path,
    )
})

t.test('BTF that another process adds to the store is found within seconds', async (t) => {
  const late = recordOf({ release: 'late' }, { btf: await btfOf(testService.store, RAW.little) })
  const status = async () => (await get('/v1/btf/debian/12/x86_64/late')).status
  t.equal(await status(), 404)
  await putRecord(testService.store, late)
  t.equal(await until(status, (code) => code === 200), 200)
})
