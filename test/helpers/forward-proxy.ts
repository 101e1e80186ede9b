// A forward proxy, as HTTP_PROXY names one: it takes absolute URLs and CONNECT, connects to one server whatever the
// request names, and records what it was asked for.
import { createServer, type IncomingHttpHeaders, request as send } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Test } from 'tap'

interface ForwardProxy {
  url: string
  /** method and target of each request, in order: `GET http://host/path` or `CONNECT host:443` */
  requests: string[]
  /** the headers of each request */
  headers: IncomingHttpHeaders[]
}

/** Starts a proxy that sends every request to the server at `target`, and stops it after the test. */
export async function startForwardProxy(t: Test, target: string): Promise<ForwardProxy> {
  const proxy: ForwardProxy = { url: '', requests: [], headers: [] }
  const sockets = new Set<Socket>()
  const server = createServer(({ method = '', url = '', headers, socket }, response) => {
    sockets.add(socket)
    proxy.requests.push(`${method} ${url}`)
    proxy.headers.push(headers)
    const { pathname, search } = new URL(url, target)
    const upstream = send(`${target}${pathname}${search}`, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
      answer.pipe(response)
    })
    upstream.on('error', () => response.destroy())
    upstream.end()
  })
  server.on('connect', ({ url = '', headers }, socket: Socket) => {
    proxy.requests.push(`CONNECT ${url}`)
    proxy.headers.push(headers)
    const { hostname, port } = new URL(target)
    const upstream = connect(Number(port), hostname, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.pipe(socket).pipe(upstream)
    })
    for (const each of [socket, upstream]) {
      sockets.add(each)
      each.on('error', () => {})
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close().closeAllConnections()
    for (const socket of sockets) socket.destroy()
  })
  proxy.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return proxy
}
