import t from 'tap'
import { namingOf } from '../../../generator/sources/naming.ts'
import { type AptSource, parseSource } from '../../../generator/sources/source.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { canonicalArch, namesOf } from '../../../storage/index.ts'

const debian = SOURCES.get('debian') as AptSource
const ANY = { arch: 'x86_64', release: 'any' }

t.test('every row of the source table is valid, and its rules name kernels only', (t) => {
  for (const [id, source] of SOURCES) {
    t.equal(source.id, id)
    t.same(parseSource(source), source)
    for (const arch of Object.keys(source.architectures)) t.equal(canonicalArch(arch), arch)
    t.ok(source.vmlinux.every((path) => path.includes('{release}')))
    for (const version of Object.keys(source.versions))
      t.equal(
        namesOf({ ...ANY, distro: source.distro, version }).length,
        1,
        'the version is spelled as in the catalog',
      )
  }
  const naming = namingOf(debian.packages)
  t.equal(naming({ name: 'linux-image-6.1.0-50-686-pae-dbg' })?.release, '6.1.0-50-686-pae')
  for (const flavour of ['amd64', '686', '686-pae', '4kc-malta', 'rt-686-pae'])
    t.notOk(naming({ name: `linux-image-${flavour}-dbg` }), 'a metapackage')
  t.notOk(naming({ name: 'linux-image-6.1.0-50-686-pae' }), 'a package without debug info')
  const image = namingOf(debian.images!)
  const kernels = {
    'linux-image-6.1.0-50-rt-amd64': [3, '6.1.0-50-rt-amd64'],
    'linux-binary-7.3.4+deb13-cloud-amd64': [1, '7.3.4+deb13-cloud-amd64'],
    'linux-image-6.1.0-50-amd64-unsigned': [4, '6.1.0-50-amd64'],
  }
  for (const [name, [rank, release]] of Object.entries(kernels))
    t.same(image({ name }), { rank, release }, name)
  for (const name of ['linux-image-amd64', 'linux-image-6.1.0-50-amd64-dbg'])
    t.notOk(image({ name }), name)
  t.end()
})

t.test('an invalid source is rejected, and the message names the field at fault', (t) => {
  const { keyrings: _, ...unsigned } = debian
  for (const [what, value, message] of [
    ['undefined', undefined, /./],
    ['a string', 'debian', /./],
    ['no keyring', unsigned, /keyring/],
    ['a keyring with a relative path', { ...debian, keyrings: ['keys.gpg'] }, /keyring/],
    ['an unknown protocol', { ...debian, protocol: 'ftp' }, /protocol/],
    [
      'a protocol with the name of a property of all objects',
      { ...debian, protocol: 'toString' },
      /protocol/,
    ],
    ['an id that is a path', { ...debian, id: '../debian' }, /id/],
    ['a version without suites', { ...debian, versions: { 12: [] } }, /versions/],
    [
      'a suite that is a path',
      { ...debian, versions: { 12: [{ url: 'debian', suite: '../../etc' }] } },
      /suite/,
    ],
    ['no path of vmlinux', { ...debian, vmlinux: [] }, /vmlinux/],
    ['images without vmlinuz', { ...debian, vmlinuz: undefined }, /vmlinuz/],
    ['no rule', { ...debian, packages: [], devel: undefined }, /packages/],
    [
      'an invalid expression',
      { ...debian, packages: [{ name: '(', release: 'x' }] },
      /regular expression/,
    ],
  ] as const) {
    t.throws(() => parseSource(value), { code: 'invalid_index', message }, what)
  }
  t.end()
})
