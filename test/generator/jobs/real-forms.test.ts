// Repositories in the forms that only the distributions' own servers have, from their index to the record of a kernel.
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import type { GenerateEvent, GenerateOptions } from '../../../generator/index.ts'
import { parseSource, type Source } from '../../../generator/sources/source.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { makeSuite } from '../../helpers/apt-archive.ts'
import { serveDirectory } from '../../helpers/file-server.ts'
import { startLaunchpad } from '../../helpers/launchpad-server.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRpm, type RpmOptions } from '../../helpers/rpm.ts'
import { editPrimary, makeRpmRepository, signRepomd } from '../../helpers/rpm-repository.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { makeVmlinux } from '../../helpers/vmlinux.ts'

/** The row of the table with these fields in place of its own, and only one version and architecture. */
function rowOf(id: string, version: string, fields: object): Source {
  const { access: _, ...known } = SOURCES.get(id)!
  return parseSource({
    ...known,
    versions: { [version]: known.versions[version] },
    architectures: { x86_64: known.architectures.x86_64 },
    ...fields,
  })
}

/** Makes a package with a small vmlinux of a release at the row's path. */
function kernelRpm(
  directory: string,
  release: string,
  { vmlinux }: Source,
  options: Omit<RpmOptions, 'files'>,
): string {
  const image = join(directory, 'vmlinux')
  makeVmlinux(image, { release, machine: 'x86_64' })
  return makeRpm(directory, {
    ...options,
    files: { [vmlinux[0]!.replace('{release}', release)]: image },
  })
}

/** Writes a file, and its directory. */
function put(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
}

/** Generates from a row, and returns the summary with what it made: release and authentication. */
async function generateFrom(t: Test, source: Source, options: Partial<GenerateOptions> = {}) {
  const runDirectory = await makeRunDirectory(t)
  const summary = await runDirectory.run(
    { sources: [source] },
    { source: source.id, from: 'debug', ...options },
  )
  const records = (await runDirectory.records()).map(({ kernel, package: from }) => ({
    version: kernel.version,
    release: kernel.release,
    authenticated: from.authenticated,
    url: from.url,
  }))
  return { summary, records, failures: await runDirectory.sourceFailures() }
}

for (const { version, list, repository, prefix, release } of [
  {
    version: '2',
    list: '2/core/latest/debuginfo/x86_64/mirror.list',
    repository: '2/core/2.0/x86_64/4ea4c4',
    prefix: '../../../../../blobstore',
    release: '168.357.amzn2',
  },
  {
    version: '2023',
    list: 'al2023/core/mirrors/latest/debuginfo/x86_64/mirror.list',
    repository: 'al2023/core/guids/4ea4c4/x86_64',
    prefix: '../../../../blobstore',
    release: '168.357.amzn2023',
  },
])
  t.test(
    `Amazon Linux ${version} keeps its packages beside its repositories, and an entry on another server hides only itself`,
    async (t) => {
      const root = t.testdir({})
      const { url } = await serveDirectory(t, root)
      const signer = makeSigner(t)
      const versions = {
        [version]: SOURCES.get('amzn')!.versions[version]!.filter(
          (one) => 'name' in one && one.name === 'core',
        ),
      }
      const row = rowOf('amzn', version, { mirror: url, keyrings: [signer.keyring], versions })
      const kernel = `4.14.225-${release}.x86_64`
      const packages = [
        kernelRpm(root, kernel, row, { version: '4.14.225', release }),
        kernelRpm(root, 'evil', row, { version: '4.14.226', release }),
      ]
      const directory = join(root, repository)
      makeRpmRepository(directory, { packages, form: 'xml', prefix: `${prefix}/ab12` })
      editPrimary(directory, (text) =>
        text.replace(/href="[^"]*(\/kernel-debuginfo-4.14.226)/, 'href="https://evil.example$1'),
      )
      signRepomd(directory, signer)
      const store = join(directory, prefix, 'ab12')
      mkdirSync(store, { recursive: true })
      for (const file of packages) renameSync(file, join(store, file.replace(/^.*[/]/, '')))
      put(join(root, list), `${url}/${repository}\n`)
      const events: GenerateEvent[] = []
      const { summary, records } = await generateFrom(t, row, {
        onEvent: (event) => events.push(event),
      })
      t.match(summary, { published: 1, failed: {}, sourcesFailed: 0 })
      const file = `kernel-debuginfo-4.14.225-${release}.x86_64.rpm`
      const place = new URL(`${prefix}/ab12/${file}`, `${url}/${repository}/`).href
      t.same(records, [{ version, release: kernel, authenticated: 'index', url: place }])
      t.match(
        events.filter(({ event }) => event === 'discovered'),
        [{ packages: 1, refused: { entries: 1, message: /outside its repository.*evil/ } }],
        'the entry that was left out is reported',
      )
    },
  )

t.test('Amazon Linux 1 has mirrors without TLS, whose packages are signed', async (t) => {
  const root = t.testdir({})
  const { url } = await serveDirectory(t, root)
  const signer = makeSigner(t)
  const [first] = SOURCES.get('amzn')!.versions['2018']!
  t.match(first, { url: /^https:.*mirror\.list$/, list: 'plain' })
  const versions = { 2018: [{ ...first, url: '{mirror}/latest/main/debuginfo/mirror.list' }] }
  const row = rowOf('amzn', '2018', { mirror: url, keyrings: [signer.keyring], versions })
  const release = '4.14.33-51.37.amzn1.x86_64'
  const name = { version: '4.14.33', release: '51.37.amzn1', signer }
  const packages = [kernelRpm(root, release, row, name)]
  makeRpmRepository(join(root, '2018.03/main/debuginfo/4ea4/x86_64'), { packages })
  put(
    join(root, 'latest/main/debuginfo/mirror.list'),
    `${url}/2018.03/main/debuginfo/4ea4/$basearch\n`,
  )
  const { summary, records } = await generateFrom(t, row)
  t.match(summary, { published: 1, sourcesFailed: 0 })
  t.match(records, [{ version: '2018', release, authenticated: 'header' }])
})

