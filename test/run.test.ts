/*
 * The test runner, on little projects of its own. Each borrows this checkout's node_modules and .taprc, so that tap is
 * not built again.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

t.setTimeout(120_000)

const ROOT = join(import.meta.dirname, '..')
const MARKER = 'crashed-once'

/** Test files by the name of the project's file. */
const FILES = {
  passes: `import t from 'tap'
    t.ok(true)
    t.skip('later')`,
  fails: `import t from 'tap'
    import { appendFileSync } from 'node:fs'
    appendFileSync('starts', 'x')
    t.ok(true)
    t.ok(false)`,
  crashesOnce: `import t from 'tap'
    import { existsSync, writeFileSync } from 'node:fs'
    t.ok(true)
    if (!existsSync('${MARKER}')) {
      writeFileSync('${MARKER}', '')
      process.kill(process.pid, 'SIGSEGV')
    }
    t.ok(true)`,
  crashesAlways: `process.kill(process.pid, 'SIGSEGV')`,
  failsThenCrashes: `import t from 'tap'
    import { appendFileSync } from 'node:fs'
    import { setTimeout as sleep } from 'node:timers/promises'
    appendFileSync('starts', 'x')
    t.ok(false)
    await sleep(100)
    process.kill(process.pid, 'SIGKILL')
    await sleep(60_000)`,
  hangs: `import t from 'tap'
    import { appendFileSync } from 'node:fs'
    appendFileSync('starts', 'x')
    t.setTimeout(300)
    t.test('a loop', () => { for (;;); })`,
} as const

interface Outcome {
  status: number | null
  /** the lines after the list of the slowest files */
  end: string[]
  lines: string[]
  directory: string
}

/** Runs the runner in a project with these files. */
function runProject(t: Tap, ...names: (keyof typeof FILES)[]): Outcome {
  const directory = t.testdir({
    'package.json': '{ "type": "module" }',
    test: Object.fromEntries(names.map((name) => [`${name}.test.ts`, FILES[name]])),
  })
  symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
  cpSync(join(ROOT, '.taprc'), join(directory, '.taprc'))
  const outer = /^(_?TAP|NODE_OPTIONS)/
  const { status, stdout } = spawnSync(process.execPath, [join(ROOT, 'test/run.ts')], {
    cwd: directory,
    encoding: 'utf8',
    env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !outer.test(name))),
  })
  const lines = stdout.trimEnd().split('\n')
  const slowest = lines.indexOf('slowest files:')
  return { status, lines, end: lines.slice(slowest + 1 + names.length), directory }
}

/** What comes before the names of failed tests. */
const FAILED = ['', 'failed tests:']

type Tap = { testdir: typeof t.testdir }

t.test('a file that crashes once is named and run again, and the run passes', async (t) => {
  const { status, end, lines } = runProject(t, 'crashesOnce', 'passes')
  t.equal(status, 0)
  t.same(end, [
    'crashed: test/crashesOnce.test.ts was ended by SIGSEGV; it passed when run again',
    '3 passed, 0 failed, 1 skipped',
  ])
  t.match(lines.at(-3), /^ +\d+\.\d s {2}test\/\w+\.test\.ts$/, 'a row of the slowest files')
})

t.test(
  'a file that crashes twice fails the run, and a failed assertion is not run again',
  async (t) => {
    const { status, end, directory } = runProject(t, 'crashesAlways', 'fails', 'failsThenCrashes')
    t.equal(status, 1)
    t.same(end, [
      ...FAILED,
      'test/fails.test.ts > should be equal',
      'test/failsThenCrashes.test.ts > should be equal',
      'test/crashesAlways.test.ts',
      'crashed: test/crashesAlways.test.ts was ended by SIGSEGV, and by SIGSEGV when run again',
      'crashed: test/failsThenCrashes.test.ts was ended by SIGKILL after a failed assertion; not run again',
      '1 passed, 3 failed',
    ])
    t.equal(
      readFileSync(join(directory, 'starts'), 'utf8').length,
      2,
      'one start of each other file',
    )
  },
)

t.test('a file whose timeout expires has failed, not crashed', async (t) => {
  const { status, end, directory } = runProject(t, 'hangs')
  t.equal(status, 1)
  t.same(end, [...FAILED, 'test/hangs.test.ts > timeout!', '0 passed, 1 failed'])
  t.equal(readFileSync(join(directory, 'starts'), 'utf8').length, 1)
})
