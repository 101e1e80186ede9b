/* A repository behind a server, and `btfmill` as processes that make BTF of it together. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { Test } from 'tap'
import type { GenerateEvent, Source } from '../../generator/index.ts'
import { makeRepository } from './apt-repository.ts'
import { MAIN } from './command.ts'
import { makePackage } from './package.ts'
import { type Mill, makeMill } from './run-directory.ts'
import { makeSigner } from './signer.ts'
import { startServer } from './test-server.ts'
import { makeVmlinux } from './vmlinux.ts'

/** A line of `--json`. */
export type Line = GenerateEvent | ({ event: 'summary' } & Record<string, unknown>)

export interface Process {
  child: ChildProcessByStdio<null, Readable, Readable>
  /** the lines that it has printed so far */
  lines: Line[]
  /** Waits until it has said something to people. */
  said(what: RegExp): Promise<void>
  /** Waits for a line, come or yet to come; fails where the process ends before. */
  line(matches: (line: Line) => boolean): Promise<Line>
  ended: Promise<{ status: number | null; signal: NodeJS.Signals | null; stderr: string }>
}

export interface Shop extends Mill {
  /** the repository, as who does not start a process needs it */
  offer: { sources: Source[]; mirror: string }
  /** Starts `btfmill generate` for the repository. */
  generate(...args: string[]): Process
  /** Starts `btfmill serve`, which has made what it is asked for. */
  serve(...args: string[]): Process
  /** Starts `btfmill worker`. */
  worker(...args: string[]): Process
  /** how often each package was asked for */
  asked(): number[]
}

/** A store, and a server with a repository of so many kernels; `more` is linked into each image. */
export async function makeShop(t: Test, count: number, more = ''): Promise<Shop> {
  const mill = await makeMill(t)
  const { directory, scratch, storeUrl } = mill
  const signer = makeSigner(t)
  const image = join(directory, 'vmlinux')
  const packages = Array.from({ length: count }, (_, i) => {
    const release = `6.1.0-${i}-test`
    makeVmlinux(image, { release, defines: { STACK: 256 + i }, more })
    return makePackage(directory, image, { release, compression: 'gzip' })
  })
  const repository = makeRepository(directory, { packages, signer })
  const server = await startServer(t, (request, response) => {
    const path = join(directory, decodeURIComponent(request.url!))
    // a service asks for what other sources have, too
    if (existsSync(path)) response.end(readFileSync(path))
    else response.writeHead(404).end()
  })
  const sources = join(directory, 'sources.json')
  writeFileSync(sources, JSON.stringify([repository.source]))
  const common = ['--json', '--store', storeUrl, '--scratch', scratch]
  const offer = { sources: [repository.source], mirror: `${server.url}/debian` }
  const named = ['--sources', sources, '--source', 'test', '--mirror', offer.mirror]
  const onDemand = ['--listen', '127.0.0.1:0', '--drain', '0', '--generate', 'on-miss'].concat(
    named.filter((word) => word !== '--source' && word !== 'test'),
  )
  const env = { ...process.env, XDG_CACHE_HOME: join(directory, 'cache') }
  return {
    ...mill,
    offer,
    generate: (...args) => start(t, ['generate', ...common, ...named, ...args], env),
    serve: (...args) => start(t, ['serve', ...common, ...onDemand, ...args], env),
    worker: (...args) => start(t, ['worker', ...common, ...args], env),
    asked: () => {
      const counts = new Map(packages.map((path) => [path.slice(path.lastIndexOf('/') + 1), 0]))
      for (const { url = '' } of server.requests) {
        const name = decodeURIComponent(url.slice(url.lastIndexOf('/') + 1))
        const known = counts.get(name)
        if (known !== undefined) counts.set(name, known + 1)
      }
      return [...counts.values()]
    },
  }
}

/** Starts `btfmill` in a process group of its own, as a shell does; it is killed with its test. */
export function start(t: Test, args: readonly string[], env = process.env): Process {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    env,
  })
  const lines: Line[] = []
  const waiting = new Set<() => void>()
  let rest = ''
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    const whole = (rest + piece).split('\n')
    rest = whole.pop() ?? ''
    for (const line of whole) lines.push(JSON.parse(line))
    for (const look of waiting) look()
  })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    stderr += piece
    for (const look of waiting) look()
  })
  const ended = once(child, 'close').then(([status, signal]) => {
    for (const look of waiting) look()
    return { status, signal, stderr }
  })
  t.teardown(() => child.kill('SIGKILL'))
  const soon = <T>(find: () => T | undefined): Promise<T> =>
    new Promise((resolve, reject) => {
      const look = () => {
        const found = find()
        const isOver = child.exitCode !== null || child.signalCode !== null
        if (found === undefined && !isOver) return
        waiting.delete(look)
        if (found !== undefined) resolve(found)
        else reject(new Error(`it ended before: ${JSON.stringify(lines.at(-1))} ${stderr}`))
      }
      waiting.add(look)
      look()
    })
  return {
    child,
    lines,
    ended,
    said: (what) => soon(() => (what.test(stderr) ? true : undefined)).then(() => {}),
    line: (matches) => soon(() => lines.find(matches)),
  }
}

/** The summary that a process printed when it ended. */
export async function summaryOf({ ended, lines }: Process): Promise<Line | undefined> {
  const { status, stderr } = await ended
  if (lines.at(-1)?.event !== 'summary') throw new Error(`status ${status}: ${stderr}`)
  return lines.at(-1)
}
