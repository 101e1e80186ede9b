/*
 * A reverse proxy that loses, cuts, delays and rejects requests on purpose. It forwards requests unchanged, so that
 * their signatures stay valid, and records them.
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

/** Handles one request, as a proxy with this fault does. */
export type Fault = (exchange: Exchange) => void

interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  /** Forwards the request, with at most `limit` bytes of its body; `onResponse` gets the response. */
  forward: (onResponse: (upstream: IncomingMessage) => void, limit?: number) => void
}

export interface FaultyServer {
  /** without a final slash */
  url: string
  /** method and path of each request, in order */
  requests: string[]
  /** the fault for a request, by its number from 0; undefined for none */
  fault: (number: number, request: IncomingMessage) => Fault | undefined
}

/** Starts a proxy for the server at `target`, which may move, and stops it after the test. */
export async function startProxy(t: Test, target: string | (() => string)): Promise<FaultyServer> {
  const targetNow = typeof target === 'string' ? () => target : target
  const server = createServer((request, response) => {
    const fault = proxy.fault(proxy.requests.length, request) ?? none
    proxy.requests.push(`${request.method} ${request.url}`)
    response.on('error', () => {})
    fault({ request, response, forward: forwarder(targetNow, request, response) })
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
  target: () => string,
  request: IncomingMessage,
  response: ServerResponse,
): Exchange['forward'] {
  return (onResponse, limit) => {
    const { method = '', headers } = request
    const upstream = send(`${target()}${request.url}`, { method, headers }, onResponse)
    upstream.on('error', () => response.destroy())
    if (limit === undefined) request.pipe(upstream)
    else request.pipe(cut(limit, () => upstream.destroy())).pipe(upstream)
  }
}

/** Passes a response on, whole or through `body`. */
function passOn(response: ServerResponse, upstream: IncomingMessage, body?: Transform): void {
  response.writeHead(upstream.statusCode ?? 502, upstream.rawHeaders)
  upstream.on('error', () => response.destroy())
  if (body) upstream.pipe(body).pipe(response)
  else upstream.pipe(response)
}

/** Lets a number of bytes pass, then stops and calls `then`. */
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

/** Passes each chunk in four delayed pieces. */
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

/** Half of a message's `Content-Length`, in bytes. */
const halfOf = ({ headers }: IncomingMessage): number =>
  Math.floor(Number(headers['content-length'] ?? 0) / 2)

/** Sends the first half of the response's body; sends no response if it has no body. */
const halfResponse =
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

/** Answers with an error of S3 in place of the server. */
const s3Error =
  (status: number, code: string): Fault =>
  ({ request, response }) => {
    request.resume().on('end', () => {
      response.writeHead(status, { 'content-type': 'application/xml' })
      response.end(request.method === 'HEAD' ? '' : `<Error><Code>${code}</Code></Error>`)
    })
  }

/** No fault. */
export const none: Fault = ({ response, forward }) =>
  forward((upstream) => passOn(response, upstream))

/** A slow server. */
export const slow: Fault = ({ response, forward }) =>
  forward((upstream) => passOn(response, upstream, trickle()))

/** The faults by name, each of which prevents a response. */
export const FAULTS: Record<string, Fault> = {
  'a reset before the request': ({ request }) => request.socket.resetAndDestroy(),
  'a reset instead of the response': ({ response, forward }) =>
    forward((upstream) => upstream.resume().on('end', () => response.socket?.resetAndDestroy())),
  'half the request': (exchange) => {
    const half = halfOf(exchange.request)
    if (half === 0) exchange.response.destroy()
    else exchange.forward((upstream) => passOn(exchange.response, upstream), half)
  },
  'half the response': halfResponse((response) => response.destroy()),
  'half the response and silence': halfResponse(() => {}),
  'no response': ({ request }) => void request.resume(),
  '500 InternalError': s3Error(500, 'InternalError'),
  '503 SlowDown': s3Error(503, 'SlowDown'),
}
