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
import type { Test } from 'tap'

/** What happens to one request. */
export type Fault = (exchange: Exchange) => void

interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  /** Passes the request on; what comes back is handled by `answer`. */
  forward: (answer: (upstream: IncomingMessage) => void, body?: Transform) => void
}

export interface Proxy {
  /** without a slash at its end */
  url: string
  /** method and path of what was asked, in order */
  requests: string[]
  /** says what happens to the request of this number, counted from 0 */
  fault: (number: number, request: IncomingMessage) => Fault | undefined
}

/** Passes everything on to the server at `target` until its test ends. */
export async function startProxy(t: Test, target: string): Promise<Proxy> {
  const server = createServer((request, response) => {
    const fault = proxy.fault(proxy.requests.length, request) ?? FAULTS.none
    proxy.requests.push(`${request.method} ${request.url}`)
    response.on('error', () => {})
    fault({ request, response, forward: forwarder(target, request, response) })
  })
  const proxy: Proxy = { url: await listen(server), requests: [], fault: () => undefined }
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
  return (answer, body) => {
    const { method = '', headers } = request
    const upstream = send(`${target}${request.url}`, { method, headers }, answer)
    upstream.on('error', () => response.destroy())
    if (body) request.pipe(body).pipe(upstream)
    else request.pipe(upstream)
    body?.on('close', () => upstream.destroy())
  }
}

const passOn =
  (response: ServerResponse, body?: Transform) =>
  (upstream: IncomingMessage): void => {
    response.writeHead(upstream.statusCode ?? 502, upstream.rawHeaders)
    upstream.on('error', () => response.destroy())
    if (body) upstream.pipe(body).pipe(response)
    else upstream.pipe(response)
    body?.on('close', () => response.destroy())
  }

/** An answer of S3's own, which the server never gave. */
const refusal =
  (status: number, code: string): Fault =>
  ({ request, response }) => {
    request.resume().on('end', () => {
      response.writeHead(status, { 'content-type': 'application/xml' })
      response.end(request.method === 'HEAD' ? '' : `<Error><Code>${code}</Code></Error>`)
    })
  }

/** Lets half of what a message says its body has pass, then closes, or falls silent. */
function half(message: IncomingMessage, then: 'close' | 'silence'): Transform {
  let left = Math.floor(Number(message.headers['content-length'] ?? 2) / 2)
  return new Transform({
    transform(chunk: Buffer, _, done: TransformCallback) {
      this.push(chunk.subarray(0, left))
      left -= chunk.length
      if (left >= 0) done()
      else if (then === 'close') setImmediate(() => this.destroy())
    },
  })
}

/** Passes a few bytes at a time. */
const trickle = (): Transform =>
  new Transform({
    async transform(chunk: Buffer, _, done: TransformCallback) {
      const size = Math.ceil(chunk.length / 4)
      for (let at = 0; at < chunk.length; at += size) {
        await new Promise((resolve) => setTimeout(resolve, 5))
        this.push(chunk.subarray(at, at + size))
      }
      done()
    },
  })

export const FAULTS = {
  none: ({ response, forward }) => forward(passOn(response)),
  'a reset before the request': ({ request }) => request.socket.resetAndDestroy(),
  'a reset instead of the answer': ({ response, forward }) =>
    forward((upstream) => upstream.resume().on('end', () => response.socket?.resetAndDestroy())),
  'half the request': ({ request, response, forward }) =>
    forward(passOn(response), half(request, 'close')),
  'half the answer': ({ response, forward }) =>
    forward((upstream) => passOn(response, half(upstream, 'close'))(upstream)),
  'half the answer and silence': ({ response, forward }) =>
    forward((upstream) => passOn(response, half(upstream, 'silence'))(upstream)),
  'no answer': ({ request }) => void request.resume(),
  'a slow answer': ({ response, forward }) => forward(passOn(response, trickle())),
  '500 InternalError': refusal(500, 'InternalError'),
  '503 SlowDown': refusal(503, 'SlowDown'),
} satisfies Record<string, Fault>
