// What a worker believes of a job from the queue, and which URLs get the credentials of a source.
import t from 'tap'
import { accessTo, believed } from '../../../generator/jobs/belonging.ts'
import type { Job } from '../../../generator/jobs/job.ts'
import { withKeys } from '../../../generator/sources/keys.ts'
import { findMirror } from '../../../generator/sources/mirror.ts'
import type { Source } from '../../../generator/sources/source.ts'
import { ALL_SOURCES, SOURCES } from '../../../generator/sources/sources.ts'

const SLES = SOURCES.get('sles')!
const BELOW =
  'https://updates.suse.com/SUSE/Updates/SLE-Module-Basesystem/15-SP6/x86_64/update_debug/x86_64/k.rpm'
const mirror = await findMirror('http://mirror.example/debian')

t.test('credentials go only to URLs below the repositories of their source', (t) => {
  t.match(accessTo(SLES, BELOW), SLES.access)
  const mirrors = { ...SLES, mirror: ['https://a.example/SUSE', 'https://updates.suse.com/SUSE'] }
  t.match(accessTo(mirrors, BELOW), SLES.access, 'on any of its mirrors')
  for (const url of [
    'https://attacker.example/SUSE/Updates/k.rpm',
    BELOW.replace('updates.suse.com', 'updates.suse.com.attacker.example'),
    BELOW.replace('https://', 'https://updates.suse.com@attacker.example/'),
    BELOW.replace('/update_debug/', '/update_debug/../../../../../../elsewhere/'),
    BELOW.replace('/update_debug/', '/update_debug/%2e%2e/elsewhere/'),
    BELOW.replace('/update_debug/', '/update_debug-of-another/'),
    BELOW.replace('https:', 'http:'),
    'not a URL',
  ])
    t.equal(accessTo(SLES, url), undefined, url)
  t.equal(accessTo(undefined, BELOW), undefined)
  t.end()
})

/** A job for a Debian kernel whose index is signed. */
function jobWith(changes: Partial<Job>, url = 'http://mirror.example/debian/pool/l.deb'): Job {
  return {
    kernel: { distro: 'debian', version: '12', arch: 'x86_64', release: '6.1.0-9-amd64' },
    package: { name: 'linux-image-6.1.0-9-amd64-dbg', version: '6.1.27-1', url },
    checksum: { algorithm: 'sha256', hex: '0'.repeat(64) },
    trust: 'index',
    source: 'debian',
    format: 'deb',
    vmlinux: ['vmlinux'],
    ...changes,
  }
}

const trustIn = (job: Job) => believed(job, ALL_SOURCES, mirror).trust

t.test('a worker believes the trust of a job only below a repository of its source', (t) => {
  t.equal(trustIn(jobWith({})), 'index')
  t.equal(trustIn(jobWith({ trust: 'none' })), 'none')
  const kernel = { version: '12', arch: 'x86_64', release: '6.1' }
  for (const [what, job] of Object.entries({
    'another host': jobWith({}, 'https://attacker.example/debian/pool/l.deb'),
    'another directory': jobWith({}, 'http://mirror.example/debian-of-mine/l.deb'),
    'an unknown source': jobWith({ source: 'unknown' }),
    'no source': { ...jobWith({}), source: undefined } as unknown as Job,
    'a kernel of another distribution': jobWith({ kernel: { ...kernel, distro: 'sles' } }),
    'an unknown version': jobWith({ kernel: { ...kernel, distro: 'debian', version: '999' } }),
  }))
    t.equal(trustIn(job), 'none', what)
  const stream = {
    distro: 'centos',
    version: '9',
    arch: 'x86_64',
    release: '5.14.0-474.el9.x86_64',
  }
  const mirrors = ['https://one.example/centos', 'https://two.example/centos']
  const centos: Source = { ...SOURCES.get('centos-stream')!, mirror: mirrors }
  for (const mirror of mirrors) {
    const url = `${mirror}/9-stream/BaseOS/x86_64/debug/tree/Packages/k.rpm`
    const job = jobWith({ kernel: stream, source: 'centos-stream', trust: 'digest' }, url)
    const { trust } = believed(job, [centos], () => '')
    t.equal(trust, 'digest', 'below any of the mirrors')
  }
  const far = jobWith({}, 'https://attacker.example/l.deb')
  t.equal(
    believed(jobWith({ fallbacks: [far] }), ALL_SOURCES, mirror).fallbacks?.[0]?.trust,
    'none',
  )
  t.end()
})

t.test('a worker uses only those keys of a job that are keyrings of its source', (t) => {
  const [own] = 'keyrings' in SLES ? SLES.keyrings! : []
  const kernel = { distro: 'sles', version: '15.6', arch: 'x86_64', release: '6.4' }
  const job = jobWith({ kernel, source: 'sles', keys: ['/home/attacker/key.gpg', own!] }, BELOW)
  t.same(believed(job, ALL_SOURCES, mirror).keys, [own])
  t.equal(trustIn(job), 'index')
  const strange = { ...job, keys: ['/home/attacker/key.gpg'] }
  t.notOk('keys' in believed(strange, ALL_SOURCES, mirror))
  const name = `${'fingerprints' in SLES && SLES.fingerprints![0]}.pgp`
  const sources = [withKeys(SLES, { paths: ['/keys/of/worker'], only: true })]
  const fetched = { ...job, keys: [`/keys/of/planner/${name}`] }
  t.same(believed(fetched, sources, mirror).keys, [`/keys/of/worker/${name}`])
  t.end()
})
