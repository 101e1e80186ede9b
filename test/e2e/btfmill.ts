// Runs the btfmill command as its users do: as a separate process.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'

const MAIN = join(import.meta.dirname, '../../service/cli/main.ts')
const SECONDS = 60

/** The command, as a list of words. */
export const COMMAND = [process.execPath, MAIN] as const

const start = (args: readonly string[]) =>
  spawn(COMMAND[0], [COMMAND[1], ...args], { stdio: ['ignore', 'pipe', 'pipe'] })

/** Resolves with stdout. Rejects with all output if the command does not exit 0, or takes longer than a minute. */
export async function btfmill(...args: string[]): Promise<string> {
  const child = start(args)
  const timer = setTimeout(() => child.kill('SIGKILL'), SECONDS * 1000)
  try {
    const [[status], stdout, stderr] = await Promise.all([
      once(child, 'close'),
      text(child.stdout),
      text(child.stderr),
    ])
    if (status === 0) return stdout
    throw new Error(`btfmill ${args.join(' ')} ended with status ${status}\n${stdout}${stderr}`)
  } finally {
    clearTimeout(timer)
  }
}

export interface Server {
  /** `http://127.0.0.1:PORT` */
  url: string
  port: number
  /** Stops the server with SIGTERM, as an init system does. Resolves with its exit status. */
  stop(): Promise<number | null>
}

/** Runs `btfmill serve` on a free port and waits until it logs its address. */
export async function serve(store: string): Promise<Server> {
  const child = start(['serve', '--store', store, '--listen', '127.0.0.1:0'])
  const closed = once(child, 'close') as Promise<[number | null]>
  const said: string[] = []
  const address = new Promise<URL>((resolve, reject) => {
    const read = (line: string) => {
      said.push(line)
      const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(line) ?? []
      if (url) resolve(new URL(url))
    }
    createInterface({ input: child.stdout }).on('line', read)
    createInterface({ input: child.stderr }).on('line', read)
    closed.then(() => reject(new Error(`btfmill serve ended\n${said.join('\n')}`)), reject)
  })
  const { origin, port } = await address
  return {
    url: origin,
    port: Number(port),
    async stop() {
      child.kill('SIGTERM')
      return (await closed)[0]
    },
  }
}
