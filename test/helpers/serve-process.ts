/* `btfmill serve` in its own process, which ends with its test or by `kill`. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { MAIN } from './command.ts'
import { ready } from './wait-until.ts'

export interface Serving {
  url: string
  pid: number
  /** Kills it with SIGKILL, like a crash. */
  kill(): Promise<void>
}

export interface ServingOptions {
  /** options of node */
  options?: readonly string[]
  env?: NodeJS.ProcessEnv
  /** words before the command, such as those of `limitMemory` */
  prefix?: readonly string[]
}

/** Starts a server, by default on a free port of 127.0.0.1, and waits until it is ready. */
export async function serve(
  t: Pick<Test, 'teardown'>,
  args: readonly string[],
  { options = [], env = process.env, prefix = [] }: ServingOptions = {},
): Promise<Serving> {
  const words = ['serve', '--listen', '127.0.0.1:0', '--log-format', 'json', ...args]
  const [command, ...rest] = [...prefix, process.execPath, ...options, MAIN, ...words]
  const child = spawn(command!, rest, {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
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
    child.stdout.resume() // discards the rest of the log
    await ready(url)
    return { url, pid: child.pid!, kill }
  }
  throw new Error('the server ended before it listened')
}
