// The commands that keep a store: generate --archive, keygen, sign, verify, gc, import.
import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { run } from '../../helpers/command.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeVmlinux, RELEASE } from '../../helpers/vmlinux.ts'

const directory = await mkdtemp(join(tmpdir(), 'cli-'))
t.teardown(() => rm(directory, { recursive: true }))
const at = (...path: string[]) => join(directory, ...path)
const store = ['--store', `file:${at('store')}`]
const tree = at('store/archive')
const archive = join(tree, 'debian/12/i686', `${RELEASE}.btf.tar.xz`)

t.test('generate --archive keeps a signed tree that any static server can serve', async (t) => {
  makeVmlinux(at('vmlinux'))
  const deb = makePackage(directory, at('vmlinux'))
  const keys = await run('keygen', '-o', at('mine'))
  t.equal(keys.status, 0, keys.stderr)
  t.equal(statSync(at('mine.key')).mode & 0o777, 0o600)
  t.equal((await run('keygen', '-o', at('mine'))).status, 1, 'a key is never written over')

  const sign = ['--archive', '--secret-key', at('mine.key')]
  const named = ['--distro', 'debian', '--distro-version', '12']
  const made = await run('generate', ...store, ...sign, ...named, deb)
  t.equal(made.status, 0, made.stderr)
  for (const file of ['archive/manifest.json', 'catalog/snapshot.ndjson.zst'])
    execFileSync('minisign', ['-V', '-m', at('store', file), '-p', at('mine.pub')])
  const manifest = JSON.parse(readFileSync(join(tree, 'manifest.json'), 'utf8'))
  t.same(Object.keys(manifest.files), [`debian/12/i686/${RELEASE}.btf.tar.xz`])
  t.equal(manifest.files[`debian/12/i686/${RELEASE}.btf.tar.xz`].size, statSync(archive).size)
  execFileSync('tar', ['xf', archive, '-C', directory])
  t.ok(statSync(at(`${RELEASE}.btf`)).size > 0)
})

t.test('verify reports damage, and --repair makes the damaged parts again', async (t) => {
  t.match(await run('verify', ...store), { status: 0, stdout: 'clean\n' })
  writeFileSync(archive, 'x')
  t.match(await run('verify', ...store), {
    status: 1,
    stdout: /^digest_mismatch: .*\n1 wrong; 0 made again\n$/,
  })
  t.match(await run('verify', '--repair', ...store), {
    status: 0,
    stdout: /0 wrong; 1 made again\n$/,
  })
  t.match(await run('verify', ...store), { status: 0, stdout: 'clean\n' })
  rmSync(join(tree, 'manifest.json'))
  t.match(await run('verify', ...store), {
    status: 0,
    stdout: /^stale_manifest: .*\nclean; 1 behind the records: .*\n$/,
  })
  t.match(await run('verify', '--repair', ...store), { status: 0, stdout: /0 wrong; 1 made again/ })
  t.match(await run('gc', ...store), { status: 0, stdout: '0 blobs removed, 0 bytes\n' })
})

t.test(
  'sign signs an existing store with another key, once, and verify trusts that key',
  async (t) => {
    t.equal((await run('keygen', '-o', at('other'))).status, 0)
    const key = ['--secret-key', at('other.key')]
    t.match(await run('verify', ...store, ...key), { status: 1 })
    const signed = await run('sign', ...store, ...key)
    t.match(signed, {
      status: 0,
      stdout: 'signed catalog/snapshot.ndjson.zst, archive/manifest.json\n',
      stderr: '',
    })
    for (const file of ['archive/manifest.json', 'catalog/snapshot.ndjson.zst'])
      execFileSync('minisign', ['-V', '-m', at('store', file), '-p', at('other.pub')])
    t.match(await run('verify', ...store, ...key), { status: 0, stdout: 'clean\n' })
    t.match(await run('sign', ...store, ...key, '--json'), { status: 0, stdout: '{"signed":[]}\n' })
    t.match(await run('sign', ...store), { status: 2, stderr: '--secret-key' })
    t.match(await run('sign', ...store, '--secret-key', at('other.pub')), { status: 1 })
  },
)

