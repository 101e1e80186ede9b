/*
 * A listening service. It listens at once and loads its catalog as soon as the store answers. Until then it responds
 * `unavailable`, and /readyz reports that it is not ready. Afterwards it keeps the catalog up to date.
 *
 * It stops gracefully: /readyz reports it, every response tells its client to close the connection, and idle connections
 * stay open for `drain` seconds, since a request may be on its way. Then the server accepts no new connections, waits up
 * to `grace` seconds until every response has been flushed, and closes the rest.
 */
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import type { Server as HttpServer, ServerResponse } from 'node:http'
import { type AddressInfo, createServer, type Server as NetServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { FastifyBaseLogger } from 'fastify'
import { Catalog, packsOf, partialOf, type Store } from '../storage/index.ts'
import { type Address, parseListen, removeStale, urlOf } from './address.ts'
import { buildApp } from './app.ts'
import { type Config, DEFAULTS } from './config.ts'
import type { BtfGenerator } from './demand/generation.ts'
import { Metrics } from './http/metrics.ts'
import { Readiness } from './http/readiness.ts'
import { meter } from './http/store-metrics.ts'
import { Tokens } from './http/token.ts'
import type { ServedPack } from './pack/served.ts'

/** Milliseconds between attempts to load the catalog. */
const RELOAD = 1000
/** Length of the accept queue, capped by the system: a fleet that starts connects all at once. */
const BACKLOG = 65_535
/** Milliseconds between two checks for open connections. */
const DRAIN_CHECK = 20

export interface ServerOptions {
  store: Store
  /** packs to serve beside the store */
  packs?: readonly ServedPack[]
  /** settings; `store` and logging are the caller's */
  config?: Partial<Config>
  generator?: BtfGenerator
  /** signs the catalog when kernels are taken over from upstreams */
  secretKey?: string
  logger?: FastifyBaseLogger
}

export interface Server {
  /** `http://host:port` or `unix:path` */
  url: string
  /** Looks at the store and the token file now, not at the next interval. */
  reload(): void
  /** Resolves when the last response has been sent. */
  stop(): Promise<void>
}

/** Starts to listen. Errors: `invalid_tokens`; the system's for the address and the token file. */
export async function startServer({
  store,
  logger,
  generator,
  packs = [],
  secretKey,
  ...options
}: ServerOptions): Promise<Server> {
  const config = { ...DEFAULTS, ...options.config }
  const metrics = new Metrics()
  const metered = meter(store, metrics)
  for (const { stored } of packs) packsOf(metered).attach(stored)
  const entries = packs.flatMap((pack) => pack.entries)
  const catalog = new Catalog(metered, (error) => logger?.warn(error), entries)
  const partial = new Catalog(partialOf(metered), (error) => logger?.warn(error))
  const readiness = new Readiness(metered)
  const tokens = await Tokens.open(config.tokens)
  const app = await buildApp({
    store: metered,
    catalog,
    partial,
    settings: config,
    readiness,
    tokens,
    metrics,
    ...(generator && { generator }),
    ...(secretKey !== undefined && { secretKey }),
    ...(logger && { logger }),
  })
  const others: NetServer[] = []
  app.addHook('preClose', async () => {
    await drain([app.server, ...others], config.drain * 1000)
    for (const other of others) other.close()
  })
  app.server.maxConnections = config.connections
  keepUnflushed(app.server)
  const address = parseListen(config.listen)
  if (!address) throw new Error(`invalid address to listen on: ${config.listen}`)
  await removeStale(address)
  const [first, ...further] = await addressesOf(address)
  await app.listen({ ...first!, backlog: BACKLOG })
  for (const host of further) {
    const other = await listenToo(app.server, host).catch((error) => logger?.warn(error))
    if (other) others.push(other)
  }
  const ending = new AbortController()
  const { signal } = ending
  const waits = new Waits()
  const following = [
    follow({ store: metered, catalog, partial, readiness, config, logger, signal, waits }),
    tokens.follow(signal, (error) => logger?.error(error, 'no token is valid')),
  ]
  return {
    url: urlOf(app.server),
    reload: () => {
      waits.end()
      tokens.reload().catch((error) => logger?.error(error, 'no token is valid'))
    },
    stop: async () => {
      readiness.stopping = true
      ending.abort()
      const limit = (config.drain + config.grace) * 1000
      const cut = setTimeout(() => app.server.closeAllConnections(), limit)
      const open = others.filter(({ listening }) => listening)
      const closed = open.map((other) => once(other, 'close'))
      await Promise.all([app.close(), ...closed, ...following])
      clearTimeout(cut)
    },
  }
}

/** The addresses that a host stands for: `localhost` may be one of IPv4 and one of IPv6. Errors: the system's. */
async function addressesOf(address: Address): Promise<Address[]> {
  if ('path' in address || address.host !== 'localhost') return [address]
  const found = await lookup('localhost', { all: true })
  return found.map((each) => ({ host: each.address, port: address.port }))
}

/**
 * Listens on the same port of another address, and hands all connections to the server, which then knows them: limits,
 * draining and closing are the same as for its own. Errors: the system's.
 */
async function listenToo(server: HttpServer, address: Address): Promise<NetServer> {
  const other = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
    server.emit('connection', socket),
  )
  other.maxConnections = server.maxConnections
  const { port } = server.address() as AddressInfo
  other.listen({ ...address, port, backlog: BACKLOG })
  await once(other, 'listening')
  return other
}

