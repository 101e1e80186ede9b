// Objects that need the types of modules, and split BTF of modules, in commands and routes.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openObject, parseBtf, relocate } from '../../bpf/index.ts'
import { generateFiles } from '../../generator/index.ts'
import { type BuildRecord, Catalog, getBlob, openStore } from '../../storage/index.ts'
import { formOf } from '../helpers/bundles.ts'
import { caseFile } from '../helpers/cases.ts'
import { run } from '../helpers/command.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { startTestService } from '../helpers/test-service.ts'

const directory = t.testdir({})
const at = (...path: string[]) => join(directory, ...path)
const location = `file:${at('store')}`
const store = await openStore(location)
mkdirSync(at('scratch'))
await generateFiles(
  [caseFile('kernel-with-module-without-types.deb')],
  { distro: 'custom', version: '1' },
  { store, scratch: at('scratch'), modules: ['*'] },
)
const [entry] = [...(await Catalog.open(store)).list()]
const record: BuildRecord = entry!.record
const RELEASE = record.kernel.release
const NAME = `custom/1/x86_64/${RELEASE}`
const path = caseFile('module-type.o')
const object = openObject(readFileSync(path))
const [vmlinux, good] = [at('vmlinux.btf'), at('good.btf')]
writeFileSync(vmlinux, await getBlob(store, record.btf!.sha256))
writeFileSync(good, await getBlob(store, record.modules!.good!.sha256))
const inStore = ['--store', location]

/** Asserts that all relocations of the object are patched in BTF alone, as a loader with a custom BTF reads it. */
const suffices = (t: Test, bytes: Uint8Array) => {
  const { relocations } = relocate(object, parseBtf(bytes))
  t.same(
    relocations.map(({ outcome }) => outcome.is),
    ['ok', 'ok'],
  )
}

t.test('check takes the types of modules that the store has', async (t) => {
  for (const kernel of [[], ['--btf', NAME]]) {
    const { status, stdout } = await run('check', path, ...inStore, ...kernel)
    t.equal(status, 1, 'the kernel has no function for the kprobe')
    t.match(stdout, 'x is not among the functions of this kernel')
    t.notMatch(stdout, 'missing_type')
  }
  const missing = /good_state->n \(byte_off\) is missing/
  t.match(await run('check', path, '--btf', vmlinux), { status: 1, stdout: missing })
})

t.test('minimize and export write the types of modules into the file', async (t) => {
  t.match(await run('minimize', path, ...inStore, '-o', at('tree')), { status: 0 })
  suffices(t, readFileSync(at('tree', `${NAME}.btf`)))
  const bundle = at('bundle.tar.xz')
  const flags = ['--profile', 'tree', '--object', path, '-o', bundle]
  t.match(await run('export', ...inStore, ...flags), { status: 0, stdout: /: 1 kernel\n$/ })
  execFileSync('tar', ['xf', bundle, '-C', directory])
  const { kernels, findings } = JSON.parse(readFileSync(at('manifest.json'), 'utf8'))
  t.same(findings, [])
  suffices(t, readFileSync(at(kernels[0].path)))
})

t.test('routes take the types of modules', async (t) => {
  const { url } = await startTestService(t, () => [], { store })
  const post = async (route: string) => {
    const body = formOf({ name: 'o', bytes: readFileSync(path) })
    const answer = await fetch(`${url}${route}`, { method: 'POST', body })
    t.equal(answer.status, 200, route)
    return Buffer.from(await answer.arrayBuffer())
  }
  for (const query of ['', `?kernel=${NAME}`])
    t.match(JSON.parse((await post(`/v1/check${query}`)).toString()), { loads: 'cannot_tell' })
  suffices(t, await post(`/v1/minimize?kernel=${NAME}`))
  const { btf } = JSON.parse((await post('/v1/minimize')).toString())
  suffices(t, Buffer.from(btf, 'base64'))
  const manifest = JSON.parse((await post('/v1/bundles?profile=tree&part=manifest')).toString())
  t.match(manifest, { findings: [], kernels: [{}] })
})

t.test('commands read the split BTF of a module over the kernel that --base names', async (t) => {
  for (const base of [vmlinux, NAME]) {
    const over = ['--base', base, ...inStore]
    const { status, stdout } = await run('check', path, '--btf', good, ...over)
    t.equal(status, 3)
    t.notMatch(stdout, 'missing_type')
    const dumped = await run('dump', good, '--type', 'good_state', ...over)
    t.match(dumped, { status: 0, stdout: /^struct good_state \{/ })
  }
  const over = ['--base', vmlinux]
  const minimized = ['minimize', path, '--btf', good, ...over, '-o', at('one.btf')]
  t.match(await run(...minimized), { status: 0 })
  suffices(t, readFileSync(at('one.btf')))
  t.match(await run('diff', good, good, ...over), { status: 0 })
})

t.test('minimizing warns of the ids of the kernel that an object asks for', async (t) => {
  const type = coreObjects('el').get('type')!
  const kernel = littleKernels().get('x86_64')!
  const warning = /type.el.o: bpf_core_type_id_kernel of struct task_struct gives the id in the min/
  const flags = [type, '--btf', kernel, '-o', at('type.btf')]
  t.match(await run('minimize', ...flags), { status: 0, stderr: warning })
  t.match(JSON.parse((await run('minimize', ...flags, '--json')).stdout).warnings, [/./, warning])
  t.match(await run('minimize', path, ...inStore, '-o', at('quiet')), { stderr: /^$/ })
  const made = await run(
    'export',
    ...[...inStore, '--profile', 'tree', '--object', type, '-o', at('ids.tar.xz')],
  )
  t.match(made.stderr, warning)

  const { url } = await startTestService(t, () => [], { store })
  const post = (route: string) => {
    const body = formOf({ name: 'type.el.o', bytes: readFileSync(type) })
    return fetch(`${url}${route}`, { method: 'POST', body })
  }
  const one = await post(`/v1/minimize?kernel=${NAME}`)
  t.match(JSON.parse(one.headers.get('btfmill-warnings')!), [/./, warning])
  const all = await (await post('/v1/minimize')).text()
  t.match(JSON.parse(all).warnings, [/./, warning])
  const manifest = await (await post('/v1/bundles?profile=tree&part=manifest')).text()
  t.match(JSON.parse(manifest).objects[0].warnings, [/./, /of struct task_struct/])
})