t.test(
  'import reads the tree as a directory and as a tar, and imports a kernel once',
  async (t) => {
    const [one, two] = [
      ['--store', `file:${at('one')}`],
      ['--store', `file:${at('two')}`],
    ]
    t.match(await run('import', ...one, tree), { status: 0, stdout: '1 imported\n' })
    t.match(await run('import', ...one, tree), { status: 0, stdout: '1 present\n' })
    rmSync(join(one[1]!.slice('file:'.length), 'blobs'), { recursive: true })
    t.match(await run('import', ...one, tree), { status: 0, stdout: '1 present\n' })
    t.match(
      await run('verify', ...one),
      { status: 0, stdout: 'clean\n' },
      'the blob is there again',
    )
    const record = JSON.parse((await run('list', '--json', ...one)).stdout)
    t.match(record, {
      state: 'available',
      kernel: { distro: 'debian', version: '12', arch: 'i686', release: RELEASE },
      origin: 'import',
      package: { url: `import:debian/12/i686/${RELEASE}.btf.tar.xz`, authenticated: 'none' },
    })
    for (const flag of ['c', 'cz', 'cJ']) {
      execFileSync('tar', [`${flag}f`, at('tree.tar'), '-C', tree, '.'])
      const done = await run('import', ...two, at('tree.tar'))
      t.match(done, { status: 0, stdout: flag === 'c' ? '1 imported\n' : '1 present\n' })
    }
    t.match(await run('import', ...store, tree), { status: 0, stdout: '1 present\n' })
    for (const url of [one, two])
      t.match(await run('verify', ...url), { status: 0, stdout: 'clean\n' })
  },
)

t.test(
  'import takes raw BTF and ELF files with it, and says why it refuses other files',
  async (t) => {
    const bad = at('bad')
    const put = (path: string, bytes: string | Buffer) => {
      mkdirSync(dirname(join(bad, path)), { recursive: true })
      writeFileSync(join(bad, path), bytes)
    }
    const raw = readFileSync(at(`${RELEASE}.btf`))
    put('debian/12/x86_64/good.btf', raw)
    const elf = (...options: string[]) => {
      execFileSync('llvm-objcopy', [...options, at('vmlinux'), at('elf')])
      return readFileSync(at('elf'))
    }
    put('debian/12/x86_64/elf.btf', elf('--add-section', `.BTF=${at(`${RELEASE}.btf`)}`))
    put('debian/12/x86_64/no-section.btf', elf())
    put('debian/12/x86_64/not-btf.btf', 'x')
    put('debian/12/x86_64/cut.btf', raw.subarray(0, -9))
    put('debian/12/x86_64/cut.btf.tar.xz', readFileSync(archive).subarray(0, 60))
    put('debian/12/nowhere.btf', raw)
    put('debian/12/x86_64/.btf', raw)
    put('README.md', 'of no concern')
    symlinkSync('/etc/passwd', join(bad, 'debian/12/x86_64/link.btf'))
    const fresh = ['--store', `file:${at('fresh')}`]
    const { status, stdout } = await run('import', '--json', ...fresh, bad)
    t.equal(status, 1)
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    t.same(lines.pop().summary, { imported: 2, refused: 7 })
    const codes = Object.fromEntries(lines.map(({ path, state, code }) => [path, code ?? state]))
    t.same(codes, {
      'debian/12/x86_64/good.btf': 'imported',
      'debian/12/x86_64/elf.btf': 'imported',
      'debian/12/x86_64/no-section.btf': 'invalid_btf',
      'debian/12/x86_64/not-btf.btf': 'invalid_btf',
      'debian/12/x86_64/cut.btf': 'invalid_btf',
      'debian/12/x86_64/cut.btf.tar.xz': 'digest_mismatch',
      'debian/12/nowhere.btf': 'kernel_mismatch',
      'debian/12/x86_64/.btf': 'kernel_mismatch',
      'debian/12/x86_64/link.btf': 'unsupported_package',
    })
    const listed = (await run('list', '--json', ...fresh)).stdout.trimEnd().split('\n')
    const digests = listed.map((line) => JSON.parse(line).btf.sha256)
    t.equal(new Set(digests).size, 1, 'the BTF in an ELF file is the section, not the file')
    rmSync(bad, { recursive: true })
    writeFileSync(at('x.tar'), 'no tar at all')
    t.match(await run('import', ...fresh, at('x.tar')), {
      status: 1,
      stderr: /invalid_package|no BTF/,
    })
    t.match(await run('import', ...fresh, at('none')), { status: 1, stderr: /ENOENT/ })
  },
)

