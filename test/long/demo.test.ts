// `npm run demo` ends by itself and prints a summary; with --keep its server stays up until an interrupt.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { request } from 'undici'

const DEMO = join(import.meta.dirname, '../e2e/demo.ts')

interface Shown {
  status: number | null
  text: string
}

/** Runs the demo with a temporary directory of its own. `onLine` sees each line, and may interrupt. */
async function demo(
  t: Test,
  args: readonly string[],
  onLine: (line: string, interrupt: () => void) => Promise<void> = async () => {},
): Promise<Shown> {
  const scratch = t.testdir({})
  const child = spawn(process.execPath, [DEMO, ...args], {
    env: { ...process.env, TMPDIR: scratch },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const ended = once(child, 'close')
  let text = ''
  for await (const line of createInterface(child.stdout)) {
    text += `${line}\n`
    await onLine(line, () => child.kill('SIGINT'))
  }
  const [status] = await ended
  t.same(readdirSync(scratch), [], 'it leaves no files')
  return { status, text }
}

const SUMMARY =
  /has no BTF\. A CO-RE program does not load there:\n +libbpf: .*failed to find valid kernel BTF.*\nIt loads with\n( {4}.*reports \d+ processes as the guest's shell knows them\n){5}/

t.test('the demo goes the whole path and prints the duration of each step', async (t) => {
  const { status, text } = await demo(t, [])
  t.equal(status, 0)
  t.match(text, SUMMARY)
  for (const step of ['generate', 'serve', 'fetch', 'build', 'boot without', 'boot with'])
    t.match(text, new RegExp(`^    ${step} +\\d+\\.\\d s$`, 'm'))
  t.match(text, /^ {4}\d+\.\d MB of \d+\.\d MB read, \d+\.\d MB of BTF generated/m)
})

t.test('with --keep the server stays up until an interrupt', async (t) => {
  let kept = false
  const { status, text } = await demo(t, ['--keep'], async (line, interrupt) => {
    const [, url] = /^(http:\/\/127\.0\.0\.1:\d+) stays up/.exec(line) ?? []
    if (url === undefined) return
    const { statusCode, body } = await request(`${url}/v1/kernels`)
    t.equal(statusCode, 200)
    t.match(await body.json(), { kernels: [{ kernel: { arch: 'i686' } }] })
    kept = true
    interrupt()
  })
  t.ok(kept)
  t.equal(status, 0)
  t.match(text, SUMMARY)
})
