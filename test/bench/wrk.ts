/* wrk: measures how many requests a server answers on keep-alive connections. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const CONNECTIONS = 64
const SECONDS = 5

/** Lua script that prints wrk's counts as JSON. */
const SCRIPT = `
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests":%d,"bytes":%d,"microseconds":%d,"p99":%d,"failed":%d}',
    summary.requests, summary.bytes, summary.duration, latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
`

export interface Throughput {
  /** per second */
  requests: number
  /** per second, with headers */
  bytes: number
}

/** Requests one URL for some seconds, from one thread. Throws if a request fails. */
export async function wrk(url: string, headers: Record<string, string> = {}): Promise<Throughput> {
  const directory = mkdtempSync(join(tmpdir(), 'wrk-'))
  try {
    const script = join(directory, 'count.lua')
    writeFileSync(script, SCRIPT)
    const { stdout } = await promisify(execFile)('wrk', [
      ...['-t1', `-c${CONNECTIONS}`, `-d${SECONDS}s`, '-s', script],
      ...Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]),
      url,
    ])
    const { requests, bytes, microseconds, failed } = JSON.parse(stdout.slice(stdout.indexOf('{')))
    if (failed > 0) throw new Error(`${url}: ${failed} of ${requests} requests failed`)
    return { requests: (requests * 1e6) / microseconds, bytes: (bytes * 1e6) / microseconds }
  } finally {
    rmSync(directory, { recursive: true })
  }
}
