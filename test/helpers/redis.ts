/* Debian's redis-server on a free port of 127.0.0.1. Its data survive a restart during the test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'

export interface RedisServer {
  url: string
  start(): Promise<void>
  /** Stops the server; its data stay. */
  stop(): Promise<void>
}

/** Starts a server, which is stopped and removed after the test. */
export async function startRedis(t: Test): Promise<RedisServer> {
  const directory = mkdtempSync(join(tmpdir(), 'redis-'))
  const port = await freePort()
  let child: ChildProcess | undefined
  const start = async () => {
    const options = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory]
    child = spawn('redis-server', [...options, '--appendonly', 'yes', '--save', ''], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    for await (const line of createInterface({ input: child.stdout! }))
      if (line.includes('Ready to accept connections')) break
    child.stdout!.resume()
  }
  const stop = async () => {
    if (!child || child.exitCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGTERM')
    await ended
  }
  await start()
  t.teardown(async () => {
    await stop()
    rmSync(directory, { recursive: true })
  })
  return { url: `redis://127.0.0.1:${port}`, start, stop }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
