import { createHash } from 'node:crypto'
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  baseOf,
  discover,
  type IndexTarget,
  indexTargetsOf,
  nameOfTarget,
  newestFirst,
  packageOf,
  suiteOf,
} from '../../../generator/indexes/discover.ts'
import { findMirror } from '../../../generator/sources/mirror.ts'
import {
  type AptSource,
  type KernelPackage,
  parseSource,
} from '../../../generator/sources/source.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeSigner } from '../../helpers/signer.ts'

const debian = SOURCES.get('debian') as AptSource
const label = (target: IndexTarget) => `${target.version} ${nameOfTarget(target)} ${target.arch}`

t.test('indexTargetsOf returns the targets of a source that match a filter', (t) => {
  const i686 = { distro: 'debian', version: '12', arch: 'i686' }
  const suites = ['bookworm', 'bookworm-updates', 'bookworm-backports', 'bookworm-security']
  const four = suites.map((suite) => `12 ${suite} i686`)
  t.same(indexTargetsOf(debian, i686).map(label), four)
  t.same(
    indexTargetsOf(debian, { ...i686, arch: 'i386' }).map(label),
    four,
    'by another name of the architecture',
  )
  t.same(indexTargetsOf(debian, { distro: 'ubuntu' }), [])
  t.same(indexTargetsOf(debian, { version: '99' }), [])
  t.same(indexTargetsOf(debian, { arch: 'vax' }), [])
  const all = Object.values(debian.versions).flat().length
  t.equal(indexTargetsOf(debian, {}).length, all * Object.keys(debian.architectures).length)
  t.end()
})

t.test('suiteOf returns the apt suite of a target on the mirror', async (t) => {
  const security = indexTargetsOf(debian, { version: '12', arch: 's390x' }).at(-1)!
  const mirror = await findMirror('http://host.example/debian')
  t.same(suiteOf(security, baseOf(security, mirror)), {
    base: 'http://host.example/debian-security',
    suite: 'bookworm-security',
    components: ['main'],
    architecture: 's390x',
    keyrings: debian.keyrings,
    endOfLife: false,
  })
})

t.test('discover returns the kernel packages of an index that match a filter', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'discover-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const releases = ['6.1.0-1-test', '6.1.0-2-test', '6.1.0-2-other', 'test']
  const files = releases.map((release) => makePackage(directory, undefined, { release }))
  const repository = makeRepository(directory, { packages: files, signer: makeSigner(t) })
  const [target] = indexTargetsOf(repository.source, {})
  const mirror = await findMirror(repository.url)
  const discovered = (filter: object) =>
    discover(target!, mirror, filter, { cache: join(directory, 'cache') })

  const all = await discovered({})
  t.same(all.map(({ kernel }) => kernel.release).sort(), releases.slice(0, 3).sort())
  const [one, ...others] = await discovered({ release: '6.1.0-2-t*' })
  t.same(others, [])
  const name = 'linux-image-6.1.0-2-test-dbg'
  t.same(one, {
    source: 'test',
    kernel: { distro: 'debian', version: '12', arch: 'i686', release: '6.1.0-2-test' },
    name,
    version: '6.1.9-1',
    url: `${repository.url}/pool/${name}_6.1.9-1_i386.deb`,
    size: statSync(files[1]!).size,
    checksum: {
      algorithm: 'sha256',
      hex: createHash('sha256').update(readFileSync(files[1]!)).digest('hex'),
    },
    trust: 'index',
    format: 'deb',
    rank: 0,
    role: 'debug',
    vmlinux: [
      'usr/lib/debug/boot/vmlinux-6.1.0-2-test',
      'usr/lib/debug/lib/modules/6.1.0-2-test/vmlinux',
    ],
  })
})

t.test(
  'a source with several mirrors is read from the first that works, with its packages',
  async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'mirrors-'))
    t.teardown(() => rmSync(directory, { recursive: true }))
    const packages = [makePackage(directory, undefined, { release: '6.1.0-1-test' })]
    const repository = makeRepository(directory, { packages, signer: makeSigner(t) })
    const other = makeRepository(join(directory, 'other'), { packages, signer: makeSigner(t) })
    const versions = { 12: [{ url: '{mirror}', suite: 'bookworm' }] }
    const from = async (...mirror: string[]) => {
      const source = parseSource({ ...repository.source, mirror, versions })
      const [target] = indexTargetsOf(source, {})
      return await discover(target!, () => '', {})
    }
    const [missing, good, bad] = [`file://${directory}/nowhere`, repository.url, other.url]
    t.match(await from(missing, good), [{ url: new RegExp(`^${good}/pool/`) }])
    t.match(await from(good, missing), [{ url: new RegExp(`^${good}/pool/`) }])
    await t.rejects(from(missing, `${missing}/2`), { code: 'not_found_upstream' })
    await t.rejects(from(bad, good), { code: 'invalid_signature' }, 'a mirror that lies')
    await t.rejects(from(good, good, good, good, good), {
      code: 'invalid_index',
      message: /mirror/,
    })
  },
)

