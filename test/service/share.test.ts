// With an index, commands and services work once for kernels that have the same answer; what they say is the same.
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { request, type FormData as UndiciFormData } from 'undici'
import { parseBtf } from '../../bpf/index.ts'
import { blobKey, openStore, putRecord, sha256Of } from '../../storage/index.ts'
import { formOf, objectFile } from '../helpers/bundles.ts'
import { run } from '../helpers/command.ts'
import { coreObjects, littleKernels, wholeKernel } from '../helpers/core.ts'
import { mutated, shuffled } from '../helpers/sharing.ts'
import { btfOf, recordOf, startTestService } from '../helpers/test-service.ts'
import { until } from '../helpers/wait-until.ts'

const folder = t.testdir({ objects: {} })
const url = `file:${join(folder, 'store')}`
const index = join(folder, 'store-state/declarations.sqlite')
const store = await openStore(url)

/** Three kernels, and for each some that have the same types under other numbers, and some that differ a little. */
const builds = await Promise.all(
  (['x86_64', 'i686', 's390x'] as const).map(async (arch) => {
    const small = parseBtf(await readFile(littleKernels().get(arch)!))
    const raw = Buffer.from(wholeKernel(small, ['do_exit']).bytes)
    const all = [
      raw,
      ...[1, 2].map((n) => shuffled(raw, n)),
      ...[1, 2, 5, 9].map((n) => mutated(raw, n)),
    ]
    return { arch, all }
  }),
)
for (const { arch, all } of builds)
  for (const [n, raw] of all.entries())
    await putRecord(
      store,
      recordOf({ arch, release: `6.1.${n}-amd64` }, { btf: await btfOf(store, raw) }),
    )

const names = ['task', 'exists'] as const
const files = names.map((name) => coreObjects('el').get(name)!)

const commands = [
  ['check', ...files, '--json'],
  ['minimize', ...files, '--json', '-o', join(folder, 'out')],
  ['export', '--object', files[0]!, '-o', join(folder, 'out.tar'), '--unsupported', 'include'],
]

/** What a command says, and all files that it writes. */
async function outcome(words: readonly string[]) {
  for (const name of ['out', 'out.tar'])
    await rm(join(folder, name), { recursive: true, force: true })
  const { status, stdout, stderr } = await run(...words, '--store', url)
  const written: Record<string, string> = {}
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true }))
    if (entry.isFile() && entry.parentPath.includes(join(folder, 'out')))
      written[join(entry.parentPath, entry.name)] = sha256Of(
        await readFile(join(entry.parentPath, entry.name)),
      )
  return { status, stdout, stderr, written }
}

t.test(
  'commands say the same with an index, and without one, and with one of no use',
  async (t) => {
    const before = []
    for (const words of commands) before.push(await outcome(words))
    t.ok(before.some(({ stdout }) => stdout.includes('"verdict":"yes"')))
    t.equal((await run('index', '--store', url)).status, 0)
    for (const [n, words] of commands.entries())
      t.same(await outcome(words), before[n], words.join(' '))
    const whole = await readFile(index)
    await writeFile(index, 'no index')
    t.same(await outcome(commands[0]!), before[0])
    await writeFile(index, whole)
  },
)

t.test('BTF of kernels whose answer is known is not read', async (t) => {
  const other = sha256Of(builds[0]!.all[2]!)
  const key = blobKey(other)
  const blob = Buffer.concat(await (await store.get(key)).body.toArray())
  const before = await run('check', files[0]!, '--json', '--store', url)
  await store.delete(key)
  t.teardown(() => store.put(key, blob))
  t.same(await run('check', files[0]!, '--json', '--store', url), before)
  await store.put(key, blob)
})

t.test('a service answers for many kernels as for each of them', async (t) => {
  const served = await startTestService(t, () => [], { store, settings: { index } })
  const plain = await startTestService(t, () => [], { store })
  await until(
    async () => (await request(`${served.url}/v1/stats`)).statusCode,
    (status) => status === 200,
  )
  const objects = names.map((name) => objectFile(name))
  const post = async (home: string, path: string) => {
    const body = formOf(...objects) as unknown as UndiciFormData
    const { statusCode, body: answer } = await request(`${home}${path}`, { method: 'POST', body })
    return { statusCode, text: Buffer.from(await answer.arrayBuffer()).toString('latin1') }
  }
  for (const path of [
    ...[
      '/v1/check',
      '/v1/minimize',
      '/v1/check?all-programs=true',
      '/v1/minimize?dialect=libbpf-0.5',
    ],
    '/v1/bundles?profile=tree&unsupported=include&part=manifest',
  ]) {
    const [shared, again, alone] = [
      await post(served.url, path),
      await post(served.url, path),
      await post(plain.url, path),
    ]
    t.equal(shared.statusCode, 200, `${path} ${shared.text.slice(0, 200)}`)
    t.same(shared, alone, path)
    t.same(again, alone, `${path}, again`)
  }
})
