// btfmill pack, and the commands on a store whose kernels are in packs.
import { utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  Catalog,
  generateKeys,
  getBlob,
  openStore,
  packKey,
  SNAPSHOT_KEY,
  sha256Of,
} from '../../../storage/index.ts'
import { signatureProblem } from '../../../storage/signed.ts'
import { run } from '../../helpers/command.ts'
import { nthBtf, putSeries } from '../../helpers/packs.ts'
import { keysOf } from '../../helpers/store-contract.ts'

const directory = t.testdir()
const home = await openStore(`file:${join(directory, 'home')}`)
await putSeries(home, 4)
await putSeries(home, 2, { distro: 'ubuntu', from: 10 })
const store = ['--store', `file:${join(directory, 'home')}`]

t.test('pack --dry-run prints what would be packed and removed, and writes nothing', async (t) => {
  const keys = await keysOf(home, '')
  const { status, stdout } = await run('pack', ...store, '--dry-run')
  t.equal(status, 0)
  t.match(
    stdout.split('\n').map((line) => line.split(/ {2,}/).slice(0, 2)),
    [
      ['', 'kernels to pack'],
      ['debian x86_64', '4'],
      ['ubuntu x86_64', '2'],
      ['all', '6'],
    ],
  )
  const json = await run('pack', ...store, '--dry-run', '--json')
  t.match(JSON.parse(json.stdout.trimEnd().split('\n').at(-1)!), { summary: { add: 6, blobs: 4 } })
  t.same(await keysOf(home, ''), keys)
})

t.test('pack packs the kernels that match and removes blobs; the commands go on', async (t) => {
  const dump = await run('dump', ...store, 'debian/12/x86_64/6.1.0-2-amd64')
  const { status, stdout } = await run('pack', ...store, '--distro', 'debian')
  t.equal(status, 0)
  t.match(
    stdout,
    /^debian x86_64: packs\/[0-9a-f]{64}\.btfpack: 4 kernels, 4 new, \d+ bytes\n1 pack written with 4 new kernels; 3 blobs removed, \d+ bytes\n$/,
  )
  t.equal((await keysOf(home, 'blobs/')).length, 3)
  t.same(await run('dump', ...store, 'debian/12/x86_64/6.1.0-2-amd64'), dump)
  t.match(await run('verify', ...store), { status: 0, stdout: /^clean/m })
  const rest = await run('pack', ...store, '--keep', 'none', '--json')
  t.match(JSON.parse(rest.stdout.trimEnd().split('\n').at(-1)!), {
    summary: { packs: 1, added: 2, blobs: 3 },
  })
  t.same(await keysOf(home, 'blobs/'), [])
  t.match(await run('pack', ...store, '--keep', 'none'), {
    stdout: '0 packs written with 0 new kernels; 0 blobs removed, 0 bytes\n',
  })
})

t.test('a catalog names the packs, and keeps its signature', async (t) => {
  const place = join(t.testdir(), 'store')
  const signed = await openStore(`file:${place}`)
  await putSeries(signed, 3)
  const { publicKey, secretKey } = generateKeys()
  await Catalog.publish(signed, secretKey)
  const key = `${place}.key`
  writeFileSync(key, secretKey)
  const isSigned = () => signatureProblem(signed, SNAPSHOT_KEY, 2 ** 20, publicKey)
  const without = await run('pack', '--store', place, '--keep', 'none')
  t.match(without, {
    status: 0,
    stderr: /does not name the packs as they are now: .* run pack with --secret-key/,
  })
  t.same((await Catalog.open(signed)).packs, [])
  t.equal(await isSigned(), undefined)
  await putSeries(signed, 4)
  const ended = await run('pack', '--store', place, '--keep', 'none', '--secret-key', key)
  t.match(ended, { status: 0, stderr: '' })
  const packs = await keysOf(signed, 'packs/')
  t.same(
    (await Catalog.open(signed)).packs?.map(([digest]) => packKey(digest)),
    packs,
  )
  t.equal(await isSigned(), undefined)
})

t.test('after gc has removed a pack, the catalog names it no more', async (t) => {
  const place = join(t.testdir(), 'store')
  const home = await openStore(`file:${place}`)
  await putSeries(home, 3)
  const { publicKey, secretKey } = generateKeys()
  const key = `${place}.key`
  writeFileSync(key, secretKey)
  const withKey = ['--store', place, '--secret-key', key]
  await run('pack', '--keep', 'none', ...withKey)
  const [pack] = await keysOf(home, 'packs/')
  t.equal((await Catalog.open(home)).packs?.length, 1)
  t.equal((await run('rm', '--distro', 'debian', ...withKey)).status, 0)
  const before = new Date(Date.now() - 2 * 24 * 3600 * 1000)
  utimesSync(join(place, pack!), before, before)
  const ended = await run('gc', ...withKey)
  t.match(ended, { status: 0, stdout: /1 pack removed/, stderr: '' })
  t.same((await Catalog.open(home)).packs, [])
  t.equal(await signatureProblem(home, SNAPSHOT_KEY, 2 ** 20, publicKey), undefined)
})

t.test('a store in packs is exported, and its kernels are compared', async (t) => {
  const file = join(directory, 'all.btfpack')
  const exported = await run('export', ...store, '--profile', 'pack', '-o', file)
  t.match(exported, { status: 0, stdout: `${file}: 6 kernels\n` })
  const tree = await run('export', ...store, '--profile', 'tree', '-o', join(directory, 'tree'))
  t.equal(tree.status, 0, tree.stderr)
  const [a, b] = ['debian/12/x86_64/6.1.0-1-amd64', 'ubuntu/12/x86_64/6.1.0-2-amd64']
  t.equal((await run('diff', ...store, a!, b!)).status, 0, 'they differ in strings alone')
  t.match(await run('gc', ...store), { stdout: '0 blobs removed, 0 bytes\n' })
  const list = join(directory, 'list.txt')
  writeFileSync(list, 'task_struct.pid\n')
  const offsets = await run('offsets', ...store, list)
  t.equal(offsets.status, 0, offsets.stderr)
})

t.test('BTF that is stored again while its kernel is in a pack is whole', async (t) => {
  await putSeries(home, 1)
  const sha256 = sha256Of(nthBtf(0))
  t.equal(sha256Of(await getBlob(home, sha256)), sha256)
})

t.test('a wrong choice of what to keep is refused', async (t) => {
  for (const keep of ['newest', 'newest:-1', 'some', ''])
    t.match(await run('pack', ...store, '--keep', keep), {
      status: 2,
      stderr: /invalid --keep ".*": expected newest:N, none or all/,
    })
  t.match(await run('pack', ...store, '--distro', 'none'), { status: 1, stderr: /unknown_kernel/ })
  t.match(await run('pack', '--store', join(directory, 'no')), { status: 1, stderr: /not_found/ })
})

t.test('a key file that is missing is named, before anything is changed', async (t) => {
  for (const command of ['pack', 'gc', 'sign', 'verify']) {
    const ended = await run(command, ...store, '--secret-key', '/nowhere.key')
    const stderr = 'btfmill: invalid_file: invalid file "/nowhere.key": it does not exist\n'
    t.match(ended, { status: 1, stdout: '', stderr })
  }
  const folder = await run('gc', ...store, '--secret-key', directory)
  t.match(folder, { status: 1, stderr: /invalid_file: .*: expected a file, not a folder/ })
})
