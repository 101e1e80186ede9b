/* A herd of agents, as after a reboot: all start at once, each with one connection and one request. */
import { connect } from 'node:net'
import { performance } from 'node:perf_hooks'

export interface Herd {
  /** seconds from the common start to the last byte of each client, ascending */
  times: readonly number[]
  /** bytes of all responses together */
  bytes: number
  /** responses that were incomplete, or not 200 */
  failed: number
}

/** Starts `clients` clients at once. Each requests one of the paths, in turn, with zstd. */
export async function herd(url: string, paths: readonly string[], clients: number): Promise<Herd> {
  const started = performance.now()
  const answers = await Promise.all(
    Array.from({ length: clients }, (_, n) => askOnce(url, paths[n % paths.length]!, started)),
  )
  const times = answers.map(({ time }) => time).sort((a, b) => a - b)
  return {
    times,
    bytes: answers.reduce((sum, { bytes }) => sum + bytes, 0),
    failed: answers.filter(({ whole }) => !whole).length,
  }
}

/** Counts a response's bytes without keeping them: five thousand responses do not fit into memory. */
function askOnce(url: string, path: string, started: number) {
  const { port, host } = new URL(url)
  let [head, bytes, length] = ['', 0, Number.NaN]
  const read = (piece: Buffer) => {
    if (!Number.isNaN(length)) {
      bytes += piece.length
      return
    }
    head += piece.toString('latin1')
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) return
    length = Number(/^content-length: (\d+)/im.exec(head)?.[1])
    bytes = head.length - end - 4
  }
  return new Promise<{ time: number; bytes: number; whole: boolean }>((resolve) => {
    const socket = connect(Number(port), '127.0.0.1')
    socket.write(
      `GET ${path} HTTP/1.1\r\nhost: ${host}\r\naccept-encoding: zstd\r\nconnection: close\r\n\r\n`,
    )
    socket.on('data', read)
    socket.on('error', () => {}) // the response is incomplete then
    socket.once('close', () => {
      const whole = head.startsWith('HTTP/1.1 200 ') && bytes === length
      resolve({ time: (performance.now() - started) / 1000, bytes, whole })
    })
  })
}
