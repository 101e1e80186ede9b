/*
 * The server in front of Fastify: what was asked before in the same words is answered at once, all else goes on. Both
 * are logged and counted alike.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { FastifyBaseLogger, FastifyServerFactoryHandler } from 'fastify'
import type { Config } from './config.ts'
import type { Context } from './http/context.ts'
import { logAnswer, requestId } from './http/log.ts'
import type { CachedResponse } from './http/response-cache.ts'

/** Milliseconds that a connection waits for its next request. */
const KEEP_ALIVE = 65_000

/** Bytes of a body up to which it goes out in one piece with its headers: Node joins text with them, and no buffer. */
const SMALL = 8192

/** How Fastify gets its server. */
export const frontOf =
  (context: Context, logger: FastifyBaseLogger | undefined) =>
  (handler: FastifyServerFactoryHandler): Server => {
    const record = recorder(context, logger)
    const send = together()
    const server = createServer(limitsOf(context.settings), (request, response) => {
      const ready = context.responseCache.find(request)
      if (!ready) return void handler(request, response)
      record(request, response, ready)
      send(response, ready)
    })
    server.setTimeout(context.settings.idleTimeout * 1000)
    return server
  }

/**
 * Sends answers once all requests that have come are read: to wake who waits for one takes longer than to make it, and
 * who is awake need not be woken for the next.
 */
function together(): (response: ServerResponse, ready: CachedResponse) => void {
  let due: [ServerResponse, CachedResponse][] = []
  const send = () => {
    const now = due
    due = []
    for (const [response, { status, headers, body }] of now) {
      response.writeHead(status, headers)
      if (body && body.length <= SMALL) response.end(body.toString('latin1'), 'latin1')
      else response.end(body)
    }
  }
  return (response, ready) => {
    if (due.push([response, ready]) === 1) setImmediate(send)
  }
}

/** What Node checks of a request before anything else does. */
function limitsOf({ headerLimit, requestTimeout }: Config) {
  const timeout = requestTimeout * 1000
  return {
    maxHeaderSize: headerLimit,
    requestTimeout: timeout,
    headersTimeout: timeout,
    connectionsCheckingInterval: Math.min(timeout / 2, 5000),
    keepAliveTimeout: KEEP_ALIVE,
  }
}

/** Logs and counts an answer when it is out. */
function recorder({ settings, metrics }: Context, logger: FastifyBaseLogger | undefined) {
  const log = settings.logRequests ? logger : undefined
  const counts = settings.metrics !== 'off'
  return (
    request: IncomingMessage,
    response: ServerResponse,
    { route, body }: CachedResponse,
  ): void => {
    const started = performance.now()
    response.on('close', () => {
      const ms = performance.now() - started
      const { statusCode: status } = response
      if (counts) metrics.answer('GET', route, status, ms / 1000, body?.length ?? 0)
      if (!log) return
      const { method = '', url = '', socket } = request
      const line = { method, url, status, ms, ip: socket.remoteAddress ?? '' }
      logAnswer(log, { reqId: requestId(request), ...line }, response.writableFinished)
    })
  }
}
