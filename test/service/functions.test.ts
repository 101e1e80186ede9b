// The function names of stored kernels: `check` and /v1/check judge kprobes by them, here and on a service.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readBtf } from '../../bpf/index.ts'
import { type ReportFormat, reportOf } from '../../service/cli/check-report.ts'
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
const raw = Buffer.from(wholeKernel(small, ['vfs_read']).bytes)
const btf = await btfOf(store, raw)
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
for (const [name, sections] of Object.entries(objects))
  writeFileSync(join(directory, name), probeObject(sections))
const file = (name: keyof typeof objects) => join(directory, name)
const service = await startTestService(t, () => [], { store })
const kernel = ['--release', told.kernel.release]
const note = 'attaches to sometimes, but misses calls that the compiler inlined'

t.test('check judges kprobes by the names of functions', async (t) => {
  const files = [file('there.o'), file('note.o'), file('gone.o')]
  const { status, stdout } = await run('check', ...files, ...kernel, '--store', location)
  t.equal(status, 1)
  t.same(stdout.split('\n'), [
    'there.o on debian/12/x86_64/6.1.0-1: yes',
    'note.o on debian/12/x86_64/6.1.0-1: yes',
    `  missed: ${note} (note) [missed_calls]`,
    'gone.o on debian/12/x86_64/6.1.0-1: no',
    '  renamed: account_start is not among the functions of this kernel: the compiler made account_start.isra.0 of it [missing_target]',
    '',
  ])
})

t.test('check on a service shows a note too, and its exit status is 0', async (t) => {
  const found = await run('check', file('note.o'), ...kernel, '--server', service.url)
  t.match(found, { status: 0, stdout: new RegExp(`: yes\\n {2}missed: ${note} `), stderr: '' })
})

t.test('each report format has a note as a note', async (t) => {
  const reason = { code: 'missed_calls', verdict: 'yes', stage: 'run', message: note } as const
  const findings = [{ program: 'missed', reason }]
  const results = [{ object: 'note.o', kernel: 'k', verdict: 'yes', findings }] as const
  const report = (format: ReportFormat) => [...reportOf(format, results, {})].join('\n')
  t.match(report('github'), /^::notice file=note\.o,title=missed_calls::missed: attaches to/)
  t.match(JSON.parse(report('sarif')).runs[0].results, [{ level: 'note' }])
  t.match(report('junit'), /failures="0".*\n<testcase [^>]*><system-out>.*missed_calls/)
  const both = [...findings, { reason: { ...reason, message: 'what decides', verdict: 'no' } }]
  const failed = [{ ...results[0], verdict: 'no', findings: both }] as const
  t.match([...reportOf('junit', failed as never, {})].join(), /<failure message="what decides"/)
})

/** The verdicts of /v1/check for an object. */
async function verdicts(url: string, name: keyof typeof objects, query: string) {
  const body = formOf({ name, bytes: readFileSync(file(name)) })
  const answer = await fetch(`${url}/v1/check?${query}`, { method: 'POST', body })
  const lines = (await answer.text()).trimEnd().split('\n')
  return lines.map((line) => JSON.parse(line).verdict)
}
const one = (release: string) => `kernel=debian/12/x86_64/${release}`

t.test('a service shows the symbols of a kernel, and checks against them', async (t) => {
  const listed = await ask(`${service.url}/v1/kernels?release=6.1.0-1`)
  t.match(listed.json, { kernels: [{ symbols }] })
  t.same(await verdicts(service.url, 'gone.o', one('6.1.0-1')), ['no'])
  t.same(await verdicts(service.url, 'gone.o', one('6.1.0-2')), ['cannot_tell'])
  t.same(await verdicts(service.url, 'gone.o', 'distro=debian'), ['no', 'cannot_tell'])
  t.same(await verdicts(service.url, 'there.o', one('6.1.0-1')), ['yes'])
})

t.test('a check goes on without names that are damaged', async (t) => {
  const other = await startTestService(t, async (damaged) => {
    await btfOf(damaged, raw)
    await damaged.put(symbolsKey(symbols.sha256), Buffer.from('damaged'))
    return [told]
  })
  t.same(await verdicts(other.url, 'gone.o', one('6.1.0-1')), ['cannot_tell'])
  t.same(await verdicts(other.url, 'there.o', one('6.1.0-1')), ['yes'])
})
