/*
 * Cross-origin reads (CORS): pages of other origins may read the routes that say so, if everyone may read without a token.
 * Where reading needs a token, no header is sent, and browsers keep the answers from other pages. Such a GET needs no
 * preflight, so there is no OPTIONS route. Nothing that a cookie or a token gives is ever shared: `*` excludes credentials.
 */
import type { FastifyInstance } from 'fastify'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** whether pages of other origins may read what anyone may read */
    crossOrigin?: boolean
  }
}

/** Headers of an answer that other pages may see, besides the usual ones. */
const EXPOSED = 'btfmill-kernel, btfmill-found-by, content-location, etag, retry-after'

/** Lets other origins read the routes registered later that have `crossOrigin` in their config. */
export function registerCrossOrigin(
  app: FastifyInstance,
  { anonymous }: { anonymous: boolean },
): void {
  if (!anonymous) return
  app.addHook('onRequest', (request, reply, done) => {
    if (request.routeOptions.config.crossOrigin)
      reply.headers({
        'access-control-allow-origin': '*',
        'access-control-expose-headers': EXPOSED,
      })
    done()
  })
}
