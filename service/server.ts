/*
 * A listening service. It listens at once and loads its catalog as soon as the store answers. Until then it responds
 * `unavailable`, and /readyz reports that it is not ready. Afterwards it keeps the catalog up to date.
 *
 * It stops gracefully: /readyz reports it, every response tells its client to close the connection, and idle connections
 * stay open for `drain` seconds, since a request may be on its way. Then the server accepts no new connections, waits up
 * to `grace` seconds for running requests, and closes the rest.
 */
import { once } from 'node:events'
import type { Server as NetServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { FastifyBaseLogger } from 'fastify'
import { Catalog, type Store } from '../storage/index.ts'
import { parseListen, removeStale, urlOf } from './address.ts'
import { buildApp } from './app.ts'
import { type Config, DEFAULTS } from './config.ts'
import type { BtfGenerator } from './demand/generation.ts'
import { Metrics } from './http/metrics.ts'
import { Readiness } from './http/readiness.ts'
import { meter } from './http/store-metrics.ts'
import { Tokens } from './http/token.ts'

/** Milliseconds between attempts to load the catalog. */
const RELOAD = 1000
/** Length of the accept queue, capped by the system: a fleet that starts connects all at once. */
const BACKLOG = 65_535
/** Milliseconds between two checks for open connections. */
const DRAIN_CHECK = 20

export interface ServerOptions {
  store: Store
  /** settings; `store` and logging are the caller's */
  config?: Partial<Config>
  generator?: BtfGenerator
  logger?: FastifyBaseLogger
}

export interface Server {
  /** `http://host:port` or `unix:path` */
  url: string
  /** Resolves when the last response has been sent. */
  stop(): Promise<void>
}

/** Starts to listen. Errors: `invalid_tokens`; the system's for the address and the token file. */
export async function startServer({
  store,
  logger,
  generator,
  ...options
}: ServerOptions): Promise<Server> {
  const config = { ...DEFAULTS, ...options.config }
  const metrics = new Metrics()
  const metered = meter(store, metrics)
  const catalog = new Catalog(metered, (error) => logger?.warn(error))
  const readiness = new Readiness(metered)
  const tokens = await Tokens.open(config.tokens)
  const app = await buildApp({
    store: metered,
    catalog,
    settings: config,
    readiness,
    tokens,
    metrics,
    ...(generator && { generator }),
    ...(logger && { logger }),
  })
  app.addHook('preClose', () => drain(app.server, config.drain * 1000))
  app.server.maxConnections = config.connections
  const address = parseListen(config.listen)
  if (!address) throw new Error(`invalid address to listen on: ${config.listen}`)
  await removeStale(address)
  await app.listen({ ...address, backlog: BACKLOG })
  const ending = new AbortController()
  const { signal } = ending
  const following = [
    follow({ catalog, readiness, config, logger, signal }),
    tokens.follow(signal, (error) => logger?.error(error, 'no token is valid')),
  ]
  return {
    url: urlOf(app.server),
    stop: async () => {
      readiness.stopping = true
      ending.abort()
      const limit = (config.drain + config.grace) * 1000
      const cut = setTimeout(() => app.server.closeAllConnections(), limit)
      await Promise.all([app.close(), ...following])
      clearTimeout(cut)
    },
  }
}

/** Waits until all connections are closed, for at most `limit` milliseconds. */
async function drain(server: NetServer, limit: number): Promise<void> {
  const connections = promisify(server.getConnections.bind(server))
  const end = performance.now() + limit
  while (performance.now() < end && (await connections()) > 0) await sleep(DRAIN_CHECK)
}

interface Following {
  catalog: Catalog
  readiness: Readiness
  config: Config
  logger: FastifyBaseLogger | undefined
  signal: AbortSignal
}

/** Loads the catalog, then follows the store until the signal aborts. */
async function follow({ catalog, readiness, config, ...rest }: Following): Promise<void> {
  const { logger, signal } = rest
  const aborted = once(signal, 'abort').then(() => false)
  while (!signal.aborted) {
    const following = catalog.follow().then(
      () => true,
      (error) => logger?.error(error),
    )
    // a store that hangs does not hold up the end
    const loaded = await Promise.race([following, aborted])
    if (loaded) {
      if (!readiness.loaded) logger?.info({ kernels: catalog.size }, 'the catalog is loaded')
      readiness.loadedAt = Date.now()
    }
    const wait = readiness.loaded ? config.refresh * 1000 : RELOAD
    await sleep(wait, undefined, { signal, ref: false }).catch(() => {})
  }
}
