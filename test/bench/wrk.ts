/* wrk: as many requests as a server answers, on connections that stay open. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const CONNECTIONS = 64
const SECONDS = 5

/** What it counted, as JSON. */
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
  /** in a second */
  requests: number
  /** in a second, with headers */
  bytes: number
}

/** Asks for one address for some seconds, from one thread. Throws where a request failed. */
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
