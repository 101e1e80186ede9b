/* What stands before every route: headers that keep browsers in check, and limits on what one client asks. */
import helmet, { type FastifyHelmetOptions } from '@fastify/helmet'
import rateLimit, { type RateLimitPluginOptions } from '@fastify/rate-limit'
import fastify, { type FastifyInstance } from 'fastify'
import { ServiceError } from '../error.ts'
import { registerAccess } from './auth.ts'
import type { Context } from './context.ts'
import { UNREADY } from './readiness.ts'
import { callerOf } from './requester.ts'

/** So many clients are counted at once; who asked longest ago is forgotten. */
const CALLERS = 20_000

/**
 * What is not a page has nothing that a browser should load. A proxy that speaks TLS is who says that there is only TLS;
 * what only pages need, or browsers that are gone, is left out.
 */
const HEADERS: FastifyHelmetOptions = {
  strictTransportSecurity: false,
  contentSecurityPolicy: {
    useDefaults: false,
    directives: { 'default-src': ["'none'"], 'frame-ancestors': ["'none'"] },
  },
  originAgentCluster: false,
  xDnsPrefetchControl: false,
  xDownloadOptions: false,
  xPermittedCrossDomainPolicies: false,
  xXssProtection: false,
}

/** The headers that helmet gives every answer. They are always the same, and making them takes a tenth of a request. */
async function helmetHeaders(): Promise<Record<string, string>> {
  const app = fastify()
  await app.register(helmet, HEADERS)
  app.get('/', async (_, reply) => reply.raw.getHeaders())
  const { body } = await app.inject('/')
  await app.close()
  return JSON.parse(body)
}

/** Guards the routes registered after. Errors: `unavailable`, `uri_too_long`, `rate_limited`, those of access. */
export async function registerGuards(app: FastifyInstance, context: Context): Promise<void> {
  const { settings, readiness, tokens } = context
  const { urlLimit, rateLimit: max, read } = settings
  const headers = await helmetHeaders()
  app.addHook('onRequest', (request, reply, done) => {
    reply.headers(headers)
    if (request.url.length > urlLimit)
      done(new ServiceError('uri_too_long', `an address has at most ${urlLimit} characters`))
    else if (!readiness.loaded) done(new ServiceError('unavailable', UNREADY.loading))
    else done()
  })
  registerAccess(app, { tokens, anonymous: read === 'anonymous' })
  if (max > 0) await app.register(rateLimit, limiting(max))
}

const limiting = (max: number): RateLimitPluginOptions => ({
  max,
  timeWindow: 60_000,
  cache: CALLERS,
  keyGenerator: callerOf,
  addHeaders: {
    'x-ratelimit-limit': false,
    'x-ratelimit-remaining': false,
    'x-ratelimit-reset': false,
  },
  errorResponseBuilder: (_, { ttl }) =>
    new ServiceError('rate_limited', `at most ${max} requests a minute`, {
      details: { retryAfter: Math.ceil(ttl / 1000) },
    }),
})
