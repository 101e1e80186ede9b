// A kernel that is not found by its name is looked up under the parents of its distribution, then by its release alone. What
// is served is never a guess, and the response says what it is. Misses and generations keep to the same names.
import t, { type Test } from 'tap'
import type { BtfGenerator, Generation } from '../../../service/demand/generation.ts'
import { type BuildRecord, type KernelName, putRecord } from '../../../storage/index.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const [AA, BB] = ['aa', 'bb'].map((byte) => byte.repeat(20)) as [string, string]

type Row = [name: string, raw: Buffer | undefined, kernel?: Partial<BuildRecord['kernel']>]

/** Serves records that are named DISTRO/VERSION/RELEASE, with BTF or without. */
async function serviceWith(t: Test, rows: readonly Row[], options = {}) {
  const { url, store, catalog } = await startTestService(
    t,
    (store) =>
      Promise.all(
        rows.map(async ([name, raw, kernel = {}], i) => {
          const [distro, version, release] = name.split('/') as [string, string, string]
          const record = recordOf(
            { distro, version, release, ...kernel },
            raw ? { btf: await btfOf(store, raw) } : { embedded: true },
          )
          return { ...record, package: { ...record.package, version: `1-${i}` } }
        }),
      ),
    options,
  )
  const get = (path: string) => ask(`${url}${path}`)
  /** `by kernel` of a response with BTF, else its code */
  const found = async (path: string): Promise<string> => {
    const { headers, json } = await get(path)
    return json?.code
      ? String(json.code)
      : `${headers['btfmill-found-by']} ${headers['btfmill-kernel']}`
  }
  const misses = async () => {
    const { json = {} } = await get('/v1/misses')
    return (json.misses as { kernel: KernelName; count: number }[]).map(
      ({ kernel, count }) => `${Object.values(kernel).join('/')} ${count}`,
    )
  }
  return { url, store, catalog, get, found, misses }
}

const { little, big } = RAW

t.test('a response says by which name the kernel was found', async (t) => {
  const { found, get } = await serviceWith(t, [
    ['ubuntu/20.04/5.4.0-91-generic', little, { buildId: AA }],
    ['rhel/8/4.18.0-1.el8.x86_64', little],
  ])
  const focal = 'ubuntu/20.04/x86_64/5.4.0-91-generic'
  const paths = {
    '/v1/btf/ubuntu/20.04/amd64/5.4.0-91-generic': `name ${focal}`,
    '/v1/btf/rhel/8.6/amd64/4.18.0-1.el8.x86_64': 'name rhel/8/x86_64/4.18.0-1.el8.x86_64',
    '/v1/btf/linuxmint/20.3/amd64/5.4.0-91-generic': `parent ${focal}`,
    '/v1/btf/linuxmint/20.3/amd64/5.4.0-91-generic/sha256': `parent ${focal}`,
    '/v1/btf/mine/1/amd64/5.4.0-91-generic?like=x+ubuntu': `parent ${focal}`,
    '/v1/btf/mine/1/amd64/5.4.0-91-generic?like=x%20ubuntu': `parent ${focal}`,
    '/v1/btf/mine/1/amd64/5.4.0-91-generic?codename=focal': `parent ${focal}`,
    '/v1/btf/mine/1/amd64/5.4.0-91-generic': `release ${focal}`,
    '/v1/btf?release=5.4.0-91-generic': `release ${focal}`,
    [`/v1/btf/debian/12/amd64/other?build=${AA}`]: `build-id ${focal}`,
  }
  for (const [path, expected] of Object.entries(paths)) t.equal(await found(path), expected, path)
  const { json } = await get('/v1/btf/linuxmint/20.3/amd64/5.4.0-92-generic')
  t.match(json, {
    code: 'unknown_kernel',
    detail:
      'there is no BTF for linuxmint 20.3 x86_64 5.4.0-92-generic, nor for ubuntu 20.04, nor for this release alone',
  })
})

t.test('the addresses of other services lead to the parents as well', async (t) => {
  const { found } = await serviceWith(t, [['ubuntu/20.04/5.4.0-91-generic', little]])
  const focal = 'ubuntu/20.04/x86_64/5.4.0-91-generic'
  for (const path of [
    '/linuxmint/20.3/x86_64/5.4.0-91-generic.btf.tar.xz',
    '/btfs/elementary/6/x86_64/5.4.0-91-generic.btf.tar.xz',
    '/newest/zorin/16/x86_64/5.4.0-91-generic.btf.tar.xz',
    '/api/v1/download?distribution=neon&distribution_version=20.04&kernel_version=5.4.0-91-generic&arch=amd64',
  ])
    t.equal(await found(path), `parent ${focal}`, path)
  t.equal(await found('/coolbpf/btf/x86_64/vmlinux-5.4.0-91-generic'), `release ${focal}`)
})

