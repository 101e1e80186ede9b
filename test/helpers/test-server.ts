/* A server on a free port of 127.0.0.1 with any behaviour, which records its requests. */
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

export interface Server {
  /** without a trailing slash */
  url: string
  /** the requests in the order of their arrival */
  requests: IncomingMessage[]
}

/** Serves until the test ends, then closes all connections. */
export async function startServer(t: Test, answer: RequestListener): Promise<Server> {
  const requests: IncomingMessage[] = []
  const server = createServer((request, response) => {
    requests.push(request)
    answer(request, response)
  })
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests }
}
