/* A server on a free port of 127.0.0.1 that misbehaves on purpose, and keeps what it was asked. */
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

export interface Server {
  /** without a slash at its end */
  url: string
  /** the requests that came, in their order */
  requests: IncomingMessage[]
}

/** Serves until its test ends; connections that are still open then are cut. */
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
