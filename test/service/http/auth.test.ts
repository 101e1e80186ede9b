// Bearer tokens: creation, storage, scopes.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import fastify from 'fastify'
import t from 'tap'
import { registerAccess } from '../../../service/http/auth.ts'
import { registerProblems } from '../../../service/http/problem.ts'
import {
  addToken,
  removeToken,
  SCOPES,
  type TokenScope,
  Tokens,
} from '../../../service/http/token.ts'
import { startServer } from '../../../service/index.ts'
import { openStore, type Store, sha256Of } from '../../../storage/index.ts'
import { run } from '../../helpers/command.ts'
import { ask, startTestService } from '../../helpers/test-service.ts'
import { ready, until } from '../../helpers/wait-until.ts'

const asking = (url: string, token?: string) =>
  ask(url, token === undefined ? {} : { authorization: `Bearer ${token}` })

const statusOf = async (url: string, token?: string) => (await asking(url, token)).status

t.test('`btfmill token` prints a token and stores only its hash', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const made = await run('token', 'ci', '--tokens', path, '--scope', 'generate', '--days', '30')
  t.equal(made.status, 0, made.stderr)
  const token = made.stdout.trimEnd()
  t.match(token, /^btfmill_[\w-]{43}$/)
  t.notMatch(readFileSync(path, 'utf8'), token.slice(8))
  const tokens = await Tokens.open(path)
  t.match(tokens.find(token), { name: 'ci', scopes: ['generate'], expires: String })
  t.equal(tokens.find(`${token}x`), undefined)
  t.equal(tokens.find(''), undefined)
  t.equal(tokens.find(token, Date.now() + 31 * 24 * 3600 * 1000), undefined, 'it has expired')

  t.match(await run('token', 'ci', '--tokens', path), {
    status: 1,
    stderr: /a token named ci exists/,
  })
  t.match(await run('token', 'a b', '--tokens', path), {
    status: 1,
    stderr: /invalid token name "a b"/,
  })
  t.match(await run('token', 'x', '--tokens', path, '--scope', 'all'), { status: 2 })
  t.match(await run('token', 'revoke', 'ci', '--tokens', path), { status: 0, stdout: '' })
  await tokens.reload()
  t.equal(tokens.find(token), undefined, 'it is revoked')
})

t.test('`btfmill token list` shows names, scopes and expiry, and no secret', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const token = await addToken(path, { name: 'reader', scopes: ['read'] })
  const expires = '2026-01-01T00:00:00.000Z'
  await addToken(path, { name: 'ci', scopes: ['read', 'generate'], expires })
  const { status, stdout, stderr } = await run('token', 'list', '--tokens', path)
  t.equal(status, 0, stderr)
  t.match(
    stdout,
    /^NAME +SCOPES +EXPIRES\nreader +read +never\nci +read, generate +2026-01-01T00:00:00.000Z \(expired\)\n$/,
  )
  const json = await run('token', '--tokens', path, 'list', '--json')
  t.same(
    json.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
    [
      { name: 'reader', scopes: ['read'] },
      { name: 'ci', scopes: ['read', 'generate'], expires },
    ],
  )
  for (const shown of [stdout, json.stdout]) t.notMatch(shown, sha256Of(token))
  const refused = [
    [['revoke', 'none', '--tokens', path], { status: 1, stderr: /no token named none/ }],
    [['revoke'], { status: 2, stderr: /missing required argument/ }],
    [['--days', '3', 'list'], { status: 2, stderr: /--days is only for a new token/ }],
    [['list', '--tokens', `${path}-none`], { status: 1, stderr: /ENOENT/ }],
  ] as const
  await Promise.all(
    refused.map(async ([args, wrong]) =>
      t.match(await run('token', ...args), wrong, args.join(' ')),
    ),
  )
})

t.test('while the token file is missing or invalid, no token is valid', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const token = await addToken(path, { name: 'a', scopes: ['read'] })
  const good = readFileSync(path, 'utf8')
  const tokens = await Tokens.open(path)
  const bad = ['', '[]', '{"tokens":[{"name":"a"}]}', '{"tokens":[],"more":1}', good.slice(0, -9)]
  for (const text of bad) {
    writeFileSync(path, text)
    await t.rejects(tokens.reload(), { code: 'invalid_tokens' }, text)
    t.equal(tokens.find(token), undefined, text)
    await t.rejects(tokens.reload(), { code: 'invalid_tokens' }, 'it stays invalid')
    writeFileSync(path, good)
    await tokens.reload()
    t.ok(tokens.find(token), 'the file is whole again')
  }
  rmSync(path)
  await t.rejects(tokens.reload(), { code: 'ENOENT' })
  t.equal(tokens.find(token), undefined, 'the file is gone')
  await t.rejects(Tokens.open(path), { code: 'ENOENT' })
})

