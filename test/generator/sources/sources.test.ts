// The source table, and a user's file that changes it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { basesOf, indexTargetsOf, nameOfTarget } from '../../../generator/indexes/discover.ts'
import { namingOf } from '../../../generator/sources/naming.ts'
import { keyringsOf, PACKAGE_ROLES, type RpmMdSource } from '../../../generator/sources/source.ts'
import { readSources, SOURCES, sourcesFor } from '../../../generator/sources/sources.ts'
import { sourceResultKey } from '../../../storage/index.ts'

t.test('the table has a row for every supported distribution', (t) => {
  const distros = new Set([...SOURCES.values()].map(({ distro }) => distro))
  const wanted = ['debian', 'ubuntu', 'centos', 'rhel', 'almalinux', 'rocky', 'fedora', 'ol']
  const more = ['amzn', 'sles', 'opensuse-leap', 'alinux', 'anolis', 'openeuler', 'kylin', 'hce']
  const others = ['tencentos', 'photon', 'azurelinux', 'mariner', 'elrepo', 'custom']
  t.same([...distros].sort(), [...wanted, ...more, ...others].sort())
  t.end()
})

t.test('every repository of the table has a complete URL and a unique name', (t) => {
  const mirror = (repository: string) => `http://mirror.example/${repository}`
  const keys = new Set<string>()
  let count = 0
  for (const source of SOURCES.values()) {
    for (const target of indexTargetsOf(source, {}, PACKAGE_ROLES)) {
      for (const url of basesOf(target, mirror))
        if (!/^https?:$/.test(new URL(url).protocol) || /[{}]|undefined|\/$/.test(url)) t.fail(url)
      keys.add(sourceResultKey(source.id, `${nameOfTarget(target)}-${target.arch}`))
      count++
    }
    for (const version of Object.keys(source.versions))
      for (const path of keyringsOf(source, version)) t.notMatch(path, /[{}]/)
  }
  t.equal(keys.size, count)
  t.end()
})

t.test('the rules of each distribution build the release that its kernels report', (t) => {
  const read = (id: string, name: string, of: object = {}) =>
    namingOf(SOURCES.get(id)!.packages)({ name, ...of })?.release
  const rpm = (version: string, revision: string, arch = 'x86_64') => ({ version, revision, arch })
  const named: readonly (readonly [string, string, object, string])[] = [
    ['ubuntu', 'linux-image-unsigned-5.4.0-42-generic-dbgsym', {}, '5.4.0-42-generic'],
    ['ubuntu', 'linux-image-4.4.0-98-lowlatency-dbgsym', {}, '4.4.0-98-lowlatency'],
    ['ubuntu-launchpad', 'linux-image-unsigned-5.11.0-1028-aws-dbgsym', {}, '5.11.0-1028-aws'],
    ['ubuntu', 'linux-image-unsigned-4.15.0-2097-aws-fips-dbgsym', {}, '4.15.0-2097-aws-fips'],
    ['ubuntu', 'linux-image-unsigned-5.4.0-1087-gke-dbgsym', {}, '5.4.0-1087-gke'],
    ['debian-archive', 'linux-image-4.9.0-8-amd64-dbg', {}, '4.9.0-8-amd64'],
    ['debian-snapshot', 'linux-image-4.19.0-0.bpo.5-amd64-dbg', {}, '4.19.0-0.bpo.5-amd64'],
    ['centos', 'kernel-debuginfo', rpm('3.10.0', '957.el7'), '3.10.0-957.el7.x86_64'],
    ['rhel', 'kernel-debuginfo', rpm('4.18.0', '80.el8', 'aarch64'), '4.18.0-80.el8.aarch64'],
    [
      'ol',
      'kernel-uek-debuginfo',
      rpm('4.14.35', '1818.3.3.el7uek'),
      '4.14.35-1818.3.3.el7uek.x86_64',
    ],
    ['ol', 'kernel-debuginfo', rpm('3.10.0', '957.el7'), '3.10.0-957.el7.x86_64'],
    ['amzn', 'kernel-debuginfo', rpm('4.14.225', '168.357.amzn2'), '4.14.225-168.357.amzn2.x86_64'],
    ['amzn', 'kernel6.12-debuginfo', rpm('6.12.8', '1.amzn2023'), '6.12.8-1.amzn2023.x86_64'],
    ['sles', 'kernel-default-debuginfo', rpm('5.3.18', '24.52.1'), '5.3.18-24.52-default'],
    ['amzn', 'kernel-debuginfo', rpm('4.14.33', '51.37.amzn1'), '4.14.33-51.37.amzn1.x86_64'],
    ['sles', 'kernel-azure-debuginfo', rpm('4.12.14', '16.80.1'), '4.12.14-16.80-azure'],
    [
      'sles',
      'kernel-default-debuginfo',
      rpm('5.14.21', '150400.24.18.1'),
      '5.14.21-150400.24.18-default',
    ],
    ['sles', 'kernel-rt-debuginfo', rpm('5.3.18', '150300.21.1'), '5.3.18-150300.21-rt'],
    [
      'opensuse-leap',
      'kernel-default-debuginfo',
      rpm('4.12.14', 'lp150.12.82.1'),
      '4.12.14-lp150.12.82-default',
    ],
    ['alinux', 'kernel-debuginfo', rpm('4.19.91', '26.al7'), '4.19.91-26.al7.x86_64'],
    [
      'openeuler',
      'kernel-debuginfo',
      rpm('5.10.0', '60.18.0.50.oe2203'),
      '5.10.0-60.18.0.50.oe2203.x86_64',
    ],
  ]
  for (const [id, name, of, release] of named) t.equal(read(id, name, of), release, `${id} ${name}`)

  const el7 = rpm('3.10.0', '957.el7')
  const leap = rpm('5.3.18', 'lp152.106.1')
  for (const [id, name, of] of [
    ['ubuntu', 'linux-image-generic-dbgsym', {}],
    ['ubuntu', 'linux-image-unsigned-5.4.0-42-generic', {}],
    ['ubuntu', 'linux-headers-5.4.0-42-generic-dbgsym', {}],
    ['debian-archive', 'linux-image-amd64-dbg', {}],
    ['centos', 'kernel-debug-debuginfo', el7],
    ['centos', 'kernel-debuginfo-common-x86_64', el7],
    ['centos', 'kernel-tools-debuginfo', el7],
    ['ol', 'kernel-uek-debug-debuginfo', el7],
    ['ol', 'kernel-uek-debuginfo-common', el7],
    ['amzn', 'kernel-tools-debuginfo', el7],
    ['sles', 'kernel-preempt-debuginfo', leap],
    ['sles', 'kernel-default-debugsource', leap],
    ['sles', 'kernel-default-base-debuginfo', leap],
    ...['preempt', 'debug', 'vanilla', 'rt', 'rt_debug'].map(
      (flavour) => ['opensuse-leap', `kernel-${flavour}-debuginfo`, leap] as const,
    ),
  ] as const)
    t.equal(read(id, name, of), undefined, `${id} ${name}`)
  t.end()
})

