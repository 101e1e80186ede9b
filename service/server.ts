/*
 * A listening service. It listens at once and loads its catalog as soon as the store answers; until then it says
 * `unavailable`, and /readyz that it is not ready. Then it keeps the catalog fresh.
 *
 * It stops gracefully: /readyz says so; every answer tells its client to close, and idle connections stay for a while
 * (`drain`), since a request may be on its way on them; then no new connections are taken, requests under way end, and
 * what does not end in time (`grace`) is cut.
 */
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

/** Milliseconds before the catalog is loaded again that could not be. */
const RELOAD = 1000
/** Connections that wait to be taken, as far as the system lets them: a fleet that starts comes all at once. */
const BACKLOG = 65_535
/** Milliseconds between two looks at whether connections are left. */
const DRAIN_LOOK = 20

export interface ServerOptions {
  store: Store
  /** `store` and logging are the caller's */
  config?: Partial<Config>
  generator?: BtfGenerator
  logger?: FastifyBaseLogger
}

export interface Server {
  /** `http://host:port` or `unix:path` */
  url: string
  /** Ends when the last answer is out. */
  stop(): Promise<void>
}

/** Listens. Errors: `invalid_tokens`, and the system's for the address and for the file of tokens. */
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
  if (!address) throw new Error(`there is no address ${config.listen}`)
  await removeStale(address)
  await app.listen({ ...address, backlog: BACKLOG })
  const ending = new AbortController()
  const following = follow({ catalog, readiness, tokens, config, logger, signal: ending.signal })
  return {
    url: urlOf(app.server),
    stop: async () => {
      readiness.stopping = true
      ending.abort()
      const patience = (config.drain + config.grace) * 1000
      const cut = setTimeout(() => app.server.closeAllConnections(), patience)
      await Promise.all([app.close(), following])
      clearTimeout(cut)
    },
  }
}

/** Waits until all connections have been told to close and did, so long at most. */
async function drain(server: NetServer, patience: number): Promise<void> {
  const connections = promisify(server.getConnections.bind(server))
  const end = performance.now() + patience
  while (performance.now() < end && (await connections()) > 0) await sleep(DRAIN_LOOK)
}

interface Following {
  catalog: Catalog
  readiness: Readiness
  tokens: Tokens
  config: Config
  logger: FastifyBaseLogger | undefined
  signal: AbortSignal
}

/** Loads the catalog, and keeps up with the store and the file of tokens until it is told to end. */
async function follow({ catalog, readiness, tokens, config, ...rest }: Following): Promise<void> {
  const { logger, signal } = rest
  while (!signal.aborted) {
    const followed = await catalog.follow().then(
      () => true,
      (error) => logger?.error(error),
    )
    await tokens.reload().catch((error) => logger?.error(error))
    if (followed) {
      if (!readiness.loaded) logger?.info({ kernels: catalog.size }, 'the catalog is loaded')
      readiness.loadedAt = Date.now()
    }
    const wait = readiness.loaded ? config.refresh * 1000 : RELOAD
    await sleep(wait, undefined, { signal, ref: false }).catch(() => {})
  }
}
