// Tests the rules for names of distributions: from os-release's name to the one that the catalog uses.
import t from 'tap'
import { namesOf, versionIdsOf } from '../../storage/index.ts'

const named = (distro: string, version: string): string[] =>
  namesOf({ distro, version, arch: 'x86_64', release: 'r' }).map(
    (name) => `${name.distro}/${name.version}`,
  )

t.test('namesOf returns one name if no rule applies', async (t) => {
  for (const name of [
    'debian/12',
    'ubuntu/20.04',
    'sles/15.4',
    'opensuse-leap/15.3',
    'arch/rolling',
    'mine/1.2.3',
  ])
    t.same(named(...(name.split('/') as [string, string])), [name])
})

t.test('namesOf returns the given name first, then the name by the rule', async (t) => {
  const rules = {
    'rhel/7.9': 'rhel/7',
    'ol/8.9': 'ol/8',
    'amzn/2018.03': 'amzn/2018',
    'amzn/2017.09': 'amzn/2018',
    'centos/7.9.2009': 'centos/7',
    'almalinux/8.4': 'almalinux/8',
    'rocky/9.1': 'rocky/9',
    'debian/9.13': 'debian/9',
    'oracle/7.9': 'ol/7',
    'amazon/2': 'amzn/2',
    'redhat/8': 'rhel/8',
    'suse/15.4': 'sles/15.4',
    'alinux/2.1903': 'alinux/2',
    'anolis/8.8': 'anolis/8',
    'openEuler/22.03': 'openeuler/22.03',
    'Ubuntu/18.04': 'ubuntu/18.04',
    '"centos"/"7"': 'centos/7',
    "'ol'/'8.9'": 'ol/8',
    'fedora/""': 'fedora/rolling',
    'amzn/2017.03': 'amzn/2018',
    'rhel/8.6': 'rhel/8',
    'sles/15': 'sles/15.0',
    'sles/12': 'sles/12.0',
    'sles_sap/12.1.0.1': 'sles/12.1',
    'debian/forky': 'debian/sid',
    'debian/testing': 'debian/sid',
    'debian/trixie': 'debian/13',
    'ubuntu/focal': 'ubuntu/20.04',
    'arch/20240101.0.204074': 'arch/rolling',
    'opensuse-tumbleweed/20240823': 'opensuse-tumbleweed/rolling',
    'kali/2025.4': 'kali/rolling',
  }
  for (const [given, kept] of Object.entries(rules))
    t.same(named(...(given.split('/') as [string, string])), [given, kept], given)
})

t.test('every VERSION_ID of a stored version leads back to it', async (t) => {
  for (const name of 'rhel/7 rhel/8 ol/7 ol/8 almalinux/9 rocky/9 amzn/2 amzn/2018 alinux/2 anolis/8 centos/7 debian/12 sles/15.6'.split(
    ' ',
  )) {
    const [distro, version] = name.split('/') as [string, string]
    const ids = versionIdsOf({ distro, version })!
    t.ok(ids.length > 0, name)
    for (const id of ids) t.equal(named(distro, id).at(-1), name, id)
  }
  t.same(versionIdsOf({ distro: 'sles', version: '15.0' }), ['15'], 'the first release has no .0')
  t.equal(versionIdsOf({ distro: 'rhel', version: '99' }), undefined, 'not known')
  t.same(versionIdsOf({ distro: 'rhel', version: '8.6' }), ['8.6'], 'a VERSION_ID already')
})
