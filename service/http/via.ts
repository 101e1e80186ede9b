/* Tells a service that asks this one as its upstream under which id this one asks others, so that loops end. */
import type { FastifyInstance } from 'fastify'
import { Upstreams } from '../upstream/upstreams.ts'
import type { Context } from './context.ts'

/** Adds the header `btfmill-service` to the responses to such a service. */
export function tellService(app: FastifyInstance, { upstreams }: Pick<Context, 'upstreams'>): void {
  if (!upstreams) return
  app.addHook('onRequest', async ({ headers }, reply) => {
    if (Upstreams.hasHops(headers.via)) reply.header('btfmill-service', upstreams.id)
  })
}
