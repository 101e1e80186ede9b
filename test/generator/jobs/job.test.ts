import t from 'tap'
import { jobIdOf, jobOf, jobOfFile, nameOf } from '../../../generator/jobs/job.ts'
import type { KernelPackage } from '../../../generator/sources/source.ts'

t.test("a .deb's file name tells the kernel, the package and its version", (t) => {
  const kernel = { distro: 'custom', version: 'rolling' }
  const guess = { arch: 'i686', release: '6.1.0-54-686-pae' }
  const file = 'linux-image-6.1.0-54-686-pae-dbg_6.1.190-1_i386.deb'
  for (const url of [file, `/tmp/a_b/${file}`, `http://host.example/pool/${file}?a=/b#c`]) {
    t.match(jobOfFile(url, {}), {
      kernel,
      guess,
      package: { name: 'linux-image-6.1.0-54-686-pae-dbg', version: '6.1.190-1', url },
      format: 'deb',
    })
  }
  t.match(jobOfFile('linux-image-unsigned-5.4.0-1-generic-dbgsym_5.4.0-1.1_amd64.ddeb', {}), {
    guess: { arch: 'x86_64', release: '5.4.0-1-generic' },
    format: 'deb',
  })
  t.equal(
    jobOfFile('linux-image-6.12.107%2bdeb13-amd64-dbg_1%3a6.12.107-1_amd64.deb', {}).package
      .version,
    '1:6.12.107-1',
    'the epoch, which mirrors and apt escape, is decoded',
  )
  t.end()
})

t.test("an .rpm's file name tells the kernel, the package and its version", (t) => {
  const rpm = (file: string) => jobOfFile(`https://host.example/debug/${file}`, {})
  t.match(rpm('kernel-debuginfo-5.14.0-611.5.1.el9_7.x86_64.rpm'), {
    guess: { arch: 'x86_64', release: '5.14.0-611.5.1.el9_7.x86_64' },
    package: { name: 'kernel-debuginfo', version: '5.14.0-611.5.1.el9_7' },
    format: 'rpm',
  })
  t.match(rpm('kernel-uek-debuginfo-5.15.0-1.2.3.el8uek.aarch64.rpm'), {
    guess: { arch: 'aarch64', release: '5.15.0-1.2.3.el8uek.aarch64' },
  })
  t.match(rpm('kernel-default-debuginfo-5.14.21-150500.55.7.1.x86_64.rpm'), {
    guess: { arch: 'x86_64', release: '5.14.21-150500.55.7-default' },
    package: { name: 'kernel-default-debuginfo', version: '5.14.21-150500.55.7.1' },
    format: 'rpm',
  })
  t.match(rpm('kernel.rpm'), { format: 'rpm', package: { name: 'kernel.rpm', version: '' } })
  t.end()
})

t.test('the kernel that the user names wins over the file name', (t) => {
  const given = { distro: 'debian', version: '12', arch: 'x86_64', release: '6.1.0-1-amd64' }
  const job = jobOfFile('linux-image-6.1.0-54-686-pae-dbg_6.1.190-1_i386.deb', given)
  t.same(job.kernel, given)
  t.same(nameOf(job), given)
  for (const [arch, machine] of [
    ['arm64', 'aarch64'],
    ['AMD64', 'x86_64'],
    ['i386', 'i686'],
    ['ppc64el', 'ppc64le'],
  ] as const)
    t.equal(jobOfFile('vmlinux', { ...given, arch }).kernel.arch, machine)
  t.end()
})

t.test("a file whose name tells nothing leaves the kernel's name to vmlinux", (t) => {
  const deb = jobOfFile('/tmp/kernel.deb', {})
  t.match(deb, { format: 'deb', package: { name: 'kernel.deb', version: '' } })
  const image = jobOfFile('/boot/vmlinux-6.1.0-9-test', {})
  t.equal(image.format, 'vmlinux')
  t.same(image.kernel, { distro: 'custom', version: 'rolling' })
  t.same(nameOf(image), {
    distro: 'custom',
    version: 'rolling',
    arch: 'unknown',
    release: 'vmlinux-6.1.0-9-test',
  })
  t.end()
})

t.test('a hostile file name never throws, nor takes long', (t) => {
  for (const name of [
    '%',
    '%zz.deb',
    'a%2fb.deb',
    '_.deb',
    '-.rpm',
    `${'-'.repeat(100_000)}.rpm`,
    `${'a-1-'.repeat(20_000)}.x.rpm`,
    `${'a'.repeat(100_000)}_1_i386.deb`,
    '',
  ]) {
    t.doesNotThrow(() => jobOfFile(name, {}), name.slice(0, 20))
  }
  t.end()
})

t.test('equal jobs have one id whatever the mirror, and different jobs have different ids', (t) => {
  const kernel = { distro: 'debian', version: '12', arch: 'i686', release: '6.1.0-9-686' }
  const sha256 = (hex: string) => ({ algorithm: 'sha256', hex: hex.repeat(64) }) as const
  const found: KernelPackage = {
    source: 'debian',
    kernel,
    name: 'linux-image-6.1.0-9-686-dbg',
    version: '6.1.90-1',
    url: 'http://host.example/a.deb',
    size: 1000,
    checksum: sha256('a'),
    vmlinux: [],
    role: 'debug',
    trust: 'index',
    format: 'deb',
  }
  const id = jobIdOf(jobOf(found), 'current')
  t.match(id, /^[0-9a-f]{32}$/)
  t.equal(jobIdOf(jobOf({ ...found, url: 'http://mirror.example/a.deb' }), 'current'), id)
  const others = [
    jobIdOf(jobOf(found), 'newer'),
    jobIdOf(jobOf(found, { earlyStop: true }), 'current'),
    jobIdOf(jobOf({ ...found, version: '6.1.90-2' }), 'current'),
    jobIdOf(jobOf({ ...found, checksum: sha256('b') }), 'current'),
    jobIdOf(jobOf({ ...found, kernel: { ...kernel, version: '13' } }), 'current'),
    jobIdOf(jobOfFile('http://host.example/a', kernel), 'current'),
    jobIdOf(jobOfFile('http://host.example/b', kernel), 'current'),
  ]
  t.equal(new Set([id, ...others]).size, others.length + 1)
  t.end()
})