t.test(
  'a release as long as a file name may be is stored without its archive, a longer one is refused',
  async (t) => {
    const long = ['--store', `file:${at('long')}`]
    const images = [255, 256, 20].map((length) => {
      const [path, release] = [at(`vmlinux-${length}`), '6.1.0-'.padEnd(length, 'r')]
      makeVmlinux(path, { release, defines: { STACK: 256 + length } })
      return path
    })
    const named = ['--distro', 'debian', '--distro-version', '12']
    const made = await run('generate', ...long, '--archive', ...named, ...images)
    t.equal(made.status, 1)
    t.match(
      made.stdout,
      /^2 published; 0 there already; 1 failed; \d+\.\d MB of packages read\n[\s\S]* store_failed +1 /,
    )
    t.match(made.stderr, /store_failed: a name has more than 255 bytes: 6\.1\.0-r+…/)
    const files = readdirSync(at('long/archive/debian/12/i686'))
    t.same(files, ['6.1.0-rrrrrrrrrrrrrr.btf.tar.xz'], 'the tree has what it can name')
    t.match(await run('verify', ...long), { status: 0, stdout: 'clean\n' })
    const { stdout } = await run('list', '--json', ...long, '--release', '6.1.0-r*')
    const listed = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    t.same(listed.map(({ kernel }) => kernel.release.length).sort(), [20, 255])

    rmSync(at('long/blobs', listed[0].btf.sha256.slice(0, 2)), { recursive: true })
    rmSync(at('long/blobs', listed[1].btf.sha256.slice(0, 2)), { recursive: true, force: true })
    const repaired = await run('verify', '--repair', ...long)
    t.equal(repaired.status, 0)
    t.match(
      repaired.stdout,
      /0 wrong; 2 made again; 1 made again by the next/,
      'a blob without an archive is due',
    )
  },
)

t.test('verify --repair names the kernels whose lost BTF the next run makes again', async (t) => {
  const lost = ['--store', `file:${at('lost')}`]
  const generate = ['generate', ...lost, '--distro', 'debian', '--distro-version', '12']
  const [deb] = readdirSync(directory).filter((name) => name.endsWith('.deb'))
  t.match(await run(...generate, at(deb!)), { status: 0 })
  const { btf } = JSON.parse((await run('list', '--json', ...lost)).stdout)
  const blob = at('lost/blobs', btf.sha256.slice(0, 2), `${btf.sha256}.btf.zst`)
  for (const [code, harm] of [
    ['missing_blob', () => rmSync(blob)],
    ['digest_mismatch', () => writeFileSync(blob, 'damaged')],
  ] as const) {
    harm()
    t.match(await run('verify', ...lost), { status: 1, stdout: new RegExp(`^${code}: `) })
    t.match(await run('verify', '--repair', ...lost), {
      status: 0,
      stdout: `, due again: ${RELEASE}\n`,
    })
    t.match(await run('verify', ...lost), { status: 0, stdout: 'clean\n' }, code)
    t.match(await run('list', ...lost), { status: 0, stdout: 'damaged_blob' }, code)
    t.match(await run(...generate, at(deb!)), { status: 0, stdout: /^1 published/ }, code)
    t.match(await run('verify', ...lost), { status: 0, stdout: 'clean\n' }, code)
  }
})
