/*
 * A listening service that keeps its catalog fresh and stops gracefully: no new connections, requests under way end,
 * and what does not end in time is cut.
 */
import type { AddressInfo } from 'node:net'
import type { FastifyBaseLogger } from 'fastify'
import { Catalog, type Store } from '../storage/index.ts'
import { buildApp } from './app.ts'

/** Milliseconds between two looks at the store for records that others wrote. */
const REFRESH = 30_000
/** Milliseconds that requests under way have to end. */
const GRACE = 30_000

export interface ServerOptions {
  store: Store
  host: string
  /** 0 for any that is free */
  port: number
  logger?: FastifyBaseLogger
}

export interface Server {
  /** `http://host:port` */
  url: string
  stop(): Promise<void>
}

/** Loads the catalog and listens. Errors: those of the store, and the system's for the address. */
export async function startServer({ store, host, port, logger }: ServerOptions): Promise<Server> {
  const catalog = await Catalog.openSnapshot(store, (error) => logger?.warn(error))
  const app = await buildApp({ store, catalog, ...(logger && { logger }) })
  await app.listen({ host, port })
  const refresh = setInterval(() => {
    catalog.follow().catch((error) => logger?.error(error))
  }, REFRESH)
  const { address, family, port: bound } = app.server.address() as AddressInfo
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`,
    stop: async () => {
      clearInterval(refresh)
      const cut = setTimeout(() => app.server.closeAllConnections(), GRACE)
      await app.close()
      clearTimeout(cut)
    },
  }
}
