// The function names of stored kernels: `check` and /v1/check judge kprobes by them, here and on a service.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readBtf } from '../../bpf/index.ts'
import { openStore, putRecord, putSymbols, symbolsKey } from '../../storage/index.ts'
import { formOf } from '../helpers/bundles.ts'
import { run } from '../helpers/command.ts'
import { littleKernels, wholeKernel } from '../helpers/core.ts'
import { probeObject } from '../helpers/probe-object.ts'
import { ask, btfOf, recordOf, startTestService } from '../helpers/test-service.ts'

const directory = t.testdir({})
const location = `file:${join(directory, 'store')}`
const store = await openStore(location)
const small = readBtf(readFileSync(littleKernels().get('x86_64')!))
const btf = await btfOf(store, Buffer.from(wholeKernel(small, ['vfs_read']).bytes))
const text = 'account_start.isra.0\nsometimes inlined\nvfs_read\n'
const symbols = { ...(await putSymbols(store, Buffer.from(text))), functions: 3, inlined: 1 }
const told = recordOf({ release: '6.1.0-1' }, { btf, symbols })
// the same BTF, so only the names make a difference
const untold = recordOf({ release: '6.1.0-2' }, { btf })
for (const record of [told, untold]) await putRecord(store, record)

const objects = {
  'note.o': { seen: 'kprobe/vfs_read', missed: 'kprobe/sometimes' },
  'there.o': { seen: 'kprobe/vfs_read' },
  'gone.o': { renamed: 'kprobe/account_start' },
}
const bytesOf = (name: keyof typeof objects) => readFileSync(join(directory, name))
for (const [name, sections] of Object.entries(objects))
  writeFileSync(join(directory, name), probeObject(sections))
const check = (name: keyof typeof objects, release: string, ...args: string[]) =>
  run('check', join(directory, name), '--release', release, ...args)
const onStore = ['--store', location]
const service = await startTestService(t, () => [], { store })

for (const [where, from] of Object.entries({
  'a store': onStore,
  'a service': ['--server', service.url],
})) {
  t.test(`check on the kernels of ${where} judges kprobes by the names of functions`, async (t) => {
    t.same(await check('there.o', told.kernel.release, ...from), {
      status: 0,
      stdout: 'there.o on debian/12/x86_64/6.1.0-1: yes\n',
      stderr: '',
    })
    t.match(await check('gone.o', told.kernel.release, ...from), {
      status: 1,
      stdout:
        /^gone\.o on .*: no\n {2}renamed: account_start is not among .*account_start\.isra\.0 of it \[missing_target\]\n$/,
    })
    const older = await check('gone.o', untold.kernel.release, ...from)
    t.match(older, { status: 3, stdout: /account_start is not among the functions in .*BTF/ })
  })

  t.test(
    `a kprobe on ${where} that misses inlined calls is noted, and the exit status is 0`,
    async (t) => {
      t.same(await check('note.o', told.kernel.release, ...from), {
        status: 0,
        stdout: [
          'note.o on debian/12/x86_64/6.1.0-1: yes',
          '  missed: attaches to sometimes, but misses calls that the compiler inlined (note) [missed_calls]',
          '',
        ].join('\n'),
        stderr: '',
      })
      const { stdout } = await check('note.o', told.kernel.release, ...from, '--json')
      t.match(JSON.parse(stdout), { verdict: 'yes', loads: 'yes' })
    },
  )
}

t.test('each report format has the note as a note', async (t) => {
  const report = async (format: string) => {
    const made = await check('note.o', told.kernel.release, ...onStore, '--format', format)
    t.equal(made.status, 0)
    return made.stdout
  }
  t.match(await report('github'), /^::notice file=.*,title=missed_calls::missed: attaches to/)
  t.match(JSON.parse(await report('sarif')).runs[0].results, [{ level: 'note' }])
  t.match(await report('junit'), /failures="0".*\n<testcase [^>]*><system-out>.*missed_calls/)
})

t.test('a service shows the symbols of a kernel, and checks against them', async (t) => {
  const listed = await ask(`${service.url}/v1/kernels?release=6.1.0-1`)
  t.match(listed.json, { kernels: [{ symbols }] })
  const post = async (name: keyof typeof objects, query: string) => {
    const body = formOf({ name, bytes: bytesOf(name) })
    const answer = await fetch(`${service.url}/v1/check?${query}`, { method: 'POST', body })
    const lines = (await answer.text()).trimEnd().split('\n')
    return lines.map((line) => JSON.parse(line).verdict)
  }
  const one = (release: string) => `kernel=debian/12/x86_64/${release}`
  t.same(await post('gone.o', one('6.1.0-1')), ['no'])
  t.same(await post('gone.o', one('6.1.0-2')), ['cannot_tell'])
  t.same(await post('gone.o', 'distro=debian'), ['no', 'cannot_tell'])
  t.same(await post('there.o', one('6.1.0-1')), ['yes'])
})

t.test('a check goes on without names that are damaged', async (t) => {
  const other = await openStore(`file:${join(directory, 'damaged')}`)
  await btfOf(other, Buffer.from(wholeKernel(small, ['vfs_read']).bytes))
  await putRecord(other, told)
  await other.put(symbolsKey(symbols.sha256), Buffer.from('damaged'))
  const from = ['--store', `file:${join(directory, 'damaged')}`]
  t.match(await check('gone.o', told.kernel.release, ...from), { status: 3 })
  t.match(await check('there.o', told.kernel.release, ...from), { status: 0 })
})
