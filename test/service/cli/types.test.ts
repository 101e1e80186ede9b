// btfmill index, search and history: over a store and over a service; and diff of kinds, and of what an object uses.
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openStore, putRecord } from '../../../storage/index.ts'
import { run } from '../../helpers/command.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'
import { compileBtf, SMALL_KERNELS } from '../../helpers/kernel-series.ts'
import { ask, btfOf, recordOf, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

t.setTimeout(300_000)

const directory = mkdtempSync(join(tmpdir(), 'types-'))
t.teardown(() => rmSync(directory, { recursive: true }))
const path = join(directory, 'store')
const store = await openStore(`file:${path}`)
for (const [release, source] of SMALL_KERNELS)
  await putRecord(
    store,
    recordOf({ release }, { btf: await btfOf(store, compileBtf(directory, source)) }),
  )
const { url } = await startTestService(t, undefined, {
  store: await openStore(`file:${path}`),
  settings: { index: join(directory, 'served.sqlite') },
})
await until(
  () => ask(`${url}/v1/stats`),
  ({ status }) => status === 200,
)

t.test('index takes up what is new, beside a store on disk, and rebuilds', async (t) => {
  const first = await run('index', '--store', path)
  t.match(first, { status: 0, stderr: '' })
  t.match(
    first.stdout,
    /^\S+store-state\/declarations\.sqlite: 3 kernels, 3 BTFs \(3 new, 0 failed\), /,
  )
  t.match((await run('index', '--store', path)).stdout, '(0 new, 0 failed)')
  t.match((await run('index', '--store', path, '--rebuild')).stdout, '(3 new, 0 failed)')
  const other = join(directory, 'other.sqlite')
  const json = JSON.parse((await run('index', '--store', path, '--index', other, '--json')).stdout)
  t.match(json, { path: other, kernels: 3, added: 3, failed: 0 })
  t.ok(existsSync(other))
})

t.test('history prints a line for each run of a series', async (t) => {
  const { status, stdout } = await run('history', 'struct task_struct', '--store', path)
  t.equal(status, 0)
  t.equal(
    stdout,
    [
      'struct task_struct: 3 forms',
      '  debian 12 x86_64 -amd64: 3 kernels',
      '     6.1.0-1-amd64     1 kernel  24 bytes, 3 members',
      '     6.1.0-2-amd64     1 kernel  24 bytes, 4 members  added flags; 1 moved',
      '     6.1.0-10-amd64    1 kernel  24 bytes, 4 members  renamed state to __state',
      '',
    ].join('\n'),
  )
  t.equal(
    (await run('history', 'task_struct.state', '--store', path)).stdout,
    [
      'struct task_struct, state',
      '  debian 12 x86_64 -amd64: 3 kernels',
      '     6.1.0-1-amd64   to 6.1.0-2-amd64  2 kernels  long, offset 8, 8 bytes',
      '     6.1.0-10-amd64                    1 kernel   not there                went, renamed to __state',
      '',
    ].join('\n'),
  )
  t.match((await run('history', 'mode.MODE_B', '--store', path)).stdout, '= 2  renumbered')
  t.match(
    (await run('history', 'vfs_read', '--store', path)).stdout,
    'was int vfs_read(int fd, char *to)',
  )
})

t.test('a service gives the same answers as its store', async (t) => {
  for (const args of [
    ['search', 'task_struct'],
    ['search', 'BPF_MAP_TYPE_HASH', '--kind', 'map_type', '--json'],
    ['search', '6.1.0'],
    ['search', 'nothing'],
    ['history', 'task_struct', '--json'],
    ['history', 'task_struct.pid'],
    ['history', 'task_str'],
    ['history', 'vfs_read', '--arch', 'arm64'],
  ]) {
    const here = await run(...args, '--store', path)
    t.same(await run(...args, '--server', url), here, args.join(' '))
    t.equal(here.status, args.includes('nothing') || args.includes('task_str') ? 1 : 0)
  }
})

t.test('a name that no kernel has is an error with names near it', async (t) => {
  t.same(await run('history', 'task_str', '--store', path), {
    status: 1,
    stdout: '',
    stderr: 'btfmill: no kernel declares task_str: did you mean task_struct?\n',
  })
  t.match(await run('search', 'nothing', '--store', path), {
    status: 1,
    stderr: 'btfmill: nothing is called nothing\n',
  })
  t.match(await run('search', 'a', '--kind', 'x', '--store', path), { status: 2 })
  t.match(await run('search', 'a', '--limit', '101', '--store', path), { status: 2 })
})

t.test('diff of kinds, and of what an object uses', async (t) => {
  const two = ['6.1.0-2-amd64', '6.1.0-10-amd64', '--store', path, '--json']
  const kinds = async (...args: string[]) => {
    const { added, removed, changed } = JSON.parse((await run('diff', ...two, ...args)).stdout)
    return [added, removed, changed].map((all) => all.map(({ name }: { name: string }) => name))
  }
  t.same(await kinds('--kind', 'enum'), [[], [], ['mode']])
  t.same(await kinds('--kind', 'struct', '--kind', 'func'), [
    ['fresh'],
    [],
    ['task_struct', 'vfs_read'],
  ])
  const [x86, i686] = ['x86_64', 'i686'].map((machine) => littleKernels().get(machine)!)
  const object = coreObjects('el').get('task')!
  const all = JSON.parse((await run('diff', x86!, i686!, '--json')).stdout)
  const used = JSON.parse((await run('diff', x86!, i686!, '--object', object, '--json')).stdout)
  t.ok(used.changed.some(({ name }: { name: string }) => name === 'task_struct'))
  t.ok(used.changed.length < all.changed.length)
  t.match(await run('diff', x86!, x86!, '--object', object), { status: 0 })
})