t.test("a kernel's own name wins over its parent's", async (t) => {
  const { get } = await serviceWith(t, [
    ['pop/22.04/5.15.0-91-generic', little],
    ['ubuntu/22.04/5.15.0-91-generic', big],
  ])
  t.ok((await get('/v1/btf/pop/22.04/amd64/5.15.0-91-generic')).bytes.equals(little))
  t.ok((await get('/v1/btf/neon/22.04/amd64/5.15.0-91-generic')).bytes.equals(big))
})

t.test(
  'a release that several kernels have is served only to a client that tells which',
  async (t) => {
    const [focal, bionic] = ['#46-Ubuntu SMP', '#46~18.04.1-Ubuntu SMP']
    const release = '5.4.0-42-generic'
    const { found } = await serviceWith(t, [
      [`ubuntu/20.04/${release}`, little, { unameVersion: focal }],
      [`ubuntu/18.04/${release}`, big, { unameVersion: bionic, buildId: BB }],
    ])
    const inContainer = `/v1/btf/alpine/3.18/amd64/${release}`
    const query = (version: string) => `?uname-version=${encodeURIComponent(version)}`
    t.equal(await found(inContainer), 'unknown_kernel')
    t.equal(await found(`${inContainer}?ambiguous=newest`), 'unknown_kernel')
    t.equal(await found(`${inContainer}${query('#1 other')}`), 'unknown_kernel')
    t.equal(await found(inContainer + query(focal)), `release ubuntu/20.04/x86_64/${release}`)
    t.equal(await found(inContainer + query(bionic)), `release ubuntu/18.04/x86_64/${release}`)
    t.equal(await found(`${inContainer}?build=${BB}`), `build-id ubuntu/18.04/x86_64/${release}`)
    // the container's os-release names a kernel that exists, and is another one
    t.equal(
      await found(`/v1/btf/ubuntu/18.04/amd64/${release}${query(focal)}`),
      `release ubuntu/20.04/x86_64/${release}`,
    )
    t.equal(
      await found(`/v1/btf/ubuntu/18.04/amd64/${release}${query('#1 other')}`),
      'unknown_kernel',
    )
  },
)

t.test(
  'another version or rebuild with the same release is served only if its identity is confirmed',
  async (t) => {
    const { found } = await serviceWith(t, [
      ['ubuntu/20.04/5.4.0-42-generic', little, { unameVersion: '#46-Ubuntu' }],
      ['rhel/8/4.18.0-372.el8.x86_64', little],
      ['debian/12/6.1.0-18-amd64', undefined],
      ['debian/11/6.1.0-18-amd64', little],
    ])
    for (const path of [
      'ubuntu/18.04/amd64/5.4.0-42-generic',
      'linuxmint/19.3/amd64/5.4.0-42-generic',
      'almalinux/8.6/amd64/4.18.0-372.el8.x86_64?like=rhel%20centos%20fedora',
      'ol/8.6/amd64/4.18.0-372.el8.x86_64',
      'alpine/3.18/amd64/6.1.0-18-amd64',
    ])
      t.equal(await found(`/v1/btf/${path}`), 'unknown_kernel', path)
    t.equal(
      await found('/v1/btf/ubuntu/18.04/amd64/5.4.0-42-generic?uname-version=%2346-Ubuntu'),
      'release ubuntu/20.04/x86_64/5.4.0-42-generic',
    )
  },
)

t.test('a build that contradicts the client is not served under any name', async (t) => {
  const { found } = await serviceWith(t, [
    ['ubuntu/20.04/5.4.0-91-generic', little, { buildId: AA, unameVersion: '#102-Ubuntu' }],
    ['debian/12/6.1.0-18-amd64', little, { unameVersion: '#1 SMP Debian 6.1.76-1' }],
    ['mine/1/6.1.0-18-amd64', big],
  ])
  t.equal(
    await found(
      '/v1/btf/debian/12/amd64/6.1.0-18-amd64?uname-version=%231%20SMP%20Debian%206.1.77-1',
    ),
    'unknown_kernel',
    'the kernel has its own name, so it is none of another name whose identity is not known',
  )
  for (const query of [`build=${BB}`, 'uname-version=%23103-Ubuntu'])
    for (const name of ['ubuntu/20.04', 'linuxmint/20.3', 'alpine/3.18'])
      t.equal(await found(`/v1/btf/${name}/amd64/5.4.0-91-generic?${query}`), 'unknown_kernel')
})

t.test('a release of digits alone, which anyone may build, is not enough', async (t) => {
  const { found } = await serviceWith(t, [['mine/1/5.10.0', little, { unameVersion: '#1 mine' }]])
  t.equal(await found('/v1/btf/debian/11/amd64/5.10.0'), 'unknown_kernel')
  t.equal(
    await found('/v1/btf/debian/11/amd64/5.10.0?uname-version=%231%20mine'),
    'release mine/1/x86_64/5.10.0',
  )
})

