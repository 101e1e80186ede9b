// btfmill export: writes bundles, verifies them, and writes what import can read back.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { importTree } from '../../../generator/index.ts'
import { PROFILE_NAMES, PROFILES } from '../../../service/bundle/profile.ts'
import { Catalog, openStore, putRecord, type Store } from '../../../storage/index.ts'
import { bundlesOf, KERNELS, putKernels } from '../../helpers/bundles.ts'
import { caseFile } from '../../helpers/cases.ts'
import { run } from '../../helpers/command.ts'
import { coreObjects } from '../../helpers/core.ts'
import { btfOf, recordOf } from '../../helpers/test-service.ts'
import { makeVmlinux } from '../../helpers/vmlinux.ts'

const directory = t.testdir()
const at = (...path: string[]) => join(directory, ...path)
const store = ['--store', `file:${at('store')}`]
const task = coreObjects('el').get('task')!
await putKernels(await openStore(`file:${at('store')}`), [
  ...KERNELS,
  { release: '6.1.0-9-s390x', arch: 's390x', btf: 's390x' },
])
const leftOut =
  /^btfmill: debian\/12\/s390x\/6.1.0-9-s390x: task.el.o: unsupported, left out: .*endian/

t.test('export signs a manifest, in the bundle or beside it, and verifies both', async (t) => {
  t.equal((await run('keygen', '-o', at('mine'))).status, 0)
  const key = ['--secret-key', at('mine.key'), '--object', task]
  for (const profile of ['tree', 'bcc']) {
    const file = at(`${profile}.bundle`)
    const made = await run('export', ...store, '--profile', profile, ...key, '-o', file)
    t.match(made, { status: 0, stdout: `${file}: 6 kernels, 1 left out\n`, stderr: leftOut })
    const verified = await run('export', '--verify', file, '--public-key', at('mine.pub'))
    t.match(verified, { status: 0, stdout: `${file}: 6 kernels; valid signature\n` })
  }
  const minisign = ['-V', '-q', '-m', at('bcc.bundle.manifest.json'), '-p', at('mine.pub')]
  execFileSync('minisign', minisign)
  const temporary = readdirSync(directory).filter((name) => name.endsWith('.tmp'))
  t.same(temporary, [], 'nothing is left over')
})

t.test('export --verify reports a file that differs from the manifest', async (t) => {
  const file = at('bcc.bundle')
  const manifest = JSON.parse(readFileSync(`${file}.manifest.json`, 'utf8'))
  const [{ path }] = manifest.kernels
  manifest.kernels[0].sha256 = '0'.repeat(64)
  writeFileSync(`${file}.manifest.json`, JSON.stringify(manifest))
  const [wrong, unsigned] = [
    await run('export', '--verify', file, '--json'),
    await run('export', '--verify', file, '--public-key', at('mine.pub')),
  ]
  t.match(unsigned, { status: 1, stderr: /invalid_signature.*differs from the signed content/ })
  t.equal(wrong.status, 1)
  const lines = wrong.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.same(lines, [
    { path, message: `does not have the SHA-256 ${'0'.repeat(64)}` },
    { summary: { path: file, kernels: 6, signed: false, wrong: 1 } },
  ])
})

t.test('import reads back every profile that names version and architecture', async (t) => {
  makeVmlinux(at('vmlinux'))
  execFileSync('pahole', [`--btf_encode_detached=${at('kernel.btf')}`, at('vmlinux')])
  const home = await openStore('memory:')
  const btf = await btfOf(home, readFileSync(at('kernel.btf')))
  for (const kernel of [
    { distro: 'debian', version: '12', release: '6.12.107+deb13-amd64' },
    { distro: 'centos', version: '7', release: '3.10.0-1160.el7.x86_64' },
    { distro: 'rhel', version: '8', release: '4.18.0-372.9.1.el8.x86_64' },
    { distro: 'ubuntu', version: '20.04', arch: 'aarch64', release: '5.4.0-1001-aws' },
  ])
    await putRecord(home, recordOf(kernel, { btf }))
  const { pack } = await bundlesOf(home)
  for (const profile of PROFILE_NAMES) {
    // the paths of the first name no architecture; those of the second have more in front, and not all kernels
    if (PROFILES[profile].singleArch || profile === 'inspektor-gadget-embed') continue
    writeFileSync(at('back'), (await pack({ profile })).archive)
    const back = await openStore('memory:')
    for await (const { path, state } of importTree(back, at('back')))
      t.equal(state, 'imported', `${profile}: ${path}`)
    t.same(await kernelsOf(back), await kernelsOf(home), profile)
  }
})

async function kernelsOf(store: Store): Promise<string[]> {
  return [...(await Catalog.open(store)).list()].map(({ record: { kernel, btf } }) =>
    [kernel.distro, kernel.version, kernel.arch, kernel.release, btf!.sha256].join(' '),
  )
}

t.test('export writes to standard output, and writes nothing where it fails', async (t) => {
  const piped = await run(
    'export',
    ...store,
    '--profile',
    'btfhub',
    '-o',
    '-',
    '--distro',
    'ubuntu',
  )
  t.match(piped, { status: 0, stderr: '-: 1 kernel\n' })
  t.match(piped.stdout, 'ubuntu/20.04/x86_64/5.4.0-1001-aws.btf.tar.xz')
  const none = ['export', ...store, '--profile', 'tree', '-o', at('none')]
  const [nothing, failed, object] = [
    await run(...none, '--arch', 'riscv64'),
    await run(...none, '--object', task, '--unsupported', 'fail'),
    await run(...none, '--object', at('vmlinux')),
  ]
  t.match(nothing, {
    status: 1,
    stderr: /unknown_kernel: no kernels match --arch riscv64: there are x86_64, s390x/,
  })
  t.match(failed, { status: 1, stdout: '', stderr: leftOut })
  t.match(failed.stderr, /unsupported: the bundle cannot hold 1 kernel/)
  t.match(object, { status: 1, stderr: /unsupported: object 1: the ELF file is for machine/ })
  t.notOk(existsSync(at('none')))
})

t.test('export takes objects without BTF or .BTF.ext, which need no types', async (t) => {
  const objects = ['nog.o', 'noext.o'].map((name) => caseFile(name))
  const flags = objects.flatMap((object) => ['--object', object])
  const made = await run(
    'export',
    ...[...store, '--profile', 'tree', '--distro', 'debian', '--arch', 'x86_64'],
    ...[...flags, '-o', at('none.tar.xz')],
  )
  t.match(made, { status: 0, stdout: `${at('none.tar.xz')}: 3 kernels\n`, stderr: '' })
  const manifest = JSON.parse(
    execFileSync('tar', ['xJOf', at('none.tar.xz'), 'manifest.json'], { encoding: 'utf8' }),
  )
  t.same(manifest.findings, [])
  t.ok(manifest.kernels.every(({ size }: { size: number }) => size < 100))
})

t.test('export needs --profile or --verify, and not both', async (t) => {
  t.match(await run('export'), {
    status: 2,
    stderr: /needs --profile NAME, or --verify FILE\nRun "btfmill export --help"/,
  })
  t.match(await run('export', '--verify', 'x', '--profile', 'tree'), { status: 2 })
})
