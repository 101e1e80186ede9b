import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { runChild } from '../../generator/subprocess.ts'

const SECONDS = 30
const MIB = 1024 ** 2

/** A program that takes so many bytes and keeps them until it is ended. */
const greedy = (bytes: number): [string, string[]] => [
  process.execPath,
  ['-e', `const all = Buffer.alloc(${bytes}, 1); setInterval(() => all, 1000)`],
]

t.test('what a program says, and how it ends', async (t) => {
  const script = 'cat; echo out; echo err >&2; exit 3'
  t.match(await runChild('sh', ['-c', script], { seconds: SECONDS }), {
    ended: 'status',
    status: 3,
    signal: null,
    stdout: Buffer.from('out\n'),
    stderr: 'err',
  })
})

t.test('arguments reach it as they are', async (t) => {
  const args = ['%s\\n', '$(id) `id` ; id', '"', '*', '']
  const { stdout } = await runChild('printf', args, { seconds: SECONDS })
  t.equal(stdout.toString(), '$(id) `id` ; id\n"\n*\n\n')
})

t.test('ended by a signal of its own', async (t) => {
  const result = await runChild('sh', ['-c', 'kill -SEGV $$'], { seconds: SECONDS })
  t.match(result, { ended: 'signal', status: null, signal: 'SIGSEGV' })
})

t.test("a terminal's SIGINT that came while it started: it is started again, once", async (t) => {
  const mark = join(t.testdir(), 'mark')
  const once = `test -e ${mark} || { touch ${mark}; kill -INT $$; }; echo done`
  const [second, never] = await Promise.all(
    [once, 'kill -INT $$'].map((script) => runChild('sh', ['-c', script], { seconds: SECONDS })),
  )
  t.match(second, { ended: 'status', status: 0, stdout: Buffer.from('done\n') })
  t.match(never, { ended: 'signal', signal: 'SIGINT' })
})

t.test('a program that is not there', async (t) => {
  for (const limits of [{}, { fileSize: MIB }]) {
    const result = await runChild('no-such-program', [], { seconds: SECONDS, ...limits })
    t.equal(result.ended, 'missing', JSON.stringify(limits))
  }
})

t.test('time', async (t) => {
  const result = await runChild('sleep', ['600'], { seconds: 0.2 })
  t.match(result, { ended: 'time', signal: 'SIGKILL' })
})

t.test('memory', async (t) => {
  const limits = { seconds: SECONDS, memory: 200 * MIB }
  t.match(await runChild(...greedy(400 * MIB), limits), { ended: 'memory', signal: 'SIGKILL' })
  const modest = await runChild(process.execPath, ['-e', 'setTimeout(() => {}, 200)'], limits)
  t.match(modest, { ended: 'status', status: 0 })
})

t.test('the size of a file it writes', async (t) => {
  const file = join(t.testdir(), 'file')
  const limits = { seconds: SECONDS, fileSize: MIB }
  const write = (count: number) =>
    runChild('dd', ['if=/dev/zero', `of=${file}`, 'bs=65536', `count=${count}`], limits)
  t.match(await write(16), { ended: 'status', status: 0 }, 'just within')
  t.match(await write(17), { ended: 'signal', signal: 'SIGXFSZ' })
  t.equal(statSync(file).size, MIB)
})

t.test('of endless stderr the end is kept, of endless stdout the beginning', async (t) => {
  const script = 'yes stdout | head -c 40000000; yes noise | head -c 9000000 >&2; echo why >&2'
  const { stdout, stderr } = await runChild('sh', ['-c', script], { seconds: SECONDS })
  t.ok(stderr.endsWith('noise\nwhy') && stderr.length <= 4096, `${stderr.length} characters`)
  t.ok(stdout.toString('latin1', 0, 14) === 'stdout\nstdout\n')
  t.ok(stdout.length <= 16 * MIB, `${stdout.length} bytes`)
})

t.test('aborted before it starts, and while it runs', async (t) => {
  const reason = new Error('enough')
  const mark = join(t.testdir(), 'pid')
  const script = `echo $$ > ${mark}; exec sleep 600`
  const run = (signal: AbortSignal) => runChild('sh', ['-c', script], { seconds: 600, signal })
  await t.rejects(run(AbortSignal.abort(reason)), reason)
  t.notOk(existsSync(mark), 'it was not started')

  const controller = new AbortController()
  const running = run(controller.signal)
  while (!existsSync(mark) || statSync(mark).size === 0) await pause(5)
  controller.abort(reason)
  await t.rejects(running, reason)
  const pid = readFileSync(mark, 'utf8').trim()
  t.notOk(existsSync(`/proc/${pid}`), 'it is no more')
})
