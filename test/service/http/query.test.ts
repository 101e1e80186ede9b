// Query strings: `+` in the names of kernels, and parameters that no route knows.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { FastifyInstance, RouteOptions } from 'fastify'
import t from 'tap'
import { request } from 'undici'
import { buildApp } from '../../../service/index.ts'
import { Catalog, openStore } from '../../../storage/index.ts'
import { formOf, objectFile } from '../../helpers/bundles.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

t.test('a plus sign in a query is a plus sign, encoded or not', async (t) => {
  const release = '7.3.4+deb13-amd64'
  const unameVersion = '#1 SMP Debian 7.3.4-1+deb13u1'
  const { url } = await startTestService(t, async (store) => [
    recordOf({ release, unameVersion, version: '13' }, { btf: await btfOf(store, RAW.little) }),
  ])
  for (const asked of [release, release.replace('+', '%2B')]) {
    t.ok((await ask(`${url}/v1/btf?release=${asked}`)).bytes.equals(RAW.little), asked)
    const { json } = await ask(`${url}/v1/kernels?release=${asked}`)
    t.match(json?.kernels, [{ kernel: { release } }], `a filter by ${asked}`)
    t.match((await ask(`${url}/v1/kernels?release=*${asked.slice(5)}`)).json?.kernels, [{}])
    const { statusCode, body } = await request(`${url}/v1/check?kernel=debian/13/x86_64/${asked}`, {
      method: 'POST',
      body: formOf(objectFile('exists')) as never,
    })
    t.match(await body.text(), '7.3.4+deb13-amd64')
    t.equal(statusCode, 200, `kernel=debian/13/x86_64/${asked}`)
    const identifier = `distribution=debian&distribution_version=13&arch=x86_64&kernel_version=${asked}`
    t.equal((await ask(`${url}/api/v1/download?${identifier}`)).status, 200, 'btfhub-online')
  }
  // clients encode the spaces of `uname -v` in both ways
  const query = new URLSearchParams({ 'uname-version': unameVersion }).toString()
  t.match(query, /\+SMP\+/)
  for (const version of [query, query.replaceAll('+', '%20')])
    t.equal((await ask(`${url}/v1/btf?release=${release}&${version}`)).status, 200, version)
  const many = `${'&'.repeat(1200)}unknown=1`
  t.equal((await ask(`${url}/v1/kernels?${many}`)).status, 400, 'no parameter is dropped')
})

/** An app, and all routes that are registered in it. */
async function appWithRoutes(): Promise<{ app: FastifyInstance; routes: RouteOptions[] }> {
  const routes: RouteOptions[] = []
  const collect = (message: unknown) => {
    const { fastify } = message as { fastify: FastifyInstance }
    fastify.addHook('onRoute', (route) => void routes.push(route))
  }
  subscribe('fastify.initialization', collect)
  const store = await openStore('memory:')
  const generator = {
    request: () => undefined,
    get: () => undefined,
    async *watch() {},
    underWay: 0,
  }
  const app = await buildApp({
    store,
    catalog: await Catalog.open(store),
    settings: { generate: 'on-miss' },
    generator: generator as never,
  })
  unsubscribe('fastify.initialization', collect)
  await app.ready()
  return { app, routes }
}

t.test('every route refuses a query parameter that it does not know, by its name', async (t) => {
  const { app, routes } = await appWithRoutes()
  t.teardown(() => app.close())
  const calls = routes.flatMap(({ method, url }) =>
    [method].flat().map((m) => ({ method: m, url })),
  )
  for (const url of ['/healthz', '/metrics', '/openapi.json', '/v1/check', '/v1/jobs/:id'])
    t.ok(
      calls.some((call) => call.url === url),
      url,
    )
  t.ok(calls.length > 40, `${calls.length} routes`)
  for (const { method, url } of calls) {
    const path = url.replaceAll(/:\w+|\*/g, 'x')
    const answer = await app.inject({ method: method as 'GET', url: `${path}?buidl=00` })
    t.equal(answer.statusCode, 400, `${method} ${url}`)
    if (method !== 'HEAD')
      t.match(
        answer.json(),
        { code: 'invalid_request', detail: /^unknown query parameter "buidl"; this route takes / },
        `${method} ${url}`,
      )
  }
})

t.test('the error lists the parameters that the route takes', async (t) => {
  const { url } = await startTestService(t)
  const detailOf = async (path: string) => (await ask(`${url}${path}`)).json?.detail
  t.match(
    await detailOf('/v1/btf/a/b/c/d?buidl=00'),
    /^unknown query parameter "buidl"; this route takes build, uname-version, ambiguous, .*modules/,
  )
  t.match(await detailOf('/v1/btf?relase=6.1'), /"relase"; this route takes release, distro, /)
  t.equal(
    await detailOf('/healthz?verbose'),
    'unknown query parameter "verbose"; this route takes no query parameters',
  )
  t.equal(
    await detailOf(`/healthz?${'%0a'.repeat(100)}`),
    `unknown query parameter "${'\\n'.repeat(64)}"; this route takes no query parameters`,
  )
})