/** Waits until all connections are closed, for at most `limit` milliseconds. */
async function drain(servers: readonly NetServer[], limit: number): Promise<void> {
  const end = performance.now() + limit
  for (const server of servers) {
    const connections = promisify(server.getConnections.bind(server))
    while (performance.now() < end && (await connections()) > 0) await sleep(DRAIN_CHECK)
  }
}

/**
 * Makes a server that closes end its connections as soon as all responses have been flushed. Node takes a connection for
 * idle as soon as the last byte of its response is in the socket's buffer, and would cut off a client that reads slowly;
 * and it never takes one for idle that has sent no request yet, as browsers open them ahead.
 */
function keepUnflushed(server: HttpServer): void {
  let [unflushed, closing] = [0, false]
  server.on('request', (_, response: ServerResponse) => {
    unflushed++
    response.once('close', () => {
      unflushed--
      if (closing && unflushed === 0) server.closeAllConnections()
    })
  })
  server.closeIdleConnections = () => {
    closing = true
    if (unflushed === 0) server.closeAllConnections()
  }
}

/** Waiting that can be cut short. */
class Waits {
  #ended = new AbortController()

  /** Waits for so many milliseconds, until `end` is called, or until the signal aborts. */
  async wait(milliseconds: number, signal: AbortSignal): Promise<void> {
    const either = AbortSignal.any([signal, this.#ended.signal])
    await sleep(milliseconds, undefined, { signal: either, ref: false }).catch(() => {})
    if (this.#ended.signal.aborted) this.#ended = new AbortController()
  }

  /** Ends the wait under way, or the next one. */
  end(): void {
    this.#ended.abort()
  }
}

interface Following {
  store: Store
  waits: Waits
  catalog: Catalog
  partial: Catalog
  readiness: Readiness
  config: Config
  logger: FastifyBaseLogger | undefined
  signal: AbortSignal
}

/** Loads the catalog, then follows the store until the signal aborts. */
async function follow({
  store,
  catalog,
  partial,
  readiness,
  config,
  ...rest
}: Following): Promise<void> {
  const { logger, signal, waits } = rest
  const aborted = once(signal, 'abort').then(() => false)
  while (!signal.aborted) {
    const both = Promise.all([catalog.follow(), packsOf(store).refresh()])
    const following = both.then(
      () => true,
      (error) => logger?.error(error),
    )
    // a store that hangs does not hold up the end
    const loaded = await Promise.race([following, aborted])
    if (loaded) {
      if (!readiness.loaded) logger?.info({ kernels: catalog.size }, 'the catalog is loaded')
      readiness.loadedAt = Date.now()
    }
    if (loaded)
      await Promise.race([partial.follow().catch((error) => logger?.error(error)), aborted])
    const wait = readiness.loaded ? config.refresh * 1000 : RELOAD
    await waits.wait(wait, signal)
  }
}
