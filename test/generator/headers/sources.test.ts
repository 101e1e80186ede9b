// Partial BTF of repositories in the forms of vendors that publish headers and nothing better, through to a client.
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parseBtf } from '../../../bpf/index.ts'
import { parseSource, type Source } from '../../../generator/sources/source.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { fetchBtf } from '../../../service/client/client.ts'
import { Catalog, partialOf, putRecord } from '../../../storage/index.ts'
import { makeSuite } from '../../helpers/apt-archive.ts'
import { MAIN } from '../../helpers/command.ts'
import { coreObjects } from '../../helpers/core.ts'
import { headerFiles, packageFiles } from '../../helpers/header-tree.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRpmRepository } from '../../helpers/rpm-repository.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

/** A source of the table whose server is a directory. */
const at = (id: string, directory: string, keyring: string): Source =>
  parseSource({ ...SOURCES.get(id)!, mirror: `file://${directory}`, keyrings: [keyring] })

/** Raspberry Pi OS: the headers of a flavour depend on the common ones, which are for all architectures. */
async function raspberryPi(t: Test, run: RunDirectory): Promise<Source> {
  const signer = makeSigner(t)
  const [version, release] = ['1:6.6.31-1+rpt1', '6.6.31+rpt-rpi-v8']
  const all = headerFiles({ release, arch: 'arm64', options: ['SMP'] })
  const isOwn = (path: string) => /generated|config|symvers/.test(path)
  const split = (own: boolean) =>
    Object.fromEntries(Object.entries(all).filter(([path]) => isOwn(path) === own))
  const own = 'linux-headers-6.6.31+rpt-rpi-v8'
  const common = 'linux-headers-6.6.31+rpt-common-rpi'
  const inRun = (name: string) => join(run.directory, name)
  const packages = [
    makePackage(run.directory, undefined, {
      name: own,
      version,
      architecture: 'arm64',
      files: packageFiles(inRun('own'), split(true), `usr/src/${own}`),
      control: { Depends: `${common} (= ${version}), linux-kbuild-6.6.31+rpt, gcc-12` },
    }),
    makePackage(run.directory, undefined, {
      name: common,
      version,
      architecture: 'all',
      files: packageFiles(inRun('common'), split(false), `usr/src/${common}`),
    }),
    makePackage(run.directory, undefined, {
      name: 'linux-headers-rpi-v8',
      version,
      architecture: 'arm64',
    }),
  ]
  const components = { main: packages }
  makeSuite(inRun('mirror/debian'), {
    suite: 'bookworm',
    architecture: 'arm64',
    components,
    signer,
  })
  return at('raspberrypi', inRun('mirror'), signer.keyring)
}

/** ELRepo: one signed package with all headers of a kernel, and no index that is signed. */
async function elrepo(t: Test, run: RunDirectory): Promise<Source> {
  const signer = makeSigner(t)
  const packages = ['lt', 'ml'].map((series) => {
    const version = series === 'lt' ? '6.1.77' : '6.7.5'
    const release = `${version}-1.el9.elrepo.x86_64`
    const files = headerFiles({ release })
    return makeRpm(run.directory, {
      name: `kernel-${series}-devel`,
      version,
      release: '1.el9.elrepo',
      files: packageFiles(join(run.directory, series), files, `usr/src/kernels/${release}`),
      payload: 'zstd',
      signer,
    })
  })
  makeRpmRepository(join(run.directory, 'mirror/kernel/el9/x86_64'), { packages })
  return at('elrepo', join(run.directory, 'mirror'), signer.keyring)
}

