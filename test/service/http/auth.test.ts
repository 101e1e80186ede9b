// Bearer tokens: creation, storage, scopes.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
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
import { run } from '../../helpers/command.ts'
import { ask, startMill } from '../../helpers/test-service.ts'

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
  t.match(await run('token', 'ci', '--tokens', path, '--revoke'), { status: 0 })
  await tokens.reload()
  t.equal(tokens.find(token), undefined, 'it is revoked')
})

t.test('an invalid token file is refused, and a running server keeps its tokens', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const token = await addToken(path, { name: 'a', scopes: ['read'] })
  const tokens = await Tokens.open(path)
  for (const text of ['', '[]', '{"tokens":[{"name":"a"}]}', '{"tokens":[],"more":1}']) {
    writeFileSync(path, text)
    await t.rejects(tokens.reload(), { code: 'invalid_tokens' }, text)
    t.ok(tokens.find(token))
  }
  await t.rejects(Tokens.open(path), { code: 'invalid_tokens' })
  await t.rejects(Tokens.open(`${path}-none`), { code: 'ENOENT' })
})

t.test('requests without a token get 401 where the settings require one', async (t) => {
  const path = join(t.testdir({}), 'tokens.json')
  const token = await addToken(path, { name: 'reader', scopes: ['read'] })
  const tokens = await Tokens.open(path)
  const open = await startMill(t, undefined, { tokens, settings: { metrics: 'token' } })
  t.equal(await statusOf(`${open.url}/v1/kernels`), 200)
  t.equal(await statusOf(`${open.url}/v1/kernels`, token), 200)
  t.equal(
    await statusOf(`${open.url}/v1/kernels`, 'wrong'),
    401,
    'an unknown token is refused even where none is needed',
  )
  t.equal(await statusOf(`${open.url}/metrics`), 401)
  t.equal(await statusOf(`${open.url}/metrics`, token), 200)

  const closed = await startMill(t, undefined, { tokens, settings: { read: 'token' } })
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
