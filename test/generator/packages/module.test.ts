import { execFileSync } from 'node:child_process'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { encodeBtf, mergeBtf, parseBtf, readBtf } from '../../../bpf/index.ts'
import { ALL_MODULES, type OnEvent } from '../../../generator/index.ts'
import { ModuleSet } from '../../../generator/packages/module.ts'
import {
  type BuildRecord,
  blobKey,
  collectGarbage,
  getBlob,
  verifyStore,
} from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { run } from '../../helpers/command.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { makeModule, makeVmlinux, RELEASE, stripped } from '../../helpers/vmlinux.ts'
import { bzImage } from '../../helpers/vmlinuz.ts'

const signer = makeSigner(t)

t.test('ModuleSet takes each wanted module of the kernel once, by its path', (t) => {
  const set = new ModuleSet([ALL_MODULES], '6.1.0-9-test')
  const at = (path: string) => `usr/lib/debug/lib/modules/6.1.0-9-test/${path}`
  t.equal(set.take(at('kernel/fs/ext4/ext4.ko')), 'ext4')
  t.equal(set.take(at('updates/ext4.ko')), undefined, 'only the first file of a name is taken')
  t.equal(
    set.take(at('kernel/net/nf-x_tables.ko.debug')),
    'nf_x_tables',
    'with underscores, as in the kernel',
  )
  t.equal(set.take('lib/modules/6.1.0-9-test/kernel/xfs.ko.xz'), 'xfs')
  t.equal(set.take('usr/lib/modules/6.1.0-9-test/kernel/btrfs.ko.zst'), 'btrfs')
  for (const path of [
    'usr/lib/debug/lib/modules/6.1.0-8-test/kernel/other.ko',
    at('vmlinux'),
    at('kernel/fs/other.ko.sig'),
    'kernel/fs/other.ko',
    at(`kernel/${'o'.repeat(65)}.ko`),
    at('kernel/fs/..ko'),
  ])
    t.equal(set.take(path), undefined, path)
  t.same([set.isComplete, set.missing], [false, []])

  const some = new ModuleSet(['ext4', 'nf-x-tables'], undefined)
  t.equal(some.take(at('kernel/fs/ext3.ko')), undefined, 'the module is not wanted')
  t.equal(some.take(at('kernel/fs/ext4.ko')), 'ext4')
  t.same([some.isComplete, some.missing], [false, ['nf_x_tables']])
  t.equal(some.take(at('kernel/net/nf_x_tables.ko')), 'nf_x_tables')
  t.same([some.isComplete, some.missing], [true, []])
  t.same(new ModuleSet([ALL_MODULES], undefined).missing, [ALL_MODULES])

  const spare = new ModuleSet([], undefined, 'btf_vmlinux')
  t.same([spare.isComplete, spare.missing], [true, []], 'a spare module is not waited for')
  spare.awaitSpare()
  t.same([spare.isComplete, spare.missing], [false, []], 'before it is asked for')
  t.equal(spare.take(at('kernel/fs/ext4.ko')), undefined)
  t.equal(spare.take(at('kernel/kernel/bpf/btf_vmlinux.ko.xz')), 'btf_vmlinux')
  t.same([spare.isComplete, spare.missing], [true, []])
  t.end()
})

const MODULES = `usr/lib/debug/lib/modules/${RELEASE}`

/** Files of a package with debug info: modules before and after vmlinux, some of them invalid. */
function filesOf({ directory }: RunDirectory): Record<string, string> {
  const at = (name: string) => join(directory, name)
  makeVmlinux(at('vmlinux'), { btf: true })
  makeModule(at('early.ko'), 'early')
  makeModule(at('late-one.ko'), 'late')
  makeModule(at('bare.ko'), 'bare', { debug: false })
  writeFileSync(at('broken.ko'), 'no ELF')
  writeFileSync(at('padding'), Buffer.alloc(8 * 1024 ** 2))
  return {
    [`${MODULES}/a/early.ko`]: at('early.ko'),
    [`${MODULES}/a/bare.ko`]: at('bare.ko'),
    [`${MODULES}/vmlinux`]: at('vmlinux'),
    [`${MODULES}/z/broken.ko`]: at('broken.ko'),
    [`${MODULES}/z/late-one.ko`]: at('late-one.ko'),
    'usr/share/zz': at('padding'),
  }
}

