// btfmill list: kernels with their state, failed sources, filters, and the width of a terminal.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openStore, putRecord, putSourceResult } from '../../../storage/index.ts'
import { MAIN, run, storeOf } from '../../helpers/command.ts'
import { recordOf } from '../../helpers/test-service.ts'

const directory = mkdtempSync(join(tmpdir(), 'list-'))
t.teardown(() => rmSync(directory, { recursive: true }))
const url = await storeOf(directory, [
  { machine: 'x86_64', release: '6.1.0-55-amd64' },
  { machine: 'x86_64', release: '6.1.0-56-amd64' },
  { machine: 's390x', release: '6.1.0-56-s390x' },
])
await putRecord(await openStore(url), recordOf({ arch: 'i686', release: '6.1.0-56-686' }))

t.test('list --json counts the kernels that share one BTF, listed or not', async (t) => {
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

t.test(
  'list prints a header and a row for each kernel, with the number that share its BTF',
  async (t) => {
    const { stdout } = await run('list', '--store', url)
    const rows = stdout.trimEnd().split('\n')
    t.equal(rows.length, 5)
    t.match(rows[0], /^DISTRO +VERSION +ARCH +RELEASE +PACKAGE +STATE +DETAILS$/)
    const saying = rows.filter((row) => /, shared by 2$/.test(row))
    t.same(
      saying.map((row) => row.split(/ +/)[3]),
      ['6.1.0-55-amd64', '6.1.0-56-amd64'],
    )
  },
)

t.test('list says which filter matches no kernel, and which values are near', async (t) => {
  const cases = [
    [['--distro', 'debain'], 'no kernels match --distro debain: did you mean debian?'],
    [['--distro', 'debian', '--distro-version', '13'], '--distro-version 13: did you mean 12?'],
    [['--distro', 'debian', '--distro', 'ubuntu'], '--distro ubuntu: there are debian'],
    [['--release', '6.1.0-65-amd64'], 'did you mean 6.1.0-55-amd64 or 6.1.0-56-amd64?'],
    [['--arch', 'riscv64'], 'no kernels match --arch riscv64: there are i686, s390x, x86_64'],
  ] as const
  for (const [filters, message] of cases) {
    const ended = await run('list', '--store', url, ...filters)
    t.match(ended, { status: 1, stdout: '', stderr: message })
  }
})

t.test('list on a terminal cuts the last column at its width', async (t) => {
  const { stdout } = spawnSync(
    'script',
    [
      ...['--quiet', '--return', '--command'],
      `stty columns 70; ${process.execPath} ${MAIN} list --store ${url}`,
      '/dev/null',
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const lines = stdout.trimEnd().split(/\r?\n/)
  t.equal(lines.length, 5)
  t.ok(lines.every((line) => line.length <= 70))
  t.match(
    lines.find((line) => line.includes('6.1.0-55-amd64')),
    / available +\d.*…$/,
  )
})

t.test('list shows a failed source only where the filters match its kernels', async (t) => {
  const store = await openStore(url)
  const at = '2026-11-01T12:00:00.000Z'
  const failure = {
    code: 'unreachable',
    message: 'no route',
    attempts: 1,
    at,
    retryAt: at,
  } as const
  const failed = { schema: 1, url: 'http://127.0.0.1', failure } as const
  await putSourceResult(store, { ...failed, source: 'debian', suite: 'bookworm-x86_64' })
  await putSourceResult(store, { ...failed, source: 'alma', suite: '9 9-x86_64' })
  const failures = async (...filters: string[]) => {
    const { stdout } = await run('list', '--store', url, '--json', ...filters)
    const lines = stdout
      .trimEnd()
      .split('\n')
      .filter((line) => line !== '')
    return lines.map((line) => JSON.parse(line)).flatMap(({ source }) => source ?? [])
  }
  t.same(await failures(), ['alma', 'debian'])
  t.same(await failures('--distro', 'debian'), ['debian'])
  t.same(await failures('--distro', 'almalinux', '--distro-version', '9'), ['alma'])
  t.same(await failures('--distro-version', '12'), ['debian'])
  t.same(await failures('--arch', 'amd64'), ['alma', 'debian'])
  t.same(await failures('--arch', 's390x'), [])
  t.same(await failures('--release', '6.1.0-56-*'), [])
  const { stdout } = await run('list', '--store', url, '--distro', 'almalinux')
  t.match(stdout, /\nalmalinux +9 +x86_64 +failed +source alma: unreachable: no route, due /)
})

t.test('commands that only read make no store, and say that there is none', async (t) => {
  const none = join(directory, 'none')
  const commands = [
    ...[
      ['list'],
      ['gc'],
      ['verify'],
      ['verify', '--repair'],
      ['dump', 'newest'],
      ['diff', 'a', 'b'],
    ],
    ...[
      ['check', MAIN],
      ['minimize', MAIN, '-o', none],
      ['export', '--profile', 'tree'],
    ],
  ]
  for (const args of commands) {
    const { status, stderr } = await run(...args, '--store', none)
    t.equal(status, 1, args.join(' '))
    if (!['check', 'minimize'].includes(args[0]!))
      t.match(stderr, `btfmill: not_found: no store at ${none}: the directory does not exist`)
    t.throws(() => rmSync(none), { code: 'ENOENT' }, args.join(' '))
  }
})

t.test('a plain path is a store, and list of one without kernels says so', async (t) => {
  const { status, stdout } = await run('list', '--store', directory, '--release', '*-55-*')
  t.equal(status, 0)
  t.match(stdout, '6.1.0-55-amd64')
  const empty = await run('list', '--store', t.testdir())
  t.match(empty, { status: 0, stdout: '', stderr: `btfmill: no kernels in ${t.testdirName}\n` })
})