/** Armbian and Proxmox: one package with all headers; Armbian's name does not tell the kernel. */
async function oneDeb(
  t: Test,
  run: RunDirectory,
  id: 'armbian' | 'proxmox',
  { name, release, description }: { name: string; release: string; description?: string },
): Promise<Source> {
  const signer = makeSigner(t)
  const isArm = id === 'armbian'
  const architecture = isArm ? 'arm64' : 'amd64'
  const files = headerFiles({ release, arch: isArm ? 'arm64' : 'x86' })
  const path = makePackage(run.directory, undefined, {
    name,
    version: '24.5.1',
    architecture,
    files: packageFiles(join(run.directory, 'own'), files, `usr/src/linux-headers-${release}`),
    ...(description !== undefined && { control: { Description: description } }),
  })
  const components = { [isArm ? 'main' : 'pve-no-subscription']: [path] }
  const mirror = join(run.directory, 'mirror')
  const base = isArm ? mirror : join(mirror, 'debian/pve')
  makeSuite(base, { suite: 'bookworm', architecture, components, signer })
  return at(id, mirror, signer.keyring)
}

/** The error of a kernel that the server does not have. */
const UNKNOWN = { code: 'refused', message: /unknown|no BTF/ }

const generateFrom = async (run: RunDirectory, source: Source, version: string, arch: string) =>
  await run.run(
    { sources: [source] },
    { from: 'headers', source: [source.id], filter: { version, arch } },
  )

const partialRecords = async ({ store }: RunDirectory) =>
  [...(await Catalog.open(partialOf(store))).list()].map(({ record }) => record)

t.test(
  'a repository in the form of Raspberry Pi OS gives partial BTF that only those get who ask',
  async (t) => {
    const run = await makeRunDirectory(t)
    const source = await raspberryPi(t, run)
    t.match(await generateFrom(run, source, '12', 'aarch64'), {
      published: 1,
      sourcesFailed: 0,
      failed: {},
    })
    const [record] = await partialRecords(run)
    t.match(record, {
      kernel: { distro: 'debian', version: '12', arch: 'aarch64', release: '6.6.31+rpt-rpi-v8' },
      package: { name: 'linux-headers-6.6.31+rpt-rpi-v8', authenticated: 'index' },
      headers: { packages: [{ name: 'linux-headers-6.6.31+rpt-common-rpi' }], failed: 0 },
    })
    t.match(await generateFrom(run, source, '12', 'aarch64'), { published: 0, skipped: 1 })
    t.same(await run.records(), [])

    const { store } = run
    const partial = await Catalog.open(partialOf(store))
    const { url } = await startTestService(t, undefined, { store, partial })
    const name = 'debian/12/aarch64/6.6.31+rpt-rpi-v8'
    const sha256 = record!.btf!.sha256
    for (const path of [
      `v1/btf/${name}`,
      `v1/btf/${name}/sha256`,
      `v1/btf/sha256/${sha256}`,
      `v1/btf?release=${encodeURIComponent('6.6.31+rpt-rpi-v8')}`,
      `debian/12/arm64/6.6.31+rpt-rpi-v8.btf.tar.xz`,
    ])
      t.equal((await ask(`${url}/${path}`)).status, 404, path)
    t.same((await ask(`${url}/v1/kernels`)).json?.kernels, [])
    t.match((await ask(`${url}/v1/kernels?partial=only`)).json?.kernels, [
      { origin: 'headers', links: { btf: /partial=allow$/ } },
    ])

    const answer = await ask(`${url}/v1/btf/${name}?partial=allow`)
    t.match(answer, {
      status: 200,
      headers: {
        'btf-partial': /^headers; structs=5; headers=4$/,
        'btfmill-kernel': name,
        etag: `"${sha256}"`,
      },
    })
    t.ok(parseBtf(answer.bytes).find('task_struct', 'STRUCT'))
    t.match(await ask(`${url}/v1/btf/sha256/${sha256}?partial=allow`), {
      status: 200,
      headers: { 'btf-partial': /^headers/ },
    })
    t.match(await ask(`${url}/v1/btf/${name}/sha256?partial=allow`), {
      status: 200,
      headers: { 'btf-partial': /^headers/ },
    })

    const kernel = record!.kernel
    const cache = t.testdir({})
    await t.rejects(fetchBtf({ server: url, kernel, cache }), UNKNOWN)
    const fetched = await fetchBtf({ server: url, kernel, cache, partial: true })
    t.match(fetched, { origin: 'server', sha256, partial: /^headers; structs=5/ })
    t.ok(readFileSync(fetched.path).equals(answer.bytes))
    await t.rejects(
      fetchBtf({ server: url, kernel, cache }),
      UNKNOWN,
      'the cache gives partial BTF to nobody else',
    )
    const offline = { server: 'http://127.0.0.1:1', kernel, cache, attempts: 1, partial: true }
    t.match(await fetchBtf(offline), { origin: 'cache', partial: /./ })
    await t.rejects(fetchBtf({ ...offline, publicKey: 'x' }), { code: 'invalid_options' })

    // as soon as the whole BTF is there, it is what those get who allow partial BTF, too
    const btf = await btfOf(store, RAW.little)
    await putRecord(store, recordOf(kernel, { btf }))
    const again = () => ask(`${url}/v1/btf/${name}?partial=allow`)
    await until(again, ({ headers }) => headers['btf-partial'] === undefined)
    t.match(await again(), { status: 200, headers: { etag: `"${btf.sha256}"` } })
    t.match(await fetchBtf({ server: url, kernel, cache, partial: true }), { sha256: btf.sha256 })
  },
)

