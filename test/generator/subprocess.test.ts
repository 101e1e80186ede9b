import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { runChild } from '../../generator/subprocess.ts'

const SECONDS = 30
const MIB = 1024 ** 2

/** A program that allocates some bytes and keeps them until it is killed. */
const greedy = (bytes: number): [string, string[]] => [
  process.execPath,
  ['-e', `const all = Buffer.alloc(${bytes}, 1); setInterval(() => all, 1000)`],
]

t.test('a program that exits gives its status, stdout and stderr', async (t) => {
  const script = 'cat; echo out; echo err >&2; exit 3'
  t.match(await runChild('sh', ['-c', script], { seconds: SECONDS }), {
    ended: 'status',
    status: 3,
    signal: null,
    stdout: Buffer.from('out\n'),
    stderr: 'err',
  })
})

t.test('arguments reach the program unchanged, without a shell', async (t) => {
  const args = ['%s\\n', '$(id) `id` ; id', '"', '*', '']
  const { stdout } = await runChild('printf', args, { seconds: SECONDS })
  t.equal(stdout.toString(), '$(id) `id` ; id\n"\n*\n\n')
})

t.test('a program that a signal ends gives the signal', async (t) => {
  const result = await runChild('sh', ['-c', 'kill -SEGV $$'], { seconds: SECONDS })
  t.match(result, { ended: 'signal', status: null, signal: 'SIGSEGV' })
})

t.test('a program that Ctrl-C hits while it starts is started once more', async (t) => {
  const mark = join(t.testdir(), 'mark')
  const once = `test -e ${mark} || { touch ${mark}; kill -INT $$; }; echo done`
  const [second, never] = await Promise.all(
    [once, 'kill -INT $$'].map((script) => runChild('sh', ['-c', script], { seconds: SECONDS })),
  )
  t.match(second, { ended: 'status', status: 0, stdout: Buffer.from('done\n') })
  t.match(never, { ended: 'signal', signal: 'SIGINT' })
})

t.test('a program that is not installed is reported as missing', async (t) => {
  for (const limits of [{}, { fileSize: MIB }]) {
    const result = await runChild('no-such-program', [], { seconds: SECONDS, ...limits })
    t.equal(result.ended, 'missing', JSON.stringify(limits))
  }
})

t.test('a program that exceeds its time limit is killed', async (t) => {
  const result = await runChild('sleep', ['600'], { seconds: 0.2 })
  t.match(result, { ended: 'time', signal: 'SIGKILL' })
})

t.test('a program that exceeds its memory limit is killed, and a smaller one is not', async (t) => {
  const limits = { seconds: SECONDS, memory: 200 * MIB }
  t.match(await runChild(...greedy(400 * MIB), limits), { ended: 'memory', signal: 'SIGKILL' })
  const modest = await runChild(process.execPath, ['-e', 'setTimeout(() => {}, 200)'], limits)
  t.match(modest, { ended: 'status', status: 0 })
})

t.test('a program cannot write a file beyond its size limit', async (t) => {
  const file = join(t.testdir(), 'file')
  const limits = { seconds: SECONDS, fileSize: MIB }
  const write = (count: number) =>
    runChild('dd', ['if=/dev/zero', `of=${file}`, 'bs=65536', `count=${count}`], limits)
  t.match(await write(16), { ended: 'status', status: 0 }, 'exactly the limit')
  t.match(await write(17), { ended: 'signal', signal: 'SIGXFSZ' })
  t.equal(statSync(file).size, MIB)
})

t.test('only the end of a long stderr and the beginning of a long stdout are kept', async (t) => {
  const script = 'yes stdout | head -c 40000000; yes noise | head -c 9000000 >&2; echo why >&2'
  const { stdout, stderr } = await runChild('sh', ['-c', script], { seconds: SECONDS })
  t.ok(stderr.endsWith('noise\nwhy') && stderr.length <= 4096, `${stderr.length} characters`)
  t.ok(stdout.toString('latin1', 0, 14) === 'stdout\nstdout\n')
  t.ok(stdout.length <= 16 * MIB, `${stdout.length} bytes`)
})

t.test('an aborted signal prevents the start, and kills a program that runs', async (t) => {
  const reason = new Error('enough')
  const mark = join(t.testdir(), 'pid')
  const script = `echo $$ > ${mark}; exec sleep 600`
  const run = (signal: AbortSignal) => runChild('sh', ['-c', script], { seconds: 600, signal })
  await t.rejects(run(AbortSignal.abort(reason)), reason)
  t.notOk(existsSync(mark), 'the program was not started')

  const controller = new AbortController()
  const running = run(controller.signal)
  while (!existsSync(mark) || statSync(mark).size === 0) await pause(5)
  controller.abort(reason)
  await t.rejects(running, reason)
  const pid = readFileSync(mark, 'utf8').trim()
  t.notOk(existsSync(`/proc/${pid}`), 'the process is gone')
})
