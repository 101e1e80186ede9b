// btfmill export --profile pack, --verify and import of a pack.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Catalog, getBlob, openStore, putRecord } from '../../../storage/index.ts'
import { run } from '../../helpers/command.ts'
import { framesAt, nthBtf, putSeries } from '../../helpers/packs.ts'
import { btfOf, recordOf } from '../../helpers/test-service.ts'

const directory = t.testdir()
const at = (...path: string[]) => join(directory, ...path)
const home = await openStore(`file:${at('home')}`)
await putSeries(home, 5)
await putSeries(home, 2, { flavour: 'cloud-amd64', from: 8 })
const [kernel] = (await putSeries(home, 1, { distro: 'ubuntu', from: 12 })).map((one) => one.kernel)
await putRecord(home, {
  ...recordOf(
    { ...kernel!, buildId: 'ab'.repeat(20), unameVersion: '#1 SMP' },
    { btf: await btfOf(home, nthBtf(12)) },
  ),
  modules: { xfs: { sha256: 'cd'.repeat(32), size: 100, types: 3 } },
})
const store = ['--store', `file:${at('home')}`]
const file = at('all.btfpack')

const recordsIn = async (name: string) =>
  [...(await Catalog.open(await openStore(`file:${at(name)}`))).list()].map(({ record }) => record)

t.test('export writes a pack that --verify rebuilds and import reads back', async (t) => {
  const made = await run('export', ...store, '--profile', 'pack', '-o', file)
  t.match(made, { status: 0, stdout: `${file}: 8 kernels\n`, stderr: '' })
  const verified = await run('export', '--verify', file)
  t.match(verified, { status: 0, stdout: `${file}: 8 kernels; every kernel was rebuilt\n` })
  const back = ['--store', `file:${at('back')}`]
  t.match(await run('import', ...back, file), { status: 0, stdout: '8 imported\n' })
  t.match(await run('import', ...back, file), { status: 0, stdout: '8 present\n' })
  const [before, after] = [await recordsIn('home'), await recordsIn('back')]
  t.same(
    after.map((record) => record.kernel),
    before.map((record) => record.kernel),
    'names, build-ids and uname -v are kept',
  )
  const backStore = await openStore(`file:${at('back')}`)
  for (const [i, { btf, package: from, origin, modules }] of after.entries()) {
    const { sha256 } = before[i]!.btf!
    t.same(await getBlob(backStore, btf!.sha256), await getBlob(home, sha256))
    t.same(from, { ...before[i]!.package, authenticated: 'none' }, 'the package is kept')
    t.same([origin, modules], ['import', undefined], 'but nothing is vouched for')
  }
})

t.test('filters choose what is packed, and standard output takes a pack', async (t) => {
  const part = at('part.btfpack')
  const filter = ['--distro', 'debian', '--release', '*cloud*']
  const made = await run('export', ...store, '--profile', 'pack', ...filter, '-o', part, '--json')
  t.same(JSON.parse(made.stdout), { summary: { path: part, kernels: 2, left: 0 } })
  const none = await run('export', ...store, '--profile', 'pack', '--arch', 's390x', '-o', at('no'))
  t.match(none, { status: 1, stderr: /unknown_kernel: no kernels match --arch s390x/ })
  t.notOk(existsSync(at('no')))
  const piped = await run('export', ...store, '--profile', 'pack', ...filter, '-o', '-')
  t.match(piped, { status: 0, stderr: '-: 2 kernels\n', stdout: /^BTFpack/ })
})

t.test('a damaged pack is reported kernel by kernel, and import takes the others', async (t) => {
  const bytes = readFileSync(file)
  const damaged = at('damaged.btfpack')
  bytes.fill(0, bytes.length - 8)
  writeFileSync(damaged, Buffer.concat([bytes, Buffer.of(1)]))
  const verified = await run('export', '--verify', damaged)
  t.equal(verified.status, 1)
  t.match(verified.stdout, /^ubuntu\/12\/x86_64\/6.1.0-1-amd64: invalid pack: /m)
  t.match(verified.stdout, /^\S+: there are bytes behind its \d+ bytes$/m)
  const imported = await run('import', '--store', `file:${at('rest')}`, damaged)
  t.match(imported, { status: 1, stderr: /^btfmill: ubuntu\/.*invalid_pack/ })
  t.match(imported.stdout, /^7 imported; \d refused/)
})

t.test('a pack with a damaged index is no pack, and makes no store', async (t) => {
  const bytes = readFileSync(file)
  bytes[framesAt(bytes) - 1]! ^= 1
  const damaged = at('index.btfpack')
  writeFileSync(damaged, bytes)
  const error = { status: 1, stderr: /invalid_pack: invalid pack: the index does not have its SHA/ }
  t.match(await run('export', '--verify', damaged), error)
  t.match(await run('import', '--store', `file:${at('new')}`, damaged), error)
  t.notOk(existsSync(at('new')))
})

t.test('options that a pack does not have are refused', async (t) => {
  const cases = [
    [[...store, '--zstd'], /no --object, no --zstd/],
    [[...store, '--object', 'x.o'], /no --object, no --zstd/],
    [[...store, '--secret-key', at('none')], /not with --secret-key/],
    [['--server', 'http://127.0.0.1:1'], /not with --server/],
  ] as const
  for (const [flags, stderr] of cases)
    t.match(await run('export', '--profile', 'pack', ...flags), { status: 2, stderr })
})

t.test('BTF that was made here is not replaced by a pack', async (t) => {
  const own = await openStore(`file:${at('own')}`)
  await putRecord(own, recordOf(kernel!, { btf: await btfOf(own, nthBtf(20)) }))
  const imported = await run('import', '--store', `file:${at('own')}`, file)
  t.match(imported.stdout, /^7 imported; 1 made here|1 made here; 7 imported/)
})