/** Makes Ubuntu's package with debug info in a directory. */
function ubuntuPackage(root: string, release: string) {
  const image = join(root, 'vmlinux')
  makeVmlinux(image, { release, machine: 'x86_64' })
  const name = `linux-image-unsigned-${release}-dbgsym`
  const files = { [`usr/lib/debug/boot/vmlinux-${release}`]: image }
  const version = `${release.replace('-generic', '')}.1`
  const options = { name, version, release, architecture: 'amd64', files }
  return { name, version, file: makePackage(root, undefined, options) }
}

t.test('Ubuntu has suites without InRelease beside suites with it', async (t) => {
  const root = t.testdir({})
  const signer = makeSigner(t)
  const { url } = await serveDirectory(t, root)
  const versions = { '20.04': SOURCES.get('ubuntu')!.versions['20.04']! }
  const row = rowOf('ubuntu', '20.04', {
    mirror: url,
    keyrings: [signer.keyring],
    versions,
    minSize: 0,
  })
  const kernels = { focal: '5.4.0-26-generic', 'focal-updates': '5.4.0-42-generic' }
  for (const [suite, release] of Object.entries(kernels)) {
    makeSuite(root, {
      suite,
      architecture: 'amd64',
      components: { main: [ubuntuPackage(root, release).file], universe: [] },
      signer,
      detached: suite === 'focal',
    })
  }
  const { summary, records } = await generateFrom(t, row)
  t.match(summary, { published: 2, sourcesFailed: 0 })
  t.match(
    records.map(({ release, authenticated }) => [release, authenticated]).sort(),
    Object.values(kernels).map((release) => [release, 'index']),
  )
})

t.test(
  'openSUSE Leap at its end of life is signed by an expired key, and comes from the first mirror that works',
  async (t) => {
    const root = t.testdir({})
    const { url } = await serveDirectory(t, root)
    const signer = makeSigner(t, { lapsed: true })
    const mirror = ['http://127.0.0.1:1', `${url}/gone`, `${url}/pub/opensuse`]
    const row = (version: string) =>
      rowOf('opensuse-leap', version, { mirror, keyrings: [signer.keyring] })
    const release = '4.12.14-lp151.28.91-default'
    const name = {
      name: 'kernel-default-debuginfo',
      version: '4.12.14',
      release: 'lp151.28.91.1',
    }
    const packages = [kernelRpm(root, release, row('15.1'), name)]
    const debug = join(root, 'pub/opensuse/debug')
    makeRpmRepository(join(debug, 'distribution/leap/15.1/repo/oss'), { signer })
    makeRpmRepository(join(debug, 'update/leap/15.1/oss'), { packages, signer })
    const { summary, records } = await generateFrom(t, row('15.1'))
    t.match(summary, { published: 1, failed: {}, sourcesFailed: 0 })
    t.match(records, [{ version: '15.1', release, authenticated: 'index' }])
    t.match(records[0]?.url, `${mirror[2]}/debug/update/leap/15.1/oss/Packages/`)

    for (const path of [
      'distribution/leap/15.6/repo/oss',
      'update/leap/15.6/oss',
      'update/leap/15.6/sle',
    ])
      makeRpmRepository(join(debug, path), { packages, signer })
    const current = await generateFrom(t, row('15.6'))
    t.match(current.summary, { published: 0, sourcesFailed: 3 }, 'but not a version with updates')
    t.match(current.failures, [{ failure: { code: 'expired_signature' } }])
  },
)

t.test(
  "a run for one release asks Launchpad for it only if Ubuntu's archive lacks it",
  async (t) => {
    const root = t.testdir({})
    const signer = makeSigner(t)
    const debOf = (release: string) => ubuntuPackage(root, release)
    const [kept, gone] = ['5.4.0-42-generic', '5.4.0-41-generic'] as const
    const components = { main: [debOf(kept).file], universe: [] }
    for (const suite of ['focal', 'focal-updates'])
      makeSuite(root, { suite, architecture: 'amd64', components, signer })
    const launchpad = await startLaunchpad(t, [debOf(kept), debOf(gone)])
    const versionsOf = (id: string) => ({ '20.04': SOURCES.get(id)!.versions['20.04'] })
    const archive = { mirror: `file://${root}`, keyrings: [signer.keyring], minSize: 0 }
    const sources = [
      rowOf('ubuntu', '20.04', { ...archive, versions: versionsOf('ubuntu') }),
      rowOf('ubuntu-launchpad', '20.04', { mirror: `${launchpad.url}/devel`, minSize: 0 }),
    ]
    const run = async (release: string) => {
      const runDirectory = await makeRunDirectory(t)
      const filter = { distro: 'ubuntu', version: '20.04', arch: 'x86_64', release }
      launchpad.requests.splice(0)
      const { published } = await runDirectory.run({ sources }, { filter })
      return { published, requests: launchpad.requests.length }
    }
    t.same(await run(kept), { published: 1, requests: 0 })
    t.same(await run(gone), { published: 1, requests: 3 }, 'name, file, and the package')
    t.same(await run('5.4.0-4?-generic'), { published: 1, requests: 0 }, 'not for a pattern')
  },
)
