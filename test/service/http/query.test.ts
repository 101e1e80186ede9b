// Query parameters that no route knows.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { FastifyInstance, RouteOptions } from 'fastify'
import t from 'tap'
import { buildApp } from '../../../service/index.ts'
import { Catalog, openStore } from '../../../storage/index.ts'
import { ask, startMill } from '../../helpers/test-service.ts'

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
  const { url } = await startMill(t)
  const detailOf = async (path: string) => (await ask(`${url}${path}`)).json?.detail
  t.equal(
    await detailOf('/v1/btf/a/b/c/d?buidl=00'),
    'unknown query parameter "buidl"; this route takes build, uname-version, ambiguous, dialect, modules',
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