t.test('a revoked token stops working while the store hangs', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const token = await addToken(path, { name: 'a', scopes: ['read'] })
  const store = await openStore('memory:')
  let hangs = false
  const head: Store['head'] = (...args) => (hangs ? new Promise(() => {}) : store.head(...args))
  const hanging = new Proxy(store, {
    get: (of, name) =>
      name === 'head' ? head : (Reflect.get(of, name).bind?.(of) ?? Reflect.get(of, name)),
  })
  const server = await startServer({
    store: hanging,
    config: { listen: '127.0.0.1:0', drain: 0, refresh: 1, tokens: path, read: 'token' },
  })
  t.teardown(() => server.stop())
  await ready(server.url)
  const url = `${server.url}/v1/kernels`
  t.equal(await statusOf(url, token), 200)
  hangs = true
  await sleep(1500) // the service looks at the store meanwhile
  await removeToken(path, 'a')
  await until(
    () => statusOf(url, token),
    (status) => status === 401,
  )
  const stopped = performance.now()
  await server.stop()
  t.ok(performance.now() - stopped < 5000, 'the service stops while the store hangs')
})

t.test('requests without a token get 401 where the settings require one', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const token = await addToken(path, { name: 'reader', scopes: ['read'] })
  const tokens = await Tokens.open(path)
  const open = await startTestService(t, undefined, { tokens, settings: { metrics: 'token' } })
  t.equal(await statusOf(`${open.url}/v1/kernels`), 200)
  t.equal(await statusOf(`${open.url}/v1/kernels`, token), 200)
  t.equal(
    await statusOf(`${open.url}/v1/kernels`, 'wrong'),
    401,
    'an unknown token is refused even where none is needed',
  )
  t.equal(await statusOf(`${open.url}/metrics`), 401)
  t.equal(await statusOf(`${open.url}/metrics`, token), 200)

  const closed = await startTestService(t, undefined, { tokens, settings: { read: 'token' } })
  for (const path of ['/v1/kernels', '/v1/btf/a/b/c/d', '/metrics', '/openapi.json', '/docs/']) {
    const { status, headers, json } = await asking(`${closed.url}${path}`)
    t.equal(status, 401, path)
    t.equal(headers['www-authenticate'], 'Bearer')
    t.match(json, { code: 'unauthorized' })
  }
  for (const path of ['/healthz', '/readyz']) t.equal(await statusOf(`${closed.url}${path}`), 200)
  t.equal(await statusOf(`${closed.url}/v1/kernels`, token), 200)
  await removeToken(path, 'reader')
  await tokens.reload()
  t.equal(await statusOf(`${closed.url}/v1/kernels`, token), 401)
})

t.test('a token gives only its own scopes, and every token may read', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const made = new Map<TokenScope, string>()
  for (const scope of SCOPES)
    made.set(scope, await addToken(path, { name: scope, scopes: [scope] }))
  const app = fastify()
  t.teardown(() => app.close())
  app.decorateRequest('holder', undefined)
  registerProblems(app)
  registerAccess(app, { tokens: await Tokens.open(path), anonymous: true })
  for (const scope of SCOPES) app.get(`/${scope}`, { config: { scope } }, async () => 'done')
  for (const wanted of SCOPES) {
    const none = await app.inject(`/${wanted}`)
    t.equal(none.statusCode, wanted === 'read' ? 200 : 401, `${wanted}, without a token`)
    for (const [held, token] of made) {
      const headers = { authorization: `Bearer ${token}` }
      const { statusCode, body } = await app.inject({ url: `/${wanted}`, headers })
      const may = wanted === 'read' || wanted === held
      t.equal(statusCode, may ? 200 : 403, `${wanted}, by a token for ${held}`)
      if (!may) t.match(JSON.parse(body), { code: 'forbidden' })
    }
  }
})
