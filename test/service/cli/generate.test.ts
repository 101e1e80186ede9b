// btfmill generate: its output for people, pipes and programs, its exit status, and its end by signals.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { request } from 'undici'
import { buildOf, recordKey } from '../../../storage/index.ts'
import { MAIN, run } from '../../helpers/command.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'
import { startServer } from '../../helpers/test-server.ts'
import { makeVmlinux, manyStructs } from '../../helpers/vmlinux.ts'
import { until } from '../../helpers/wait-until.ts'
import { makeDeployment, type Process, summaryOf } from '../../helpers/workers.ts'

const SLOW = manyStructs(200_000)

const ESCAPE = '\u001b'
/** The characters that control a terminal. */
const ESCAPES = new RegExp(`${ESCAPE}|\\r`)

/** A good package and four broken ones. */
async function makeBroken(t: Test) {
  const runDirectory = await makeRunDirectory(t)
  const { directory } = runDirectory
  const image = join(directory, 'vmlinux')
  const make = (number: number, debug = true, empty = false) => {
    const release = `6.1.0-${number}-test`
    makeVmlinux(image, { release, debug })
    return makePackage(directory, empty ? undefined : image, { release })
  }
  const [good, cut] = [make(1), make(2)]
  writeFileSync(cut, readFileSync(cut).subarray(0, -300))
  const files = [good, cut, make(3, false), make(4, false), make(5, true, true)]
  const args = ['--store', runDirectory.storeUrl, '--scratch', runDirectory.scratch, ...files]
  return { ...runDirectory, args }
}

t.test(
  'generate finishes with broken packages, prints them by retry class, and exits 1',
  async (t) => {
    const { args, records, leftovers } = await makeBroken(t)
    const { status, stdout, stderr } = await run('generate', ...args)
    t.equal(status, 1)
    const [summary, empty, head, ...rows] = stdout.trimEnd().split('\n')
    t.match(summary, /^1 published; 0 there already; 4 failed; \d+\.\d MB of packages read$/)
    t.equal(empty, '')
    t.equal(head, 'retry  failure     packages  next try')
    t.same(rows.slice(0, 2), [
      'never  no_dwarf    2         with another btfmill or pahole',
      'never  no_vmlinux  1         with another btfmill or pahole',
    ])
    t.same(rows.slice(2).sort(), ['later  truncated   1         when the pause is over'])
    t.notMatch(stdout + stderr, ESCAPES)
    const lines = stderr.trimEnd().split('\n')
    t.ok(lines.includes('6.1.0-3-test i686: failed: no_dwarf: vmlinux has no .debug_info'))
    t.ok(lines.some((line) => /^6\.1\.0-1-test i686: done in [\d.]+ s, /.test(line)))
    t.same(
      (await records()).map(({ failure }) => failure && [failure.code, failure.retryAt !== null]),
      [
        undefined,
        ['truncated', true],
        ['no_dwarf', false],
        ['no_dwarf', false],
        ['no_vmlinux', false],
      ],
      'failures are stored',
    )
    t.ok((await leftovers()).every((path) => path.startsWith('store/blobs/')))
  },
)

t.test('generate refuses a path that is not a readable file, and creates no store', async (t) => {
  const directory = t.testdir({ vmlinux: '' })
  const store = join(directory, 'store')
  for (const [path, why] of [
    [join(directory, 'typo.deb'), 'it does not exist'],
    [`file://${join(directory, 'typo.deb')}`, 'it does not exist'],
    [directory, 'expected a regular file'],
    ['/dev/null', 'expected a regular file'],
  ] as const) {
    const ended = await run('generate', '--store', store, join(directory, 'vmlinux'), path)
    t.match(ended, { status: 1, stderr: /invalid_file: invalid file ".*": / })
    t.match(ended.stderr, why, path)
    t.notOk(existsSync(store), path)
  }
})

t.test('generate refuses filters that no source has, and lists the near values', async (t) => {
  const store = join(t.testdir(), 'store')
  for (const [filters, message] of [
    [['--distro', 'debian', '--distro', 'debain'], '--distro debain: did you mean debian?'],
    [['--distro', 'debian', '--distro-version', 'trixy'], '--distro-version trixy: there are '],
    [['--distro', 'alma', '--distro-version', '99.1'], '--distro-version 99.1: there are '],
    [['--arch', 'x86-46'], '--arch x86-46: did you mean x86_64?'],
    [['--distro', 'ubuntu', '--arch', 'loong64'], '--arch loong64: there are '],
  ] as const) {
    const ended = await run('generate', '--dry-run', '--store', store, ...filters)
    t.match(ended, { status: 1, stderr: `unknown_source: no source has ${message}` })
  }
  t.notOk(existsSync(store))
})

