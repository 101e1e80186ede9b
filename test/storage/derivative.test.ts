// Tests whose kernels a distribution may run, and under which name a kernel is counted.
import t from 'tap'
import {
  countedNameOf,
  distributionIn,
  type KernelHints,
  mayRebuild,
  parentsOf,
} from '../../storage/index.ts'

const named = (name: string, release = 'r') => {
  const [distro, version] = name.split('/') as [string, string]
  return { distro, version, arch: 'x86_64', release }
}

const parents = (name: string, hints: KernelHints = {}, release?: string): string =>
  parentsOf(named(name, release), hints)
    .map(({ distro, version = '*' }) => `${distro}/${version}`)
    .join(' ')

t.test('the table knows the parents of derivatives without any hint', async (t) => {
  const known = {
    'linuxmint/20.3': 'ubuntu/20.04',
    'linuxmint/6': 'debian/12',
    'elementary/5.0': 'ubuntu/18.04',
    'elementary/0.4.1': 'ubuntu/16.04',
    'zorin/17.3': 'ubuntu/22.04',
    'neon/24.04': 'ubuntu/24.04',
    'pop/22.04': 'ubuntu/22.04',
    'ubuntu-core/20': 'ubuntu/20.04',
    'raspbian/12': 'debian/12',
    'kali/2025.4': 'debian/*',
    'devuan/5': 'debian/12',
    'sled/15': 'sles/15.0',
    'sle_hpc/15.3': 'sles/15.3',
    'sle-micro/5.5': 'sles/15.5',
    'sl-micro/6.0': 'sles/*',
    'scientific/7.5': 'rhel/7 centos/7',
    'cloudlinux/8.10': 'almalinux/8 rhel/8 centos/8',
    'debian/forky': 'debian/*',
  }
  for (const [name, expected] of Object.entries(known)) t.equal(parents(name), expected, name)
  t.equal(parents('rhcos/4.13', {}, '5.14.0-284.36.1.el9_2.x86_64'), 'rhel/9')
})

t.test('a codename tells the version of a parent that the table does not know', async (t) => {
  t.equal(parents('linuxmint/99', { codename: 'resolute' }), 'ubuntu/26.04 debian/*')
  t.equal(
    parents('tuxedo/22.04', { like: 'ubuntu debian', codename: 'jammy' }),
    'ubuntu/22.04 debian/*',
  )
  t.equal(parents('pika/4', { like: 'debian', codename: 'sid' }), 'debian/sid')
})

t.test('ID_LIKE names the parents of a distribution that the table does not know', async (t) => {
  t.equal(
    parents('bazzite/40', { like: 'rhel centos fedora bluefin' }, '6.9.12-1.fc40.x86_64'),
    'rhel/* centos/* fedora/40',
  )
  t.equal(
    parents('eurolinux/9.2', { like: 'rhel fedora' }, '5.14.0-1.el9_2.x86_64'),
    'rhel/9 fedora/*',
  )
  t.equal(parents('x/1', { like: 'mine suse  SUSE "ubuntu"' }), 'sles/* ubuntu/*')
  t.equal(parents('x/1', { like: 'any __proto__ constructor', codename: '__proto__' }), '')
  t.equal(
    parents('x/1', { like: 'rhel centos fedora debian ubuntu sles arch amzn ol' }).split(' ')
      .length,
    6,
  )
})

t.test('no hint gives a parent to a distribution that builds all of its kernels', async (t) => {
  t.equal(parents('almalinux/8.6', { like: 'rhel centos fedora' }), '')
  t.equal(parents('amzn/2', { like: 'centos rhel fedora' }), '')
  t.equal(parents('ubuntu/20.04', { like: 'debian', codename: 'focal' }), '')
  t.equal(parents('ubuntu/18.04', { like: 'debian', codename: 'focal' }), '')
})

t.test(
  'a kernel is counted under a parent only if the derivative has no other kernels',
  async (t) => {
    const counted = {
      'linuxmint/20.3': 'ubuntu/20.04',
      'sled/15.5': 'sles/15.5',
      'ubuntu-core/22': 'ubuntu/22.04',
      'pop/22.04': 'pop/22.04',
      'raspbian/12': 'raspbian/12',
      'cloudlinux/8.10': 'cloudlinux/8',
      'tuxedo/22.04': 'tuxedo/22.04',
      'debian/forky': 'debian/sid',
      'rhel/8.6': 'rhel/8',
      'any/any': 'any/any',
    }
    const hints = { like: 'ubuntu debian', codename: 'jammy' }
    for (const [name, expected] of Object.entries(counted)) {
      const { distro, version } = countedNameOf(named(name), hints)
      t.equal(`${distro}/${version}`, expected, name)
    }
  },
)

t.test('rebuilds of the same sources share their releases', async (t) => {
  t.ok(mayRebuild('rhel', 'almalinux'))
  t.ok(mayRebuild('ubuntu', 'ubuntu'))
  t.notOk(mayRebuild('debian', 'ubuntu'))
})

t.test('a release tells its distribution, or none', async (t) => {
  const told = {
    '4.19.91-26.an8.x86_64': 'anolis/8',
    '5.10.134-13.al8.x86_64': 'alinux/3',
    '4.14.355-280.652.amzn2.x86_64': 'amzn/2',
    '4.14.26-46.32.amzn1.x86_64': 'amzn/2018',
    '5.4.8-200.fc31.x86_64': 'fedora/31',
    '4.14.35-1902.el7uek.x86_64': 'ol/7',
    '4.18.0-305.el8_4.x86_64': 'centos/8',
    '5.4.0-91-generic': 'linux/rolling',
  }
  for (const [release, expected] of Object.entries(told)) {
    const { distro, version } = distributionIn(release)
    t.equal(`${distro}/${version}`, expected, release)
  }
})
