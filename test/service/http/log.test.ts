// Logs: a line per request with its id, and the configuration without secrets.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { pino } from 'pino'
import t from 'tap'
import { request } from 'undici'
import { MAIN, run } from '../../helpers/command.ts'
import { startTestService } from '../../helpers/test-service.ts'

type Line = Record<string, unknown>

function collecting() {
  const lines: Line[] = []
  const sink = new Writable({
    write(chunk, _, done) {
      lines.push(JSON.parse(String(chunk)))
      done()
    },
  })
  return { lines, logger: pino(sink) }
}

t.test('each request is logged once, with the id of the client or a generated one', async (t) => {
  const { lines, logger } = collecting()
  const { url } = await startTestService(t, undefined, { logger })
  const ask = async (path: string, headers: Record<string, string> = {}) => {
    const answer = await request(`${url}${path}`, { headers })
    await answer.body.dump()
    return answer.headers['x-request-id']
  }
  await ask('/healthz', { 'x-request-id': 'from-me.1' })
  const named = await ask('/v1/btf/a/b/c/d?build=aa', { 'x-request-id': 'not an id' })
  const answered = lines.filter(({ msg }) => msg === 'answered')
  t.match(answered, [
    {
      reqId: 'from-me.1',
      method: 'GET',
      url: '/healthz',
      status: 200,
      ip: '127.0.0.1',
      ms: Number,
    },
    { reqId: named, url: '/v1/btf/a/b/c/d?build=aa', status: 404 },
  ])
  t.equal(answered.length, 2)
  t.type(named, 'string')

  const quiet = collecting()
  const testService = await startTestService(t, undefined, {
    logger: quiet.logger,
    settings: { logRequests: false },
  })
  await request(`${testService.url}/healthz`)
  t.notOk(quiet.lines.some(({ msg }) => msg === 'answered'))
})

t.test('`serve` logs its configuration at start, without secrets', async (t) => {
  const directory = t.testdir({})
  const file = join(directory, 'config.json')
  writeFileSync(file, JSON.stringify({ listen: '127.0.0.1:0', 'rate-limit': 7, 'url-limit': 512 }))
  const args = ['serve', '--config', file, '--store', `file:${directory}/store`, '--drain', '0']
  const env = { ...process.env, BTFMILL_RATE_LIMIT: '8' }
  const child = spawn(process.execPath, [MAIN, ...args], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines: Line[] = []
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as Line
    lines.push(line)
    if (line.msg === 'the catalog is loaded') child.kill('SIGTERM')
  }
  t.equal(child.exitCode ?? (await once(child, 'exit'))[0], 0)
  t.match(lines[0], { config: { listen: '127.0.0.1:0', 'rate-limit': 8, 'url-limit': 512 } })
  t.match(lines.at(-1), { msg: 'btfmill stops', signal: 'SIGTERM' })

  writeFileSync(file, '{')
  t.match(await run('serve', '--config', file), { status: 2, stderr: /config\.json/ })
  t.match(await run('serve', '--rate-limit', '-1'), {
    status: 2,
    stderr: /invalid --rate-limit "-1": expected/,
  })
  const secret = await run('serve', '--listen', '127.0.0.1:0', '--store', 's3://a:hunter2@b/')
  t.equal(secret.status, 1)
  t.notMatch(secret.stdout + secret.stderr, /hunter2/)
})

t.test('on a terminal the log is human-readable, not JSON', async (t) => {
  const serve = `${process.execPath} ${MAIN} serve --listen 127.0.0.1:0 --store memory:`
  const child = spawn('script', ['-qefc', serve, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  let said = ''
  for await (const bytes of child.stdout) {
    said += bytes
    if (/catalog is loaded/.test(said) && child.stdin.writable) child.stdin.end('\u0003') // what Ctrl-C sends
    if (/btfmill stops/.test(said)) break
  }
  t.match(said, /INFO.*btfmill starts/)
  t.notMatch(said, /^\{"level"/m)
})
