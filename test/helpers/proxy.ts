/*
 * A server in front of a server that loses, cuts, delays and refuses on purpose. It passes requests on as they are, so
 * that their signatures hold, and keeps what it was asked.
 */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  request as send,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { Transform, type TransformCallback } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'

/** What happens to one request. */
export type Fault = (exchange: Exchange) => void

interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  /** Passes the request on, or so many bytes of its body; `answer` gets what comes back. */
  forward: (answer: (upstream: IncomingMessage) => void, limit?: number) => void
}

export interface FaultyServer {
  /** without a slash at its end */
  url: string
  /** method and path of what was asked, in order */
  requests: string[]
  /** says what happens to the request of this number, counted from 0 */
  fault: (number: number, request: IncomingMessage) => Fault | undefined
}

/** Passes everything on to the server at `target` until its test ends. */
export async function startProxy(t: Test, target: string): Promise<FaultyServer> {
  const server = createServer((request, response) => {
    const fault = proxy.fault(proxy.requests.length, request) ?? none
    proxy.requests.push(`${request.method} ${request.url}`)
    response.on('error', () => {})
    fault({ request, response, forward: forwarder(target, request, response) })
  })
  const proxy: FaultyServer = { url: await listen(server), requests: [], fault: () => undefined }
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return proxy
}

const listen = async (server: Server): Promise<string> => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function forwarder(
  target: string,
  request: IncomingMessage,
  response: ServerResponse,
): Exchange['forward'] {
  return (answer, limit) => {
    const { method = '', headers } = request
    const upstream = send(`${target}${request.url}`, { method, headers }, answer)
    upstream.on('error', () => response.destroy())
    if (limit === undefined) request.pipe(upstream)
    else request.pipe(cut(limit, () => upstream.destroy())).pipe(upstream)
  }
}

/** Passes an answer on, whole or through `body`. */
function passOn(response: ServerResponse, upstream: IncomingMessage, body?: Transform): void {
  response.writeHead(upstream.statusCode ?? 502, upstream.rawHeaders)
  upstream.on('error', () => response.destroy())
  if (body) upstream.pipe(body).pipe(response)
  else upstream.pipe(response)
}

/** Lets so many bytes pass, then none. */
function cut(bytes: number, then: () => void): Transform {
  let left = bytes
  return new Transform({
    transform(chunk: Buffer, _, done: TransformCallback) {
      this.push(chunk.subarray(0, left))
      left -= chunk.length
      if (left > 0) done()
      else setImmediate(then)
    },
  })
}

/** Passes a few bytes at a time. */
const trickle = (): Transform =>
  new Transform({
    async transform(chunk: Buffer, _, done: TransformCallback) {
      const size = Math.ceil(chunk.length / 4)
      for (let at = 0; at < chunk.length; at += size) {
        await sleep(5)
        this.push(chunk.subarray(at, at + size))
      }
      done()
    },
  })

/** Half of what a message says its body has, in bytes. */
const halfOf = ({ headers }: IncomingMessage): number =>
  Math.floor(Number(headers['content-length'] ?? 0) / 2)

/** The first half of a body; where there is none, there is no answer at all. */
const halfAnswer =
  (then: (response: ServerResponse) => void): Fault =>
  ({ request, response, forward }) =>
    forward((upstream) => {
      const half = request.method === 'HEAD' ? 0 : halfOf(upstream)
      if (half === 0) then(response)
      else
        passOn(
          response,
          upstream,
          cut(half, () => then(response)),
        )
    })

/** An answer of S3's own, which the server never gave. */
const refusal =
  (status: number, code: string): Fault =>
  ({ request, response }) => {
    request.resume().on('end', () => {
      response.writeHead(status, { 'content-type': 'application/xml' })
      response.end(request.method === 'HEAD' ? '' : `<Error><Code>${code}</Code></Error>`)
    })
  }

const none: Fault = ({ response, forward }) => forward((upstream) => passOn(response, upstream))

/** A server that takes its time. */
export const slow: Fault = ({ response, forward }) =>
  forward((upstream) => passOn(response, upstream, trickle()))

/** What keeps a request from being answered, by name. */
export const FAULTS: Record<string, Fault> = {
  'a reset before the request': ({ request }) => request.socket.resetAndDestroy(),
  'a reset instead of the answer': ({ response, forward }) =>
    forward((upstream) => upstream.resume().on('end', () => response.socket?.resetAndDestroy())),
  'half the request': (exchange) => {
    const half = halfOf(exchange.request)
    if (half === 0) exchange.response.destroy()
    else exchange.forward((upstream) => passOn(exchange.response, upstream), half)
  },
  'half the answer': halfAnswer((response) => response.destroy()),
  'half the answer and silence': halfAnswer(() => {}),
  'no answer': ({ request }) => void request.resume(),
  '500 InternalError': refusal(500, 'InternalError'),
  '503 SlowDown': refusal(503, 'SlowDown'),
}