/** Opens the BTF of a kernel, and that of one of its modules as split BTF over it. */
async function open({ store }: RunDirectory, { btf, modules }: BuildRecord, name: string) {
  const base = parseBtf(await getBlob(store, btf!.sha256))
  return { base, module: parseBtf(await getBlob(store, modules![name]!.sha256), { base }) }
}

t.test('all modules of a package get BTF, and invalid ones a failure', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const file = makePackage(runDirectory.directory, undefined, { files: filesOf(runDirectory) })
  const repository = makeRepository(runDirectory.directory, { packages: [file], signer })
  const stages: string[] = []
  const onEvent: OnEvent = (event) => {
    if (event.event === 'stage') stages.push(event.stage)
  }
  t.match(await runDirectory.run(repository, { modules: [ALL_MODULES], from: 'debug', onEvent }), {
    published: 1,
  })
  const [record] = (await runDirectory.records()) as [BuildRecord]
  t.match(record, {
    package: { authenticated: 'index' },
    wantedModules: [ALL_MODULES],
    moduleFailures: { bare: { code: 'no_dwarf' }, broken: { code: 'invalid_elf' } },
  })
  t.same(Object.keys(record.modules!).sort(), ['early', 'late_one'])
  t.same(stages, ['unpack', 'pahole', 'check', 'modules', 'publish'])

  const { base, module } = await open(runDirectory, record, 'early')
  const id = module.find('early', 'STRUCT')!
  t.ok(id >= base.endId, 'the type is in the split BTF')
  t.match(module.type(id), {
    size: 20,
    members: [{ name: 'list', type: base.find('list_head') }, {}, {}],
  })
  t.equal(module.typeCount, record.modules!.early!.types)

  const [over, own] = ['base.btf', 'early.btf'].map((name) => join(runDirectory.directory, name))
  writeFileSync(over!, base.bytes)
  const path = join(runDirectory.directory, 'early.ko')
  const options = ['--btf_gen_floats', `--btf_base=${over}`, `--btf_encode_detached=${own}`]
  execFileSync('pahole', [...options, path])
  t.ok(readFileSync(own!).equals(module.bytes), 'pahole makes the same BTF over this base')

  const { module: late } = await open(runDirectory, record, 'late_one')
  const merged = parseBtf(mergeBtf(base, [module, parseBtf(late.bytes, { base })]))
  for (const name of ['task_struct', 'early', 'late']) t.ok(merged.find(name, 'STRUCT'), name)

  t.match(
    await runDirectory.run(repository, { modules: ['early'] }),
    { skipped: 1 },
    'the module has BTF already',
  )
  t.match(await runDirectory.run(repository), { skipped: 1 })
})

t.test('later runs add modules to those of earlier runs', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const file = makePackage(runDirectory.directory, undefined, { files: filesOf(runDirectory) })
  const repository = makeRepository(runDirectory.directory, { packages: [file], signer })
  t.match(await runDirectory.run(repository), { published: 1 })
  t.match(await runDirectory.run(repository, { modules: ['early', 'nosuch'] }), { published: 1 })
  const failed = { nosuch: { code: 'no_module', message: /no module nosuch/ } }
  t.match(await runDirectory.records(), [
    { modules: { early: {}, late_one: undefined }, moduleFailures: failed },
  ])
  t.match(await runDirectory.run(repository, { modules: ['nosuch'] }), { skipped: 1 })
  t.match(await runDirectory.run(repository, { modules: ['late-one'] }), { published: 1 })
  t.match(await runDirectory.records(), [
    {
      modules: { early: {}, late_one: {} },
      moduleFailures: failed,
      wantedModules: ['early', 'late_one', 'nosuch'],
    },
  ])
})

