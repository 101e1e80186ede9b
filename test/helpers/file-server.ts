/* A file server with ETag and Last-Modified, which answers 304 if the client has the current file. */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { startServer } from './test-server.ts'

export interface StaticServer {
  /** without a trailing slash */
  url: string
  /** Returns path and status of the responses since the last call. */
  answered(): string[]
}

/** Serves the files in a directory until the test ends, with the given validators. */
export async function serveDirectory(
  t: Test,
  root: string,
  validator: 'etag' | 'last-modified' | 'both' | 'none' = 'both',
): Promise<StaticServer> {
  const log: string[] = []
  const { url } = await startServer(t, (request, response) => {
    const path = decodeURIComponent(request.url!.replace(/[?].*$/, ''))
    const answer = (status: number, headers = {}, body: Buffer | string = '') => {
      log.push(`${path} ${status}`)
      response.writeHead(status, headers).end(body)
    }
    const stats = statSync(join(root, path), { throwIfNoEntry: false })
    if (!stats?.isFile()) return answer(404)
    const modified = stats.mtime.toUTCString()
    const etag = `"${stats.mtimeMs}-${stats.size}"`
    const headers = {
      ...(/etag|both/.test(validator) && { etag }),
      ...(/last-modified|both/.test(validator) && { 'last-modified': modified }),
    }
    const { 'if-none-match': match, 'if-modified-since': since } = request.headers
    const same = match === undefined ? since === modified : match === etag
    if (same && validator !== 'none') return answer(304, headers)
    answer(200, headers, readFileSync(join(root, path)))
  })
  return { url, answered: () => log.splice(0) }
}
