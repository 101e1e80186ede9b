import t from 'tap'
import { namesOfRelease, namingOf } from '../../../generator/sources/naming.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'

t.test(
  'a rule builds the release from parts of name and version, and the first match wins',
  (t) => {
    const naming = namingOf([
      { name: 'linux-image-unsigned-(?<uname>[0-9].*)-dbgsym', release: '{uname}' },
      { name: 'linux-image-(?<uname>[0-9].*)-dbgsym', release: '{uname}' },
      {
        name: 'kernel-(?<flavour>[^-]+)-debuginfo',
        except: 'kernel-(debug|rt)-.*',
        revision: '(?<build>.*)[.][0-9]+',
        release: '{version}-{build}-{flavour}',
      },
      { name: 'kernel-debuginfo', release: '{version}-{revision}.{arch}' },
    ])
    const release = '5.4.0-42-generic'
    t.same(naming({ name: `linux-image-unsigned-${release}-dbgsym` }), { release, rank: 0 })
    t.same(naming({ name: `linux-image-${release}-dbgsym` }), { release, rank: 1 })
    t.equal(naming({ name: 'linux-image-generic-dbgsym' }), undefined)
    t.equal(
      naming({ name: `x-linux-image-${release}-dbgsym` }),
      undefined,
      'a rule matches the whole name',
    )

    const rpm = { version: '5.3.18', revision: '24.52.1', arch: 'x86_64' }
    const suse = naming({ name: 'kernel-default-debuginfo', ...rpm })
    t.same(suse, { release: '5.3.18-24.52-default', rank: 2 })
    t.equal(naming({ name: 'kernel-debug-debuginfo', ...rpm }), undefined)
    const odd = { name: 'kernel-default-debuginfo', ...rpm, revision: '24' }
    t.equal(naming(odd), undefined, 'the revision does not match the rule')
    const fedora = naming({ name: 'kernel-debuginfo', ...rpm, revision: '200.fc29' })
    t.same(fedora, { release: '5.3.18-200.fc29.x86_64', rank: 3 })
    t.equal(naming({ name: 'kernel-debuginfo' }), undefined, 'a part of the template is missing')
    t.end()
  },
)

t.test('a rule can set a machine that differs from the architecture of the package', async (t) => {
  const naming = namingOf(SOURCES.get('debian')!.packages)
  const release = '6.1.0-50-loongson-3'
  t.match(naming({ name: `linux-image-${release}-dbg` }), { release, machine: 'mips64' })
  t.equal(naming({ name: 'linux-image-6.1.0-50-4kc-malta-dbg' })?.machine, undefined)
})

t.test('the names of a release follow from the rules whose names tell it alone', async (t) => {
  const { packages } = SOURCES.get('ubuntu-launchpad')!
  t.same(namesOfRelease(packages, '5.4.0-42-generic'), [
    'linux-image-unsigned-5.4.0-42-generic-dbgsym',
    'linux-image-5.4.0-42-generic-dbgsym',
  ])
  t.same(namesOfRelease(packages, 'generic'), [], 'not the release of a kernel')
  const alma = SOURCES.get('alma')!.packages
  t.equal(namesOfRelease(alma, '5.14.0-1.el9.x86_64'), undefined, 'the version is not in the name')
  const { packages: debug, images = [] } = SOURCES.get('debian-snapshot')!
  t.same(namesOfRelease(debug, '6.1.0-9-amd64'), ['linux-image-6.1.0-9-amd64-dbg'])
  t.same(namesOfRelease(images, '6.1.0-9-amd64'), [
    'linux-binary-6.1.0-9-amd64',
    'linux-image-6.1.0-9-amd64',
    'linux-binary-6.1.0-9-amd64-unsigned',
    'linux-image-6.1.0-9-amd64-unsigned',
  ])
  t.same(namesOfRelease(debug, '6.1-amd64'), [], 'that of a metapackage')
  t.equal(
    namesOfRelease([{ name: 'linux-image-(?<uname>[0-9].*)-d.*', release: '{uname}' }], '6.1.0-9'),
    undefined,
    'many names',
  )
})

t.test('an invalid regular expression is rejected', async (t) => {
  t.throws(() => namingOf([{ name: '[', release: 'x' }]), { code: 'invalid_index' })
})