t.test('generate --modules makes BTF of modules, and dump --with-modules shows it', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const file = makePackage(runDirectory.directory, undefined, { files: filesOf(runDirectory) })
  const btfmill = (...args: string[]) => run(...args, '--store', runDirectory.storeUrl)
  const made = await btfmill('generate', '--modules', 'early,late-one', '--json', file)
  t.match(made, { status: 0, stdout: /"late_one":\{/ })
  const kernel = `custom/rolling/i686/${RELEASE}`
  t.match(await btfmill('dump', kernel, '--type', 'late'), { status: 1 })
  const dumped = await btfmill('dump', kernel, '--type', 'late', '--with-modules')
  t.match(dumped, { status: 0, stdout: /^struct late \{\n\tstruct list_head list;/ })
  t.match(await btfmill('generate', '--modules', '../ext4', file), { status: 2 })
  const all = await btfmill('generate', '--modules', 'all', '--json', file)
  t.match(all, { status: 0, stdout: /"wantedModules":\["\*"/ })
})

t.test('early stop reads a package only up to the last wanted module', async (t) => {
  const read = async (modules: string[]): Promise<[number, number]> => {
    const runDirectory = await makeRunDirectory(t)
    const options = { files: filesOf(runDirectory), compression: 'none' } as const
    const file = makePackage(runDirectory.directory, undefined, options)
    const repository = makeRepository(runDirectory.directory, { packages: [file], signer })
    let bytes = 0
    const onEvent: OnEvent = (event) => {
      if (event.event === 'published') bytes = event.read
    }
    t.match(await runDirectory.run(repository, { modules, earlyStop: true, onEvent }), {
      published: 1,
    })
    t.match(await runDirectory.records(), [{ package: { authenticated: 'prefix' } }])
    return [bytes, statSync(file).size]
  }
  const [some, whole] = await read(['early', 'late_one'])
  t.ok(some < whole / 2, `${some} of ${whole} bytes`)
})

t.test('modules called .ko.debug in an rpm are found', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const release = '5.14.0-1.el9.i686'
  const at = (name: string) => join(runDirectory.directory, name)
  makeVmlinux(at('vmlinux'), { release })
  makeModule(at('xfs'), 'xfs')
  const folder = `usr/lib/debug/lib/modules/${release}`
  const file = makeRpm(runDirectory.directory, {
    arch: 'i686',
    files: {
      [`${folder}/vmlinux`]: at('vmlinux'),
      [`${folder}/kernel/fs/xfs.ko.debug`]: at('xfs'),
    },
  })
  t.match(await runDirectory.run([file], { modules: [ALL_MODULES] }), { published: 1 })
  t.match(await runDirectory.records(), [{ modules: { xfs: {} }, moduleFailures: {} }])
})

t.test("a module's own BTF is taken from the image package, or made from debug info", async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const at = (name: string) => join(runDirectory.directory, name)
  const files = filesOf(runDirectory)
  const debug = makePackage(runDirectory.directory, undefined, { files })
  writeFileSync(at('vmlinuz'), bzImage(stripped(at('vmlinux')), 'zstd'))
  const base = at('own.btf')
  writeFileSync(base, readBtf(readFileSync(at('vmlinux'))).bytes)
  const split = at('early.split')
  execFileSync('pahole', [`--btf_base=${base}`, `--btf_encode_detached=${split}`, at('early.ko')])
  execFileSync('llvm-objcopy', [
    '--strip-debug',
    '--add-section',
    `.BTF=${split}`,
    at('early.ko'),
    at('image.ko'),
  ])
  writeFileSync(at('image.ko.xz'), execFileSync('xz', ['--stdout', at('image.ko')]))
  const image = makePackage(runDirectory.directory, undefined, {
    name: `linux-image-${RELEASE}`,
    files: {
      [`boot/vmlinuz-${RELEASE}`]: at('vmlinuz'),
      [`lib/modules/${RELEASE}/kernel/early.ko.xz`]: at('image.ko.xz'),
    },
  })
  const repository = makeRepository(runDirectory.directory, { packages: [debug, image], signer })
  const settings = { modules: ['early'] }
  t.match(await runDirectory.run(repository, settings), { published: 1 })
  const [record] = (await runDirectory.records()) as [BuildRecord]
  t.match(record, { origin: 'embedded', package: { name: `linux-image-${RELEASE}` } })
  const { module } = await open(runDirectory, record, 'early')
  t.ok(readFileSync(split).equals(module.bytes), 'the BTF is that of the file in the package')

  const other = await makeRunDirectory(t)
  t.match(await other.run(repository, { modules: ['late_one'] }), {
    published: 1,
  })
  t.match(await other.records(), [
    {
      origin: 'embedded',
      package: { name: `linux-image-${RELEASE}-dbg` },
      modules: { late_one: {} },
    },
  ])
})

