// `npm run demo`: it says what it shows, and ends by itself; with --keep its server stays up until somebody interrupts.
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

/** Runs the demo with a directory for what it leaves; `onLine` sees what it says, and may end it. */
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
  t.same(readdirSync(scratch), [], 'nothing is left')
  return { status, text }
}

const SUMMARY =
  /has no BTF\. A CO-RE program does not load there:\n +libbpf: .*failed to find valid kernel BTF.*\nIt does with\n( {4}.*reports \d+ processes exactly as the guest's shell knows them\n){5}/

t.test('the whole path, and its summary', async (t) => {
  const { status, text } = await demo(t, [])
  t.equal(status, 0)
  t.match(text, SUMMARY)
  for (const step of ['generate', 'serve', 'fetch', 'build', 'boot without', 'boot with'])
    t.match(text, new RegExp(`^    ${step} +\\d+\\.\\d s$`, 'm'))
  t.match(text, /^ {4}\d+\.\d MB of \d+\.\d MB read, \d+\.\d MB of BTF made/m)
})

t.test('--keep leaves the server up', async (t) => {
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