t.test("a parent's several builds are listed, and one is chosen by its identity", async (t) => {
  const { get, found } = await serviceWith(t, [
    ['debian/12/6.1.0-13-amd64', little, { buildId: AA }],
    ['debian/12/6.1.0-13-amd64', big, { buildId: BB }],
  ])
  const { status, json } = await get('/v1/btf/devuan/5/amd64/6.1.0-13-amd64')
  t.equal(status, 409)
  t.match(json, { code: 'ambiguous', builds: [{ build: BB }, { build: AA }] })
  t.match(json?.detail, /^debian 12 x86_64 6\.1\.0-13-amd64, the parent of devuan 5, has several/)
  t.match(await found(`/v1/btf/devuan/5/amd64/6.1.0-13-amd64?build=${BB}`), /^build-id /)
})

t.test('hints of any content are no error', async (t) => {
  const { found } = await serviceWith(t, [])
  for (const hint of ['', '%00', 'x'.repeat(255), '../..', '__proto__', '%22rhel%22', "'"])
    t.equal(await found(`/v1/btf/a/b/c/d?like=${hint}&codename=${hint}`), 'unknown_kernel', hint)
  t.equal(await found(`/v1/btf/a/b/c/d?like=${'x'.repeat(256)}`), 'invalid_request')
})

t.test(
  'a miss is counted once, and under a name that a client claims only if the table agrees',
  async (t) => {
    const { get, misses, store, catalog, found } = await serviceWith(t, [])
    for (const path of [
      // all of these run Ubuntu's kernel
      'ubuntu/20.04/amd64/5.4.0-91-generic',
      'linuxmint/20.3/amd64/5.4.0-91-generic?like=ubuntu&codename=focal',
      'elementary/6/amd64/5.4.0-91-generic',
      // these may have kernels of their own, whatever they claim
      'pop/22.04/amd64/6.6.10-76060610-generic?like=ubuntu%20debian&codename=jammy',
      'tuxedo/22.04/amd64/6.2.0-10018-tuxedo?like=ubuntu&codename=jammy',
      'x/1/amd64/wanted?like=rhel%20centos%20fedora%20debian%20ubuntu',
    ])
      await get(`/v1/btf/${path}`)
    t.same((await misses()).sort(), [
      'pop/22.04/x86_64/6.6.10-76060610-generic 1',
      'tuxedo/22.04/x86_64/6.2.0-10018-tuxedo 1',
      'ubuntu/20.04/x86_64/5.4.0-91-generic 3',
      'x/1/x86_64/wanted 1',
    ])
    const record = recordOf({ distro: 'ubuntu', version: '22.04', release: '6.2.0-10018-tuxedo' })
    await putRecord(store, { ...record, btf: await btfOf(store, little) })
    await catalog.refresh()
    t.match(await found('/v1/btf/tuxedo/22.04/amd64/6.2.0-10018-tuxedo'), /^release ubuntu/)
    t.notMatch(
      await misses(),
      ['tuxedo'],
      'a kernel that is found by its release is no longer a miss',
    )
    t.equal((await misses()).length, 3)
  },
)

t.test('a generation is asked for under the names that a lookup tries', async (t) => {
  const asked: string[] = []
  const states = new Map<string, Generation['state']>()
  const generator: BtfGenerator = {
    underWay: 0,
    submit(kernel) {
      const name = `${kernel.distro}/${kernel.version}`
      asked.push(name)
      const state = states.get(name) ?? 'unknown'
      return { id: name, kernel, state, packages: [] }
    },
    get: () => undefined,
    async *watch() {},
  }
  const { get } = await serviceWith(t, [], { settings: { generate: 'on-miss' }, generator })
  const askFor = async (path: string): Promise<string[]> => {
    asked.length = 0
    await get(`/v1/btf/${path}`)
    return [...asked]
  }
  t.same(await askFor('linuxmint/20.3/amd64/a'), ['ubuntu/20.04'])
  t.same(await askFor('raspbian/12/armv7l/a'), ['raspbian/12', 'debian/12'])
  t.same(await askFor('tuxedo/22.04/amd64/a?like=ubuntu&codename=jammy'), [
    'tuxedo/22.04',
    'ubuntu/22.04',
  ])
  t.same(
    await askFor('x/1/amd64/a?like=debian'),
    ['x/1'],
    'a parent without a version has no index',
  )
  t.same(await askFor('debian/forky/amd64/a'), ['debian/sid'])
  t.same(await askFor('sles/15/amd64/a'), ['sles/15.0'])
  states.set('debian/12', 'searching')
  t.same(await askFor('devuan/5/amd64/b'), ['debian/12'])
  const { status, json } = await get('/v1/btf/devuan/5/amd64/b')
  t.match({ status, json }, { status: 202, json: { job: '/v1/jobs/debian/12' } })
})
