/* `btfmill serve` in a process of its own, which ends with its test, or is killed before. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { MAIN } from './command.ts'
import { ready } from './wait-until.ts'

export interface Serving {
  url: string
  pid: number
  /** Ends it as a crash does. */
  kill(): Promise<void>
}

export interface ServingOptions {
  /** of node */
  options?: readonly string[]
  env?: NodeJS.ProcessEnv
}

/** Serves with these arguments, on a free port of 127.0.0.1 unless they name another address, and waits until it is ready. */
export async function serve(
  t: Pick<Test, 'teardown'>,
  args: readonly string[],
  { options = [], env = process.env }: ServingOptions = {},
): Promise<Serving> {
  const words = ['serve', '--listen', '127.0.0.1:0', '--log-format', 'json', ...args]
  const child = spawn(process.execPath, [...options, MAIN, ...words], {
    ...{ env, stdio: ['ignore', 'pipe', 'inherit'] },
  })
  const ended = once(child, 'exit')
  const kill = async () => {
    child.kill('SIGKILL')
    await ended
  }
  t.teardown(kill)
  for await (const line of createInterface(child.stdout)) {
    const [, url] = /listening at (http:\/\/127\.0\.0\.1:\d+)/.exec(line) ?? []
    if (!url) continue
    child.stdout.resume() // what it logs from now on nobody reads
    await ready(url)
    return { url, pid: child.pid!, kill }
  }
  throw new Error('it does not listen')
}
