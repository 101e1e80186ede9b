// Tests the archive tree's keys and files. tar and xz read what we pack, and the reverse.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { archiveKey, kernelOfArchive, packArchive, unpackArchive } from '../../storage/archive.ts'
import { fixture } from '../helpers/fixtures.ts'

const raw = fixture('types-x86_64.btf')
const RELEASE = '6.1.0-1+deb12~x'

t.test('kernelOfArchive inverts archiveKey and rejects any other key', async (t) => {
  const keys = {
    'archive/debian/12/x86_64/6.1.0-1+deb12~x.btf.tar.xz': ['debian', '12', 'amd64', RELEASE],
    'archive/ubuntu/20.04/arm64/5.4.0-1-generic.btf.tar.xz': [
      'ubuntu',
      '20.04',
      'aarch64',
      '5.4.0-1-generic',
    ],
  }
  for (const [key, [distro, version, arch, release]] of Object.entries(keys)) {
    const kernel = { distro: distro!, version: version!, arch: arch!, release: release! }
    t.equal(archiveKey(kernel), key)
    t.equal(archiveKey(kernelOfArchive(key)!), key)
  }
  for (const key of [
    'archive/a/b/c/.btf.tar.xz',
    'archive/a/b/c/d.tar.xz',
    'archive/a/b/c',
    'archive/a/b/c/d/e.btf.tar.xz',
    'x/a/b/c/d.btf.tar.xz',
    'archive/a/%zz/c/d.btf.tar.xz',
  ])
    t.equal(kernelOfArchive(key), undefined, key)
})

t.test(
  'an archive has one read-only member of root from 1970, whatever umask and time zone say',
  async (t) => {
    const bytes = await packArchive(RELEASE, raw)
    const umask = process.umask(0o077)
    const zone = process.env.TZ
    process.env.TZ = 'Asia/Tokyo'
    t.teardown(() => {
      process.umask(umask)
      process.env.TZ = zone
    })
    t.ok((await packArchive(RELEASE, raw)).equals(bytes), 'the same bytes')
    const directory = t.testdir({})
    writeFileSync(join(directory, 'a.tar.xz'), bytes)
    const listed = execFileSync('tar', ['tvf', 'a.tar.xz', '--utc', '--full-time'], {
      cwd: directory,
      encoding: 'utf8',
    })
    t.match(listed, /^-r--r--r-- root\/root +\d+ 1970-01-01 00:00:00 6\.1\.0-1\+deb12~x\.btf\n$/)
    execFileSync('tar', ['xf', 'a.tar.xz'], { cwd: directory })
    t.ok(readFileSync(join(directory, `${RELEASE}.btf`)).equals(raw))
    t.ok((await unpackArchive(bytes)).equals(raw))
  },
)

t.test('unpackArchive reads an archive that tar made, as btfhub does', async (t) => {
  const directory = t.testdir({})
  writeFileSync(join(directory, 'k.btf'), raw)
  execFileSync('tar', ['cJf', 'k.btf.tar.xz', './k.btf'], { cwd: directory })
  t.ok((await unpackArchive(readFileSync(join(directory, 'k.btf.tar.xz')))).equals(raw))
})

t.test(
  'unpackArchive rejects broken archives and archives without exactly one BTF file',
  async (t) => {
    const directory = t.testdir({ 'a.btf': 'a', 'b.btf': 'b', 'c.txt': 'c' })
    const tarOf = (...args: string[]) => execFileSync('tar', ['cJ', ...args], { cwd: directory })
    mkdirSync(join(directory, 'd.btf'))
    const whole = await packArchive(RELEASE, raw)
    const bad = {
      empty: Buffer.alloc(0),
      'not xz': raw,
      truncated: whole.subarray(0, -40),
      'not a tar': execFileSync('xz', ['-c'], { input: Buffer.alloc(4096, 'x') }),
      'two BTF files': tarOf('a.btf', 'b.btf'),
      'no BTF file': tarOf('c.txt', 'd.btf'),
    }
    for (const [name, bytes] of Object.entries(bad))
      await t.rejects(unpackArchive(bytes), { code: 'digest_mismatch' }, name)
  },
)