t.test('a stanza with an invalid field is rejected', (t) => {
  const valid = {
    package: 'linux-image-6.12.107+deb13-amd64-dbg',
    version: '1:6.12.107-1~bpo12+1',
    filename: 'pool/main/l/linux/linux-image-6.12.107+deb13-amd64-dbg_6.12.107-1_amd64.deb',
    size: '1000',
    sha256: 'a'.repeat(64),
  }
  const read = (fields: object) =>
    packageOf(new Map(Object.entries({ ...valid, ...fields })), 'http://host.example/debian')
  t.equal(
    read({}).url,
    `http://host.example/debian/${valid.filename.replaceAll('+', '%2B')}`,
    'each part of the path is escaped',
  )
  for (const fields of [
    { filename: '../../etc/passwd' },
    { filename: 'pool/../../../etc/passwd' },
    { filename: '/etc/passwd' },
    { filename: 'pool/a b.deb' },
    { filename: 'pool/a.deb?x#y' },
    { filename: '' },
    { package: '../linux' },
    { package: '' },
    { version: '1 2' },
    { version: '1\n2' },
    { version: '' },
    { size: '-1' },
    { size: '1e3' },
    { size: '9'.repeat(20) },
    { sha256: 'a'.repeat(63) },
    { sha256: 'A'.repeat(64) },
    { sha256: `${'a'.repeat(64)}\n` },
  ]) {
    t.throws(() => read(fields), { code: 'invalid_index' }, JSON.stringify(fields))
  }
  t.end()
})

t.test(
  'an unchanged index is parsed once for all filters, and again if the result is damaged',
  async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'discover-'))
    t.teardown(() => rmSync(directory, { recursive: true }))
    const releases = ['6.1.0-1-test', '6.1.0-2-test']
    const files = releases.map((release) => makePackage(directory, undefined, { release }))
    const repository = makeRepository(directory, { packages: files, signer: makeSigner(t) })
    const [target] = indexTargetsOf(repository.source, {})
    const mirror = await findMirror(repository.url)
    const cache = join(directory, 'cache')
    const found = async (release: string) => {
      const packages = await discover(target!, mirror, { release }, { cache })
      return packages.map(({ kernel }) => kernel.release)
    }
    t.same(await found(releases[0]!), [releases[0]])
    rmSync(repository.path('main'), { recursive: true })
    const parsed = readdirSync(cache).filter((name) => name.endsWith('.json'))
    for (const name of readdirSync(cache)) if (!parsed.includes(name)) rmSync(join(cache, name))
    t.same((await found('*')).sort(), releases, 'without the index, from what was parsed')
    t.equal(parsed.length, 1)
    const path = join(cache, parsed[0]!)
    const text = readFileSync(path, 'utf8')
    writeFileSync(path, text.replaceAll('6.1.0-2-test', '6.1.0-3-test'))
    await t.rejects(found('*'), { code: 'not_found_upstream' })
    writeFileSync(path, text)
    chmodSync(path, 0o666)
    await t.rejects(found('*'), { code: 'not_found_upstream' }, 'anybody could have written it')
  },
)

t.test('newestFirst sorts packages and lists a package of several suites once', (t) => {
  const kernelPackage = (release: string, version: string, source = 'debian'): KernelPackage => ({
    source,
    kernel: { distro: 'debian', version: '12', arch: 'i686', release },
    name: `linux-image-${release}-dbg`,
    version,
    url: `http://host.example/${source}/${release}.deb`,
    size: 1,
    checksum: { algorithm: 'sha256', hex: 'a'.repeat(64) },
    trust: 'index',
    format: 'deb',
    vmlinux: [],
    role: 'debug',
  })
  const sorted = newestFirst([
    kernelPackage('6.1.0-50-686', '6.1.190-1~bpo11+1'),
    kernelPackage('6.1.0-3-686', '6.1.195-1'),
    kernelPackage('6.1.0-9-686', '6.1.90-1'),
    kernelPackage('6.1.0-50-686', '6.1.190-1'),
    kernelPackage('6.1.0-10-686', '6.1.90-1'),
    kernelPackage('6.1.0-50-686', '6.1.190-1', 'security'),
  ])
  t.same(
    sorted.map(({ kernel, version }) => `${kernel.release} ${version}`),
    [
      '6.1.0-3-686 6.1.195-1',
      '6.1.0-50-686 6.1.190-1',
      '6.1.0-50-686 6.1.190-1~bpo11+1',
      '6.1.0-10-686 6.1.90-1',
      '6.1.0-9-686 6.1.90-1',
    ],
  )
  t.end()
})
