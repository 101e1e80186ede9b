// The lookup of a kernel's BTF: by every name that the kernel has, and never by a guess between builds.
import t from 'tap'
import type { BtfGenerator } from '../../../service/demand/generation.ts'
import { type BuildRecord, putRecord } from '../../../storage/index.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const [AA, BB, CC] = ['aa', 'bb', 'cc'].map((byte) => byte.repeat(20)) as [string, string, string]

const failure = {
  code: 'unreachable',
  message: 'the mirror does not answer',
  attempts: 1,
  at: '2026-11-01T12:00:00.000Z',
} as const

/** A record of a build, with its package version. */
const built = (
  version: string,
  kernel: Partial<BuildRecord['kernel']>,
  btf: BuildRecord['btf'],
) => {
  const record = recordOf({ ...kernel }, btf && { btf })
  return { ...record, package: { ...record.package, version } }
}

const requested: string[] = []

/** A generator that finds only the releases that start with `offered` or `due`. */
const generator: BtfGenerator = {
  underWay: 0,
  submit(kernel) {
    requested.push(kernel.release)
    const state = /offered|due/.test(kernel.release) ? 'searching' : 'unknown'
    return { id: 'job-1', kernel, state, packages: [] }
  },
  get: () => undefined,
  async *watch() {},
}

const testService = await startTestService(
  t,
  async (store) => {
    const [little, big] = [await btfOf(store, RAW.little), await btfOf(store, RAW.big)]
    const rhel = { distro: 'rhel', version: '7', release: '3.10.0-1.el7.x86_64' }
    return [
      recordOf(rhel, { btf: little }),
      recordOf(
        { distro: 'ubuntu', version: '20.04', arch: 'aarch64', release: 'arm' },
        { btf: big },
      ),
      recordOf({ release: 'one', buildId: CC }, { btf: big }),
      // two builds of one name, generated in another order than that of their package versions
      built('6.1.9-1', { release: 'rebuilt', buildId: AA }, little),
      built('6.1.10-1', { release: 'rebuilt', buildId: BB }, big),
      // one release in two distributions
      built('1', { distro: 'debian', version: '12', release: 'shared' }, little),
      built('2', { distro: 'ubuntu', version: '24.04', release: 'shared' }, big),
      // two builds with equal BTF
      built('1', { release: 'equal' }, little),
      built('2', { release: 'equal' }, little),
      recordOf({ release: 'embedded' }, { embedded: true }),
      recordOf({ release: 'failed' }, { failure: { ...failure, retryAt: null } }),
      recordOf({ release: 'due' }, { failure: { ...failure, retryAt: failure.at } }),
      recordOf(
        { release: 'later' },
        { failure: { ...failure, retryAt: '2100-01-01T00:00:00.000Z' } },
      ),
    ]
  },
  { settings: { generate: 'on-miss' }, generator },
)
const get = (path: string) => ask(`${testService.url}/v1/btf${path}`)

t.test(
  'a kernel is found by every alias of its distribution, version and architecture',
  async (t) => {
    const names = {
      'rhel/7/x86_64': [
        'rhel/7.9/amd64',
        'redhat/7/x64',
        'RHEL/7/X86_64',
        '%22rhel%22/%227.9%22/amd64',
      ],
      'ubuntu/20.04/aarch64': ['ubuntu/20.04/arm64', 'Ubuntu/20.04/ARM64', "'ubuntu'/20.04/arm64"],
    }
    const release = { rhel: '3.10.0-1.el7.x86_64', ubuntu: 'arm' }
    for (const [name, aliases] of Object.entries(names)) {
      const raw = name.startsWith('rhel') ? RAW.little : RAW.big
      const of = name.startsWith('rhel') ? release.rhel : release.ubuntu
      for (const alias of [name, ...aliases])
        t.ok((await get(`/${alias}/${of}`)).bytes.equals(raw), alias)
    }
  },
)

