/* Guards of every route: headers that keep browsers in check, access control, and limits on one client. */
import rateLimit, { type RateLimitPluginOptions } from '@fastify/rate-limit'
import type { FastifyInstance } from 'fastify'
import { client } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import { registerAccess } from './auth.ts'
import type { Context } from './context.ts'
import { registerCrossOrigin } from './cross-origin.ts'
import { UNREADY } from './readiness.ts'
import { callerOf } from './requester.ts'

/** Clients whose requests are counted at a time; the least recent is dropped. */
const CALLERS = 20_000

/**
 * The headers that keep browsers in check, as helmet's defaults have them for what is not a page: there is nothing to
 * load, to frame or to run. Strict-Transport-Security is left to the proxy that speaks TLS. The values are constants:
 * helmet would build them again for every request.
 */
export const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none';frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'SAMEORIGIN',
} as const

/** Sends `SECURITY_HEADERS` with every response, also where there is no route. */
export function registerSecurityHeaders(app: FastifyInstance): void {
  app.addHook('onRequest', (_, reply, done) => {
    reply.headers(SECURITY_HEADERS)
    done()
  })
}

/** Guards all routes registered later. Errors: `unavailable`, `uri_too_long`, `rate_limited`; those of `registerAccess`. */
export async function registerGuards(app: FastifyInstance, context: Context): Promise<void> {
  const { settings, readiness, tokens } = context
  const { urlLimit, rateLimit: max, read } = settings
  registerCrossOrigin(app, { anonymous: read === 'anonymous' })
  app.addHook('onRequest', (request, _, done) => {
    if (request.url.length > urlLimit)
      done(
        new ServiceError(
          'uri_too_long',
          `the URL has ${request.url.length} characters; the limit is ${urlLimit}`,
        ),
      )
    else if (!readiness.loaded) done(new ServiceError('unavailable', UNREADY.loading))
    else done()
  })
  registerAccess(app, { tokens, anonymous: read === 'anonymous' })
  app.addHook('preHandler', (request, _, done) => client.run(callerOf(request), done))
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
    new ServiceError('rate_limited', `rate limit exceeded: ${max} requests per minute and client`, {
      details: { retryAfter: Math.ceil(ttl / 1000) },
    }),
})