t.test(
  'a run reads the default sources, and opt-in ones only for versions that no other has',
  (t) => {
    const ids = (filter: object, source?: string) =>
      sourcesFor(filter, undefined, source).map(({ id }) => id)
    const defaults = ids({})
    for (const id of ['debian', 'ubuntu', 'centos', 'alma', 'opensuse-leap'])
      t.ok(defaults.includes(id))
    for (const id of ['debian-archive', 'debian-snapshot', 'raspberrypi', 'ubuntu-launchpad'])
      t.notOk(defaults.includes(id), id)
    for (const id of ['rhel', 'sles']) t.notOk(defaults.includes(id), id)
    t.same(ids({ distro: 'debian' }), defaults)
    t.same(ids({ distro: 'debian', version: '12' }), defaults, 'a default source has this version')
    const more = (filter: object) => ids(filter).filter((id) => !defaults.includes(id))
    t.same(more({ distro: 'debian', version: '10' }), ['debian-archive', 'debian-snapshot'])
    t.same(more({ distro: 'rhel', version: '8' }), ['rhel'])
    t.same(more({ distro: 'sles', version: '15.3' }), ['sles'])
    t.same(more({ distro: 'rhel', version: '99' }), [])
    t.same(ids({}, 'ubuntu-launchpad'), ['ubuntu-launchpad'], 'an opt-in source that is named')
    t.end()
  },
)

t.test("a user's file overrides and adds rows, and an invalid file is rejected", async (t) => {
  const directory = t.testdir({})
  const file = join(directory, 'sources.json')
  const { id: _, ...alma } = SOURCES.get('alma') as RpmMdSource
  const own = { ...alma, id: 'own', distro: 'own', versions: { 1: alma.versions[8]! } }
  const access = {
    certificate: '/etc/pki/entitlement/1.pem',
    key: '/etc/pki/entitlement/1-key.pem',
  }
  writeFileSync(
    file,
    JSON.stringify([{ id: 'rhel', access }, { id: 'alma', mirror: 'http://m.example' }, own]),
  )
  const sources = await readSources(file)
  t.same(sources.get('rhel'), { ...SOURCES.get('rhel'), access })
  t.equal(sources.get('alma')?.mirror, 'http://m.example')
  t.same(sources.get('own'), own)
  t.equal(sources.size, SOURCES.size + 1)
  t.equal(await readSources(), SOURCES)

  for (const [what, text, message] of [
    ['not JSON', 'alma:', /JSON/],
    ['an object', '{}', /expected a JSON array/],
    ['a row without an id', '[{}]', /protocol/],
    ['null', '[null]', /protocol/],
    ['a row with an invalid mirror', '[{"id": "alma", "mirror": "ftp://host.example"}]', /mirror/],
    [
      'a row with an invalid expression',
      '[{"id": "alma", "packages": [{"name": "(", "release": "x"}]}]',
      /regular expression/,
    ],
    ['a keyring with a relative path', '[{"id": "alma", "keyrings": ["key"]}]', /keyrings/],
  ] as const) {
    writeFileSync(file, text)
    await t.rejects(readSources(file), { code: 'invalid_index', message }, what)
  }
  await t.rejects(readSources(join(directory, 'missing')), { code: 'invalid_index' })
})

t.test('every source with fingerprints has addresses of its keys, which need TLS', async (t) => {
  for (const source of SOURCES.values()) {
    const { fingerprints, keyUrls = [] } = {
      keyUrls: undefined,
      fingerprints: undefined,
      ...source,
    }
    t.equal(keyUrls.length > 0, fingerprints !== undefined, source.id)
    t.equal(new Set(keyUrls).size, keyUrls.length, source.id)
    for (const url of keyUrls) t.match(url, /^https:\/\/[^\s{}]+$/)
  }
})