t.test(
  'generate takes repeated filters together, and refuses a release without package',
  async (t) => {
    const shop = await makeDeployment(t, 3)
    const releases = (...names: string[]) => names.flatMap((name) => ['--release', name])
    const typo = shop.generate(...releases('6.1.0-1-test', '6.1.0-7-tset'))
    t.match(await typo.ended, {
      status: 1,
      stderr: /unknown_source: no packages match --release 6\.1\.0-7-tset: did you mean 6\.1\.0-/,
    })
    t.same(await shop.records(), [], 'nothing was generated')

    const args = [...releases('6.1.0-0-*', '6.1.0-2-test'), '--arch', 'x86', '--arch', 'i386']
    const wanted = ['6.1.0-0-test', '6.1.0-2-test']
    const trial = shop.generate('--dry-run', ...args)
    t.match(await trial.ended, { status: 0 })
    const due = trial.lines.filter((line) => (line.event as string) === 'due') as unknown as {
      kernel: { release: string }
    }[]
    t.same(due.map(({ kernel }) => kernel.release).sort(), wanted, 'what would be made')
    t.same(await shop.records(), [], 'a dry run writes nothing')

    const run = shop.generate(...args)
    t.match(await summaryOf(run), { published: 2 })
    const made = (await shop.records()).map(({ kernel }) => kernel.release)
    t.same(made.sort(), wanted)
    t.match(await shop.generate('--dry-run', ...args).ended, { status: 0 })
  },
)

t.test('files are of one kernel: a repeated filter is wrong usage', async (t) => {
  const file = join(t.testdir({ vmlinux: '' }), 'vmlinux')
  const ended = await run('generate', file, '--distro', 'debian', '--distro', 'ubuntu')
  t.match(ended, { status: 2, stderr: 'invalid filters "debian", "ubuntu"' })
})

t.test('generate --json prints one event per line, and the summary last', async (t) => {
  const { args } = await makeBroken(t)
  const { status, stdout, stderr } = await run('generate', '--json', ...args)
  t.equal(status, 1)
  t.equal(stderr, '')
  const events = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.same(events.at(-1), {
    ...{ event: 'summary', published: 1, skipped: 0, postponed: 0, sourcesFailed: 0 },
    ...{ failed: { truncated: 1, no_dwarf: 2, no_vmlinux: 1 }, left: 0, queued: 0 },
    read: events.at(-1).read,
  })
  t.ok(events.at(-1).read > 1000, 'bytes of packages that were read')
  const jobs = new Map<string, string[]>()
  for (const { job, event } of events.slice(0, -1)) jobs.set(job, [...(jobs.get(job) ?? []), event])
  t.equal(jobs.size, 5, 'each job has an id')
  for (const told of jobs.values()) {
    t.equal(told[0], 'started')
    t.match(told.at(-1), /^(published|failed)$/)
    t.equal(told.filter((event) => event === 'progress').length, 1, 'bytes, once a second')
  }
})

/** Runs a shell command on a terminal of its own. Returns what it showed. */
function onTerminal(command: string): { status: number | null; shown: string } {
  const { status, stdout } = spawnSync(
    'script',
    ['--quiet', '--return', '--command', `stty columns 150; ${command}`, '/dev/null'],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  )
  return { status, shown: stdout }
}

