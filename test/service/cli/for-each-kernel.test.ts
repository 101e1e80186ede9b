// Tasks for each of many kernels, in threads: results keep the order, and a damaged kernel affects no other.
import { readFileSync } from 'node:fs'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { minimizeBtf, openObject, parseBtf } from '../../../bpf/index.ts'
import { ALL, sweep, withPool } from '../../../service/cli/for-each-kernel.ts'
import { blobKey, openStore, sha256Of } from '../../../storage/index.ts'
import { run, storeOf } from '../../helpers/command.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'

const task = coreObjects('el').get('task')!
const bytesOf = (machine: string) => readFileSync(littleKernels().get(machine)!)
const [x86, i686] = [bytesOf('x86_64'), bytesOf('i686')]

t.test('results come in the order of the kernels, whichever is read first', async (t) => {
  const machines = ['x86_64', 'i686', 'x86_64', 'i686', 'i686', 'x86_64']
  let late = machines.length
  const kernels = machines.map((name) => ({
    name,
    read: async () => {
      for (let turns = late-- * 3; turns > 0; turns--) await new Promise(setImmediate)
      return bytesOf(name)
    },
  }))
  const object = readFileSync(task)
  const swept = await withPool(ALL, (pool) =>
    Array.fromAsync(sweep(pool, 'minimize', kernels, [object])),
  )
  t.same(
    swept.map(({ kernel }) => kernel.name),
    machines,
  )
  for (const one of swept) {
    const whole = bytesOf(one.kernel.name)
    const value = minimizeBtf(parseBtf(whole), [openObject(object)])
    t.match(one, { of: whole.length })
    t.ok('value' in one && Buffer.from(one.value).equals(value))
  }
  t.ok(object.length > 0, 'the object was not transferred away')
})

/** A store of two kernels, of which one's blob is not what its address says. */
async function damagedStore(t: Test): Promise<string> {
  const url = await storeOf(join(t.testdir(), 'store'), [
    { machine: 'i686', release: '5.10.0-1' },
    { machine: 'x86_64', release: '6.1.0-1' },
  ])
  const store = await openStore(url)
  const other = blobKey(sha256Of(x86))
  const { body } = await store.get(other)
  await store.put(blobKey(sha256Of(i686)), Buffer.concat(await body.toArray()))
  return url
}

t.test(
  'BTF that is damaged or missing is reported, and the other kernels are worked on',
  async (t) => {
    const url = await damagedStore(t)
    const name = 'debian/12/i686/5.10.0-1'
    const checked = await run('check', task, '--store', url)
    t.equal(checked.status, 1)
    t.match(checked.stderr, `task.el.o on ${name}: digest_mismatch: blob ${sha256Of(i686)} `)
    t.match(checked.stdout, /^task\.el\.o: 2 kernels: 1 yes, 1 no\n/)

    await unlink(join(url.slice('file:'.length), blobKey(sha256Of(i686))))
    const out = join(t.testdirName, 'out')
    const minimized = await run('minimize', task, '--store', url, '-o', out, '--json')
    t.equal(minimized.status, 1)
    const lines = minimized.stdout.trimEnd().split('\n')
    t.match(
      lines.map((line) => JSON.parse(line)),
      [
        { kernel: name, error: { code: 'not_found' } },
        { kernel: 'debian/12/x86_64/6.1.0-1', of: x86.length },
      ],
    )
  },
)