t.test('a repository in the form of ELRepo gives partial BTF of its two series', async (t) => {
  const run = await makeRunDirectory(t)
  const source = await elrepo(t, run)
  t.match(await generateFrom(run, source, '9', 'x86_64'), {
    published: 2,
    sourcesFailed: 0,
    failed: {},
  })
  const records = await partialRecords(run)
  t.match(
    records.map(({ kernel, package: { name, authenticated } }) => ({
      ...kernel,
      name,
      authenticated,
    })),
    [
      { release: '6.1.77-1.el9.elrepo.x86_64', name: 'kernel-lt-devel', authenticated: 'header' },
      { release: '6.7.5-1.el9.elrepo.x86_64', name: 'kernel-ml-devel', authenticated: 'header' },
    ],
  )
  t.match(records[0], { kernel: { distro: 'elrepo', version: '9', arch: 'x86_64' } })

  // a client names its own distribution
  const loaded = await Catalog.open(partialOf(run.store))
  const service = await startTestService(t, undefined, { store: run.store, partial: loaded })
  const path = 'v1/btf/almalinux/9.4/x86_64/6.1.77-1.el9.elrepo.x86_64?partial=allow'
  t.match(await ask(`${service.url}/${path}`), {
    status: 200,
    headers: { 'btf-partial': /^headers/, 'btfmill-found-by': 'release' },
  })
})

t.test(
  'a package of Armbian is named by its description, and one of Proxmox by its name',
  async (t) => {
    for (const [id, of, arch] of [
      [
        'armbian',
        {
          name: 'linux-headers-current-rockchip64',
          release: '6.6.31-current-rockchip64',
          description: 'Armbian Linux current headers 6.6.31-current-rockchip64\n more',
        },
        'aarch64',
      ],
      ['proxmox', { name: 'proxmox-headers-6.8.12-1-pve', release: '6.8.12-1-pve' }, 'x86_64'],
    ] as const) {
      const run = await makeRunDirectory(t)
      const source = await oneDeb(t, run, id, of)
      t.match(await generateFrom(run, source, '12', arch), { published: 1, failed: {} }, id)
      t.match(await partialRecords(run), [
        { kernel: { distro: 'debian', arch, release: of.release } },
      ])
    }
  },
)

const command = promisify(execFile)

/** Runs a command; its exit status does not matter. */
async function btfmill(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  return await command(process.execPath, [MAIN, ...args]).catch((error) => error)
}

