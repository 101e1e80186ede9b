// list: kernels and their state, and which share one BTF.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openStore, putRecord } from '../../../storage/index.ts'
import { run, storeOf } from '../../helpers/command.ts'
import { recordOf } from '../../helpers/test-service.ts'

const directory = mkdtempSync(join(tmpdir(), 'list-'))
t.teardown(() => rmSync(directory, { recursive: true }))
const url = await storeOf(directory, [
  { machine: 'x86_64', release: '6.1.0-55-amd64' },
  { machine: 'x86_64', release: '6.1.0-56-amd64' },
  { machine: 's390x', release: '6.1.0-56-s390x' },
])
await putRecord(await openStore(url), recordOf({ arch: 'i686', release: '6.1.0-56-686' }))

t.test('how many share one BTF, be they among what is listed or not', async (t) => {
  const { status, stdout } = await run('list', '--store', url, '--json', '--release', '*-56-*')
  t.equal(status, 0)
  const lines = stdout.trimEnd().split('\n')
  const shared = lines.map((line) => {
    const { state, kernel, sharedBy } = JSON.parse(line)
    return [kernel.release, state, sharedBy]
  })
  t.same(shared, [
    ['6.1.0-56-686', 'failed', undefined],
    ['6.1.0-56-s390x', 'available', 1],
    ['6.1.0-56-amd64', 'available', 2],
  ])
})

t.test('in a row it is said of those that do', async (t) => {
  const { stdout } = await run('list', '--store', url)
  const rows = stdout.trimEnd().split('\n')
  t.equal(rows.length, 4)
  const saying = rows.filter((row) => /, shared by 2$/.test(row))
  t.same(
    saying.map((row) => row.split(/ +/)[3]),
    ['6.1.0-55-amd64', '6.1.0-56-amd64'],
  )
})
