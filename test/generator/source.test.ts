import t from 'tap'
import { parseSource } from '../../generator/source.ts'
import { SOURCES } from '../../generator/sources.ts'
import { canonicalArch } from '../../storage/index.ts'

const debian = SOURCES.get('debian')!

t.test('the sources that btfmill knows', (t) => {
  for (const [id, source] of SOURCES) {
    t.equal(source.id, id)
    t.same(parseSource(source), source)
    for (const arch of Object.keys(source.architectures)) t.equal(canonicalArch(arch), arch)
    const pattern = new RegExp(source.packages)
    t.ok(source.vmlinux.every((path) => path.includes('{release}')))
    t.equal(pattern.exec('linux-image-6.1.0-50-686-pae-dbg')?.[1], '6.1.0-50-686-pae')
    for (const flavour of ['amd64', '686', '686-pae', '4kc-malta', 'rt-686-pae'])
      t.notMatch(`linux-image-${flavour}-dbg`, pattern, 'a metapackage')
    t.notMatch('linux-image-6.1.0-50-686-pae', pattern, 'without debug info')
  }
  t.end()
})

t.test('what is not a source is refused, with where it is wrong', (t) => {
  const { keyring: _, ...unsigned } = debian
  for (const [what, value, message] of [
    ['nothing', undefined, /./],
    ['no object', 'debian', /./],
    ['no keyring', unsigned, /keyring/],
    ['a keyring somewhere', { ...debian, keyring: 'keys.gpg' }, /keyring/],
    ['another protocol', { ...debian, protocol: 'ftp' }, /protocol/],
    ['an id that climbs', { ...debian, id: '../debian' }, /id/],
    ['no suite', { ...debian, versions: { 12: [] } }, /versions/],
    [
      'a suite that climbs',
      { ...debian, versions: { 12: [{ repository: 'debian', suite: '../../etc' }] } },
      /suite/,
    ],
    ['no path', { ...debian, vmlinux: [] }, /vmlinux/],
  ] as const) {
    t.throws(() => parseSource(value), { code: 'bad_index', message }, what)
  }
  t.end()
})