t.test('check says cannot tell, and export takes partial BTF only if it is told to', async (t) => {
  const run = await makeRunDirectory(t)
  await run.run(
    { sources: [await elrepo(t, run)] },
    {
      from: 'headers',
      source: ['elrepo'],
      filter: { version: '9', arch: 'x86_64' },
      limit: 1,
    },
  )
  const store = ['--store', run.storeUrl]
  const object = coreObjects('el').get('exists')!
  const without = await btfmill('check', object, ...store)
  t.match(without.stderr, /no kernels in/)
  const { stdout } = await btfmill('check', object, ...store, '--partial', '--json')
  const checked = JSON.parse(stdout)
  t.equal(checked.verdict, 'cannot_tell')
  const reasons = checked.programs.flatMap((program: { reasons: object[] }) => program.reasons)
  t.ok(reasons.some(({ code }: { code?: string }) => code === 'not_covered'))
  t.notOk(reasons.some(({ verdict }: { verdict?: string }) => verdict === 'no'))

  const { url } = await startTestService(t, undefined, {
    store: run.store,
    partial: await Catalog.open(partialOf(run.store)),
  })
  const kernel = encodeURIComponent('elrepo/9/x86_64/6.7.5-1.el9.elrepo.x86_64')
  const post = async (route: string, query = `kernel=${kernel}&partial=allow`) => {
    const form = new FormData()
    form.append('object', new Blob([readFileSync(object)]), 'exists.o')
    const answer = await fetch(`${url}/v1/${route}?${query}`, { method: 'POST', body: form })
    return (await answer.json()) as object
  }
  t.match(await post('check'), { partial: true, verdict: 'cannot_tell' })
  t.match(await post('minimize'), { code: 'invalid_request' })

  t.comment('many kernels')
  const many = 'distro=elrepo&partial=allow'
  t.match(await post('check', many), { partial: true, verdict: 'cannot_tell' })
  t.match(await post('check', 'distro=elrepo'), { code: 'unknown_kernel' })
  t.match(await post('check', `digest=${'0'.repeat(64)}&partial=allow`), {
    code: 'invalid_request',
    detail: /partial needs the parameter kernel, or filters/,
  })
  t.match(await post('minimize', many), { code: 'invalid_request', detail: /be minimized/ })
  const bundle = `profile=btfhub&part=manifest&${many}`
  t.match(await post('bundles', bundle), { code: 'invalid_request', detail: /be minimized/ })
  const manifest = await fetch(`${url}/v1/bundles?${bundle}`, { method: 'POST' })
  t.match(await manifest.json(), { kernels: [{ partial: true, kernel: { distro: 'elrepo' } }] })

  t.comment('commands on a service')
  const server = ['--server', url]
  t.match((await btfmill('check', object, ...server)).stderr, /no kernels in/)
  const line = await btfmill('check', object, ...server, '--partial', '--json')
  t.match(JSON.parse(line.stdout), { partial: true, verdict: 'cannot_tell' })
  const remote = ['export', '--profile', 'btfhub', ...server, '-o', join(run.directory, 'remote')]
  t.match((await btfmill(...remote)).stderr, /no kernels in/)
  t.match((await btfmill(...remote, '--partial')).stderr, /partial, made from headers: elrepo\/9/)
  t.ok(existsSync(join(run.directory, 'remote')))

  const output = join(run.directory, 'bundle.tar')
  const exporting = ['export', '--profile', 'btfhub', ...store, '-o', output]
  t.match((await btfmill(...exporting)).stderr, /no kernels in/)
  t.notOk(existsSync(output))
  const exported = await btfmill(...exporting, '--partial')
  t.match(exported.stderr, /partial, made from headers: elrepo\/9/)
  t.ok(existsSync(output))
  t.match((await btfmill(...exporting, '--partial', '--object', object)).stderr, /without --object/)
  t.match((await btfmill('list', ...store)).stdout, '')
  t.match((await btfmill('list', ...store, '--partial')).stdout, /partial: 5 named structs/)
  t.match((await btfmill('verify', ...store)).stdout, /clean/)
})
