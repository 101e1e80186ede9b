/* /metrics, and the hook that counts every request. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { collectDefaultMetrics } from 'prom-client'
import type { Context } from '../http/context.ts'
import { problems, text } from '../http/schema.ts'

/** Counts and times all requests to an app, and what its parts count; nothing where that is off. */
export function registerMetrics(app: FastifyInstance, context: Context): void {
  const { metrics, settings, catalog, readiness, bodyCache, misses, bodies, archives, onDemand } =
    context
  if (settings.metrics === 'off') return
  collectDefaultMetrics({ register: metrics.registry })
  app.addHook('onResponse', ({ method, routeOptions }, reply, done) => {
    const length = method === 'HEAD' ? 0 : Number(reply.getHeader('content-length') ?? 0)
    metrics.countResponse(
      method,
      routeOptions.url,
      reply.statusCode,
      reply.elapsedTime / 1000,
      length,
    )
    done()
  })
  metrics.gauge('btfmill_catalog_builds', 'Records in the catalog', () => catalog.size)
  metrics.gauge('btfmill_catalog_age_seconds', 'Since the catalog said what the store says', () =>
    readiness.loadedAt === undefined ? undefined : (Date.now() - readiness.loadedAt) / 1000,
  )
  metrics.gauge(
    'btfmill_missed_kernels',
    'Kernels that were asked for and are not there',
    () => misses.size,
  )
  metrics.counter(
    'btfmill_misses_total',
    'Requests for kernels that are not there, and kernels that were forgotten to make room',
    () => misses.counts,
    'result',
  )
  metrics.counter(
    'btfmill_made_total',
    'Blobs that were read from the store, BTF that was made of others, archives that were packed',
    () => ({ ...bodies.counts, ...archives.counts }),
    'what',
  )
  metrics.gauge('btfmill_memory_bytes', 'Bytes of bodies in memory', () => bodyCache.size)
  metrics.counter(
    'btfmill_memory_bodies_total',
    'Bodies that were found in memory, were made, or had to go',
    () => bodyCache.counts,
    'result',
  )
  metrics.gauge(
    'btfmill_result_bytes',
    'Bytes of what was found out of objects',
    () => context.objects.results.size,
  )
  metrics.counter(
    'btfmill_results_total',
    'What was asked of objects: found in memory, worked out, or had to go',
    () => context.objects.results.counts,
    'result',
  )
  if (!onDemand) return
  metrics.gauge(
    'btfmill_generations',
    'Kernels that are being made, waiting ones among them',
    () => onDemand.generator.underWay,
  )
  metrics.counter(
    'btfmill_generations_total',
    'Kernels asked for and not there: begun, what came of it, refused since too much was under way',
    () => onDemand.counts,
    'result',
  )
}

export const metricRoutes =
  ({ metrics: { registry }, settings }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { metrics: scope } = settings
    if (scope === 'off') return
    const schema = {
      tags: ['Operations'],
      summary: 'What Prometheus scrapes',
      response: { 200: text('samples'), ...problems() },
    }
    app.get('/metrics', { config: { scope }, schema }, async (_, reply) => {
      reply.type(registry.contentType).header('cache-control', 'no-store')
      return await registry.metrics()
    })
  }
