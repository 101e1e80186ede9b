/*
 * What Prometheus scrapes. Labels are of closed sets: routes as they are registered, never addresses; statuses;
 * operations. What others count in plain numbers is read when it is scraped.
 */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Context } from './context.ts'
import { problems, text } from './schema.ts'

const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export class Metrics {
  readonly registry = new Registry()
  readonly #requests: Histogram<'method' | 'route' | 'status'>
  readonly #bytes: Counter<'route'>
  readonly #store: Histogram<'operation' | 'result'>

  constructor() {
    const registers = [this.registry]
    this.#requests = new Histogram({
      name: 'btfmill_http_request_duration_seconds',
      help: 'Requests, by how long their answers took',
      labelNames: ['method', 'route', 'status'],
      buckets: SECONDS,
      registers,
    })
    this.#bytes = new Counter({
      name: 'btfmill_http_response_bytes_total',
      help: 'Bytes of bodies whose length was known before',
      labelNames: ['route'],
      registers,
    })
    this.#store = new Histogram({
      name: 'btfmill_store_operation_duration_seconds',
      help: 'What the store was asked, by how long it took; its bodies are read after',
      labelNames: ['operation', 'result'],
      buckets: SECONDS,
      registers,
    })
  }

  /** Counts an operation of the store; `result` is `ok` or an error's code. */
  storeOperation(operation: string, result: string, seconds: number): void {
    this.#store.observe({ operation, result }, seconds)
  }

  /** A number that only grows and that somebody else counts, by its labels. */
  counter(
    name: string,
    help: string,
    read: () => Readonly<Record<string, number>>,
    label?: string,
  ): void {
    const counter = new Counter({
      name,
      help,
      labelNames: label === undefined ? [] : [label],
      registers: [this.registry],
      collect() {
        this.reset()
        for (const [value, count] of Object.entries(read()))
          this.inc(label === undefined ? {} : { [label]: value }, count)
      },
    })
    void counter
  }

  /** A number as it is now; none where it is not known. */
  gauge(name: string, help: string, read: () => number | undefined): void {
    const gauge = new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        const value = read()
        if (value === undefined) this.reset()
        else this.set(value)
      },
    })
    void gauge
  }

  /** Counts an answer: by its route as it is registered, none where there is no such route. */
  answer(method: string, route = 'none', status: number, seconds: number, bytes: number): void {
    this.#requests.observe({ method, route, status }, seconds)
    if (bytes > 0) this.#bytes.inc({ route }, bytes)
  }
}

/** Counts and times all requests to an app, and what its parts count; nothing where that is off. */
export function registerMetrics(app: FastifyInstance, context: Context): void {
  const { metrics, settings, catalog, readiness, memory, misses, bodies, archives, onDemand } =
    context
  if (settings.metrics === 'off') return
  collectDefaultMetrics({ register: metrics.registry })
  app.addHook('onResponse', ({ method, routeOptions }, reply, done) => {
    const length = method === 'HEAD' ? 0 : Number(reply.getHeader('content-length') ?? 0)
    metrics.answer(method, routeOptions.url, reply.statusCode, reply.elapsedTime / 1000, length)
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
  metrics.gauge('btfmill_memory_bytes', 'Bytes of bodies in memory', () => memory.size)
  metrics.counter(
    'btfmill_memory_bodies_total',
    'Bodies that were found in memory, were made, or had to go',
    () => memory.counts,
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