/** Writes a module without debug info, whose BTF stands on a distilled base with a `list_head` of some size. */
function makeDistilled(path: string, name: string, size: number): void {
  const empty = { flag: false, members: [] }
  const base = encodeBtf([{ kind: 'STRUCT', id: 1, name: 'list_head', size, ...empty }])
  const list = { name: 'list', type: 1, bitOffset: 0, bitfieldSize: 0 }
  const members = [list, { ...list, name: 'next', type: 3, bitOffset: size * 8 }]
  const split = encodeBtf(
    [
      { kind: 'STRUCT', id: 2, name, size: size + 4, flag: false, members },
      { kind: 'PTR', id: 3, name: '', type: 2, flag: false },
    ],
    { base: parseBtf(base) },
  )
  writeFileSync(`${path}.base`, base)
  writeFileSync(`${path}.split`, split)
  makeModule(path, name, { debug: false })
  const sections = [`.BTF=${path}.split`, `.BTF.base=${path}.base`]
  const added = sections.flatMap((section) => ['--add-section', section])
  execFileSync('llvm-objcopy', [...added, path])
}

t.test(
  "a module with a distilled base is published over the kernel's BTF, if it fits",
  async (t) => {
    for (const settings of [{}, { from: 'debug' }] as const) {
      const runDirectory = await makeRunDirectory(t)
      const at = (name: string) => join(runDirectory.directory, name)
      makeVmlinux(at('vmlinux'), { btf: true })
      makeDistilled(at('fits.ko'), 'fits', 8)
      makeDistilled(at('other.ko'), 'other', 16)
      const files = {
        [`${MODULES}/vmlinux`]: at('vmlinux'),
        [`${MODULES}/updates/fits.ko`]: at('fits.ko'),
        [`${MODULES}/updates/other.ko`]: at('other.ko'),
      }
      const file = makePackage(runDirectory.directory, undefined, { files })
      const repository = makeRepository(runDirectory.directory, { packages: [file], signer })
      const wanted = { ...settings, modules: [ALL_MODULES] }
      t.match(await runDirectory.run(repository, wanted), { published: 1, failed: {} })
      const [record] = (await runDirectory.records()) as [BuildRecord]
      t.match(record.moduleFailures, {
        other: { code: 'kernel_mismatch', message: /no STRUCT list_head that fits 16 bytes/ },
      })
      const { base, module } = await open(runDirectory, record, 'fits')
      t.match(module.type(module.find('fits', 'STRUCT')!), {
        members: [{ name: 'list', type: base.find('list_head') }, { name: 'next' }],
      })
      t.same([module.startId, module.typeCount], [base.endId, 2])
    }
  },
)

t.test('gc keeps the blobs of modules, and verify reports a missing one', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const file = makePackage(runDirectory.directory, undefined, { files: filesOf(runDirectory) })
  await runDirectory.run([file], { modules: ['early'] })
  const { store } = runDirectory
  const [record] = (await runDirectory.records()) as [BuildRecord]
  t.same(await Array.fromAsync(collectGarbage(store, { minAge: -1000 })), [])
  t.same(await Array.fromAsync(verifyStore(store)), [])
  const key = blobKey(record.modules!.early!.sha256)
  await store.delete(key)
  t.match(await Array.fromAsync(verifyStore(store)), [
    { key, code: 'missing_blob', message: new RegExp(`early of ${RELEASE}`) },
  ])
})