t.test('a kernel is found by uname -r, alone or with other parts of its name', async (t) => {
  t.ok((await get('?release=3.10.0-1.el7.x86_64')).bytes.equals(RAW.little))
  t.ok((await get('?release=arm&arch=arm64')).bytes.equals(RAW.big))
  t.ok((await get('?release=arm&distro=ubuntu')).bytes.equals(RAW.big))
  t.match((await get('?release=arm&arch=amd64')).json, { code: 'unknown_kernel' })
  t.match((await get('?release=none')).json, { code: 'unknown_kernel' })
  const { status, json } = await get('?release=shared')
  t.equal(status, 409)
  t.match(json, {
    code: 'ambiguous',
    builds: [
      { distro: 'ubuntu', version: '24.04', arch: 'x86_64', release: 'shared' },
      { distro: 'debian', version: '12' },
    ],
  })
  t.ok((await get('?release=shared&distro=debian')).bytes.equals(RAW.little))
  t.ok((await get('?release=shared&version=24.04')).bytes.equals(RAW.big))
  t.ok(await get('/any/any/any/shared?build=&').then(({ status }) => status === 400))
})

t.test('a kernel is found by its build-id, in lower or upper case', async (t) => {
  t.ok((await get(`/build-id/${AA}`)).bytes.equals(RAW.little))
  t.ok((await get(`/build-id/${BB.toUpperCase()}`)).bytes.equals(RAW.big))
  t.match((await get(`/build-id/${'dd'.repeat(20)}`)).json, { code: 'unknown_kernel' })
  for (const none of ['xy', 'abc', `${AA}${'00'.repeat(60)}`])
    t.match((await get(`/build-id/${none}`)).json, { code: 'invalid_request' }, none)
})

t.test(
  'an ambiguous request is answered with all builds, and one is served only if the client chooses',
  async (t) => {
    const path = '/debian/12/amd64/rebuilt'
    const { status, json } = await get(path)
    t.equal(status, 409)
    t.match(json, {
      builds: [
        { build: BB, packageVersion: '6.1.10-1' },
        { build: AA, packageVersion: '6.1.9-1' },
      ],
    })
    t.ok(
      (await get(`${path}?ambiguous=newest`)).bytes.equals(RAW.big),
      '6.1.10 is newer than 6.1.9',
    )
    t.ok((await get(`${path}?build=${AA}&ambiguous=newest`)).bytes.equals(RAW.little))
    t.match((await get(`${path}?ambiguous=oldest`)).json, { code: 'invalid_request' })
    t.equal(
      (await get('?release=shared&ambiguous=newest')).status,
      409,
      'newest does not choose between distributions',
    )
    t.ok(
      (await get('/debian/12/amd64/equal')).bytes.equals(RAW.little),
      'builds with equal BTF are not ambiguous',
    )
  },
)

t.test('the service refuses unknown parameters and unknown values', async (t) => {
  for (const query of ['dialct=libbpf-0.5', 'uname_version=x', 'modules=all', 'dialect=libbpf-9'])
    t.match((await get(`/debian/12/amd64/one?${query}`)).json, { code: 'invalid_request' }, query)
  t.match((await get('?releas=x')).json, { code: 'invalid_request' })
})

t.test('a kernel without BTF is reported as unknown, failed, embedded or pending', async (t) => {
  const states = {
    none: [404, 'unknown_kernel'],
    embedded: [404, 'has_own_btf'],
    failed: [404, 'generation_failed'],
    later: [404, 'generation_failed'],
    offered: [202, 'pending'],
    due: [202, 'pending'],
  } as const
  for (const [release, [status, code]] of Object.entries(states)) {
    const answer = await get(`/debian/12/amd64/${release}`)
    t.equal(answer.status, status, release)
    t.match(answer.json, { code, status }, release)
    t.equal(answer.headers['content-type'], 'application/problem+json', release)
    t.equal(answer.headers['retry-after'] !== undefined, status === 202, release)
    t.equal(answer.json?.job, status === 202 ? '/v1/jobs/job-1' : undefined, release)
  }
  t.same(
    requested,
    ['none', 'offered', 'due'],
    'a kernel with its own BTF, or with a failure that is not due, is not requested from the generator',
  )
})

t.test(
  'concurrent requests for a missing kernel share a listing of the store, and a later record is found',
  async (t) => {
    let lists = 0
    const { store } = testService
    const list = store.list.bind(store)
    store.list = (prefix) => {
      lists++
      return list(prefix)
    }
    await Promise.all(Array.from({ length: 200 }, () => get('/debian/12/amd64/offered-to-a-herd')))
    t.ok(lists < 20, `${lists} listings`)
    await putRecord(
      store,
      recordOf({ release: 'offered-late' }, { btf: await btfOf(store, RAW.big) }),
    )
    t.equal((await get('/debian/12/amd64/offered-late')).status, 200)
  },
)