t.test(
  'generate on a terminal shows a line for the run, a bar for each job, and past events',
  async (t) => {
    const { directory, storeUrl, scratch } = await makeRunDirectory(t)
    const image = join(directory, 'vmlinux')
    const files = [1, 2, 3].map((number) => {
      const release = `6.1.0-${number}-test`
      makeVmlinux(image, number === 2 ? { release, debug: false } : { release, more: SLOW })
      return makePackage(directory, image, { release })
    })
    const command = `${process.execPath} ${MAIN} generate --jobs 2 --store ${storeUrl} --scratch ${scratch} ${files.join(' ')}`
    const { status, shown } = onTerminal(command)
    t.equal(status, 1)
    t.match(shown, /-+ 0% \d+ MB pahole 0:\d\d 6\.1\.0-1-test i686/, 'a bar')
    t.match(shown, /[01] done, (1 failed, )?\d+ MB read, 0:\d\d/, 'the run, whichever job is first')
    t.match(shown, /2 done, 1 failed, \d+ MB read, 0:\d\d/, 'and its end')
    const lines = shown
      .replace(new RegExp(`${ESCAPE}\\[[0-9;?]*[A-Za-z]`, 'g'), '\n')
      .split(/[\r\n]+/)
    for (const line of [
      /^6\.1\.0-1-test i686: done in/,
      /^6\.1\.0-2-test i686: failed: no_dwarf: vmlinux has no \.debug_info$/,
      /^6\.1\.0-3-test i686: done in/,
      /^2 published; 0 there already; 1 failed; \d+\.\d MB of packages read$/,
    ])
      t.equal(lines.filter((shown) => line.test(shown)).length, 1, String(line))
    t.ok(
      shown.lastIndexOf(`${ESCAPE}[?7h`) > shown.lastIndexOf(`${ESCAPE}[?7l`),
      'lines wrap again',
    )

    const out = join(directory, 'out')
    const again = onTerminal(`${command} > ${out}`)
    t.equal(again.status, 1)
    t.notMatch(readFileSync(out, 'utf8'), ESCAPES, 'standard output is for the summary')
    t.match(
      readFileSync(out, 'utf8'),
      /^2 published; 0 there already; 1 failed; \d+\.\d MB of packages read\n/,
    )
    t.match(again.shown, /done in/, 'standard error is the terminal still')

    const err = join(directory, 'err')
    const quiet = onTerminal(`${command} 2> ${err}`)
    t.notMatch(readFileSync(err, 'utf8'), ESCAPES)
    t.notMatch(quiet.shown.replaceAll('\r\n', '\n'), ESCAPES)
  },
)

/** Sends a signal as a terminal does: to the run and all processes that it started. */
const interrupt = ({ child }: Process, signal: NodeJS.Signals = 'SIGINT') =>
  process.kill(-child.pid!, signal)

/** The command lines of processes that name a path. */
function processesOf(path: string): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      return line.includes(path) ? [line] : []
    } catch {
      return [] // not a process, or one that ended
    }
  })
}

t.test('the first SIGINT lets running jobs finish and starts no other', async (t) => {
  const shop = await makeDeployment(t, 3, SLOW)
  for (const stage of ['unpack', 'pahole']) {
    const before = (await shop.records()).length
    const run = shop.generate()
    await run.line((line) => line.event === 'stage' && line.stage === stage)
    interrupt(run)
    t.match(await summaryOf(run), { published: 1, left: 2 - before, failed: {} })
    t.match(await run.ended, { status: before < 2 ? 1 : 0, stderr: /finishing running jobs/ })
    t.equal((await shop.records()).length, before + 1)
    t.same(readdirSync(shop.scratch), [])
    await shop.verify()
  }
})

t.test('SIGINT while indexes are read lets them finish and starts no job', async (t) => {
  const shop = await makeDeployment(t, 3)
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const mirror = await startServer(t, async ({ url }, response) => {
    await released
    const answer = await request(new URL(url!, shop.repository.mirror))
    response.writeHead(answer.statusCode).end(Buffer.from(await answer.body.arrayBuffer()))
  })
  const begin = async () => {
    const before = mirror.requests.length
    const run = shop.generate('--mirror', `${mirror.url}/debian`)
    await until(
      async () => mirror.requests.length,
      (asked) => asked > before,
    )
    interrupt(run)
    await run.said(/finishing running jobs/)
    return run
  }
  const ended = await begin()
  interrupt(ended)
  t.match(await ended.ended, { status: 1, stderr: /stopped by SIGINT/ }, 'twice: at once')
  const finished = await begin()
  release()
  t.match(await summaryOf(finished), { published: 0, left: 3, failed: {}, sourcesFailed: 0 })
  t.match(await finished.ended, { status: 1 })
  t.same(await shop.records(), [])
  t.same(readdirSync(shop.scratch), [])
  await shop.verify()
})

t.test(
  'a second SIGINT, or SIGTERM, stops all jobs at once and leaves nothing half-written',
  async (t) => {
    const shop = await makeDeployment(t, 2, SLOW)
    for (const stage of ['unpack', 'pahole', 'check', 'publish']) {
      for (const signals of [['SIGINT', 'SIGINT'], ['SIGTERM']] as const) {
        const run = shop.generate('--jobs', '2')
        await run.line((line) => line.event === 'stage' && line.stage === stage)
        interrupt(run, signals[0])
        if (signals[1]) {
          await run.said(/finishing running jobs/)
          interrupt(run, signals[1])
        }
        const { status, stderr } = await run.ended
        t.equal(status, 1, `${signals} at ${stage}`)
        t.match(stderr, new RegExp(`stopped by ${signals[0]}`))
        t.same(readdirSync(shop.scratch), [])
        t.same(processesOf(shop.scratch), [], 'no program runs on')
        await shop.verify()
        for (const record of await shop.records())
          await shop.store.delete(recordKey(record.kernel, buildOf(record)))
      }
    }
  },
)
