/* /metrics, and the hook that counts every request. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { collectDefaultMetrics } from 'prom-client'
import type { Context } from '../http/context.ts'
import { problems, text } from '../http/schema.ts'
import { catalogCounts } from '../kernel/catalog-counts.ts'
import { VERSION } from '../version.ts'

/** Counts and times all requests to an app, and exports the counts of its parts; does nothing if metrics are off. */
export function registerMetrics(app: FastifyInstance, context: Context): void {
  const { metrics, settings, catalog, readiness, bodyCache, misses, bodies, archives } = context
  const { onDemand, upstreams } = context
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
  metrics.labelledGauge(
    'btfmill_build_info',
    'The version of btfmill; always 1',
    ['version'],
    () => [[{ version: VERSION }, 1]],
  )
  metrics.gauge('btfmill_catalog_builds', 'Records in the catalog', () => catalog.size)
  const counts = catalogCounts(catalog)
  metrics.labelledGauge(
    'btfmill_kernels',
    'Builds of kernels by distribution and state: available, embedded (the kernel has BTF of its own), failed',
    ['distro', 'state'],
    () =>
      counts().flatMap(({ distro, states }) =>
        Object.entries(states).map(([state, count]) => [{ distro, state }, count] as const),
      ),
  )
  metrics.labelledGauge(
    'btfmill_newest_kernel_timestamp_seconds',
    'Time when the newest BTF of a distribution was made, in seconds since 1970',
    ['distro'],
    () =>
      counts().flatMap(({ distro, newest }) =>
        newest === undefined ? [] : [[{ distro }, newest] as const],
      ),
  )
  metrics.gauge(
    'btfmill_catalog_unusable_records',
    'Records that could not be read, are invalid, or are of a newer btfmill',
    () => catalog.unusable,
  )
  metrics.gauge(
    'btfmill_catalog_age_seconds',
    'Seconds since the catalog was last equal to the store',
    () => (readiness.loadedAt === undefined ? undefined : (Date.now() - readiness.loadedAt) / 1000),
  )
  metrics.gauge(
    'btfmill_missed_kernels',
    'Kernels that were requested and have no BTF',
    () => misses.size,
  )
  metrics.counter(
    'btfmill_misses_total',
    'Requests for kernels without BTF, and kernels dropped from the list of misses to bound it',
    () => misses.counts,
    'result',
  )
  metrics.counter(
    'btfmill_bodies_built_total',
    'Blobs read from the store, BTF derived from other BTF, archives packed, deltas made',
    () => ({ ...bodies.counts, ...archives.counts, ...context.deltas.counts }),
    'kind',
  )
  metrics.gauge('btfmill_body_cache_bytes', 'Bytes of bodies in memory', () => bodyCache.size)
  metrics.counter(
    'btfmill_body_cache_events_total',
    'Bodies found in memory, built, or evicted',
    () => bodyCache.counts,
    'result',
  )
  metrics.gauge(
    'btfmill_result_cache_bytes',
    'Bytes of results for BPF objects in memory',
    () => context.objects.results.size,
  )
  metrics.counter(
    'btfmill_result_cache_events_total',
    'Results for BPF objects found in memory, computed, or evicted',
    () => context.objects.results.counts,
    'result',
  )
  const { declarations } = context
  if (declarations) {
    metrics.gauge(
      'btfmill_index_kernels',
      'Kernels in the index of all types',
      () => declarations.state.kernels,
    )
    metrics.gauge(
      'btfmill_index_waiting',
      'BTFs of the catalog that are not in the index yet, or could not be read for it',
      () => declarations.state.waiting,
    )
    metrics.gauge(
      'btfmill_index_bytes',
      'Bytes of the index of all types',
      () => declarations.state.bytes,
    )
    metrics.gauge(
      'btfmill_index_update_timestamp_seconds',
      'Time when the index was last brought in line with the catalog, in seconds since 1970',
      () => declarations.state.updatedAt,
    )
    metrics.gauge(
      'btfmill_index_update_duration_seconds',
      'Seconds that the last update of the index took',
      () => declarations.state.seconds,
    )
  }
  if (upstreams) {
    metrics.gauge(
      'btfmill_upstreams_away',
      'Upstreams that did not answer, and are asked later',
      () => upstreams.away,
    )
    metrics.counter(
      'btfmill_upstream_kernels_total',
      'Kernels asked for upstream, and taken, missing or failed there',
      () => upstreams.counts,
      'result',
    )
  }
  if (!onDemand) return
  metrics.gauge(
    'btfmill_generations',
    'Kernels whose BTF is being generated or waits for it',
    () => onDemand.generator.underWay,
  )
  metrics.counter(
    'btfmill_generations_total',
    'On-demand generations started, by outcome, and refused because of a limit',
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
      summary: 'Metrics for Prometheus',
      response: { 200: text('samples'), ...problems() },
    }
    app.get('/metrics', { config: { scope }, schema }, async (_, reply) => {
      reply.type(registry.contentType).header('cache-control', 'no-store')
      return await registry.metrics()
    })
  }
