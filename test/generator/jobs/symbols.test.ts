// The function names that a run stores beside the BTF, with and without the inlined calls.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { jobOfFile } from '../../../generator/index.ts'
import { findInlined } from '../../../generator/jobs/inlined.ts'
import { PAHOLE_LIMITS } from '../../../generator/jobs/pahole.ts'
import {
  type BuildRecord,
  getSymbols,
  putRecord,
  symbolsKey,
  verifyStore,
} from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { run } from '../../helpers/command.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { makeVmlinux, manyStructs, RELEASE } from '../../helpers/vmlinux.ts'

const signer = makeSigner(t)

/** A repository of one kernel, in which `helper` is inlined into `start_kernel`, and kept. */
function repositoryIn({ directory }: RunDirectory, { stripped = false } = {}) {
  const image = join(directory, 'vmlinux')
  makeVmlinux(image)
  if (stripped) execFileSync('llvm-objcopy', ['--wildcard', '--strip-symbol=*', image])
  return makeRepository(directory, { packages: [makePackage(directory, image)], signer })
}

const namesIn = async ({ store, records }: RunDirectory) => {
  const [record] = await records()
  return (await getSymbols(store, record!.symbols!.sha256)).toString()
}

t.test('a run stores the names of the functions in the symbol table', async (t) => {
  const env = await makeRunDirectory(t)
  const repository = repositoryIn(env)
  t.match(await env.run(repository), { published: 1 })
  const [record] = await env.records()
  t.equal(await namesIn(env), 'helper\nstart_kernel\n')
  t.match(record?.symbols, { size: 20, functions: 2, inlined: undefined })
  t.same(await Array.fromAsync(verifyStore(env.store)), [])
  t.match(await env.run(repository), { skipped: 1 })
})

t.test('with inlinedCalls it marks those of which some calls are inlined, once', async (t) => {
  const env = await makeRunDirectory(t)
  const repository = repositoryIn(env)
  t.match(await env.run(repository), { published: 1 })
  const stages: string[] = []
  const onEvent = (event: { event: string; stage?: string }) => {
    if (event.stage) stages.push(event.stage)
  }
  const marked = { inlinedCalls: true, onEvent }
  t.match(await env.run(repository, marked), { published: 1 }, 'the record is due again')
  t.same(stages, ['unpack', 'pahole', 'inlined', 'check', 'publish'])
  t.equal(await namesIn(env), 'helper inlined\nstart_kernel\n')
  t.match(await env.records(), [{ symbols: { functions: 2, inlined: 1 } }])
  t.match(await env.run(repository, marked), { skipped: 1 })
  t.match(await env.run(repository, { modules: ['none'] }), { published: 1 })
  t.equal(
    await namesIn(env),
    'helper inlined\nstart_kernel\n',
    'a run that does not look keeps them',
  )
})

t.test('a kernel without DWARF has its inlined calls marked from .BTF.inline', async (t) => {
  const env = await makeRunDirectory(t)
  const image = join(env.directory, 'vmlinux')
  makeVmlinux(image, { btf: true, inline: ['helper'] })
  execFileSync('llvm-objcopy', ['--strip-debug', '--keep-section=.BTF*', '--wildcard', image])
  t.match(await env.run([image], { inlinedCalls: true }), { published: 1 })
  const [record] = await env.records()
  t.match(record, { origin: 'embedded', symbols: { functions: 2, inlined: 1 } })
  t.equal(await namesIn(env), 'helper inlined\nstart_kernel\n')
})

t.test('symbols that were damaged are made again by the next run', async (t) => {
  const env = await makeRunDirectory(t)
  const repository = repositoryIn(env)
  await env.run(repository)
  const [record] = await env.records()
  await env.store.put(symbolsKey(record!.symbols!.sha256), Buffer.from('damaged'))
  await Array.fromAsync(verifyStore(env.store, { repair: true }))
  t.match(await env.run(repository), { published: 1 })
  t.equal(await namesIn(env), 'helper\nstart_kernel\n')
  const [again] = await env.records()
  t.equal(again?.failure, undefined)
  t.same(await Array.fromAsync(verifyStore(env.store)), [])
})

t.test('an image without a symbol table has a record without symbols', async (t) => {
  const env = await makeRunDirectory(t)
  const repository = repositoryIn(env, { stripped: true })
  const marked = { inlinedCalls: true }
  t.match(await env.run(repository, marked), { published: 1 })
  const [record] = await env.records()
  t.match(record, { symbols: undefined, inlinedFailure: { code: 'no_symbols' } })
  t.match(await env.run(repository, marked), { skipped: 1 }, 'it is not tried again')
})

t.test(
  'a record that was made before is valid, and is not made again for its symbols',
  async (t) => {
    const env = await makeRunDirectory(t)
    const repository = repositoryIn(env)
    await env.run(repository)
    const [{ symbols: _, ...older }] = (await env.records()) as [BuildRecord]
    await putRecord(env.store, older)
    t.match(await env.run(repository), { skipped: 1 })
    t.match(await env.run(repository, { inlinedCalls: true }), { published: 1 })
    t.equal(await namesIn(env), 'helper inlined\nstart_kernel\n')
  },
)

t.test('the process that reads inlined calls is limited in time and memory', async (t) => {
  const { directory } = await makeRunDirectory(t)
  const image = join(directory, 'vmlinux')
  makeVmlinux(image, { more: manyStructs(1000) })
  t.same([...(await findInlined(image, PAHOLE_LIMITS))], ['helper'])
  const tight = { memory: 1024 ** 2, seconds: 60 }
  await t.rejects(findInlined(image, tight), { code: 'too_large', message: /over 1 MiB/ })
  const soon = { memory: 1024 ** 3, seconds: 0.01 }
  await t.rejects(findInlined(image, soon), { code: 'too_large', message: /over 0\.01 s/ })
  const broken = join(directory, 'broken')
  makeVmlinux(broken, { debug: false })
  await t.rejects(findInlined(broken, PAHOLE_LIMITS), {
    code: 'invalid_elf',
    message: /debug_abbrev/,
  })
  const gone = new AbortController()
  gone.abort(new Error('stop'))
  await t.rejects(findInlined(image, PAHOLE_LIMITS, gone.signal), { message: 'stop' })
})

t.test('generate --inlined-calls is an option of a job', async (t) => {
  const { directory, storeUrl } = await makeRunDirectory(t)
  const image = join(directory, 'vmlinux')
  makeVmlinux(image)
  t.equal(jobOfFile(image, {}, { inlinedCalls: true }).inlinedCalls, true)
  const made = await run('generate', '--inlined-calls', '--json', '--store', storeUrl, image)
  t.match(made, { status: 0, stdout: new RegExp(`"inlined":1.*|"release":"${RELEASE}"`) })
  t.match(made.stdout, /"symbols":\{"sha256":"[0-9a-f]{64}","size":28,"functions":2,"inlined":1\}/)
})
