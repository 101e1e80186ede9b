/* A deployment: a repository behind a server, a store, and processes of `btfmill` that work on them together. */
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
import { makeRunDirectory, type RunDirectory } from './run-directory.ts'
import { makeSigner } from './signer.ts'
import { startServer } from './test-server.ts'
import { makeVmlinux } from './vmlinux.ts'

/** A line of the output of `--json`. */
export type Line = GenerateEvent | ({ event: 'summary' } & Record<string, unknown>)

export interface Process {
  child: ChildProcessByStdio<null, Readable, Readable>
  /** the lines that the process has printed so far */
  lines: Line[]
  /** Waits until the process has printed a text on stderr. */
  said(what: RegExp): Promise<void>
  /** Waits for a line, which may have been printed already. Fails if the process ends before. */
  line(matches: (line: Line) => boolean): Promise<Line>
  ended: Promise<{ status: number | null; signal: NodeJS.Signals | null; stderr: string }>
}

export interface Deployment extends RunDirectory {
  /** the repository, as options for the generator */
  repository: { sources: Source[]; mirror: string }
  /** Starts `btfmill generate` for the repository. */
  generate(...args: string[]): Process
  /** Starts `btfmill serve`, which generates kernels on demand. */
  serve(...args: string[]): Process
  /** Starts `btfmill worker`. */
  worker(...args: string[]): Process
  /** The number of requests for each package. */
  asked(): number[]
}

/** Makes a deployment whose repository has `count` kernels; the source `more` is linked into each vmlinux. */
export async function makeDeployment(t: Test, count: number, more = ''): Promise<Deployment> {
  const env = await makeRunDirectory(t)
  const { directory, scratch, storeUrl } = env
  const signer = makeSigner(t)
  const image = join(directory, 'vmlinux')
  const packages = Array.from({ length: count }, (_, i) => {
    const release = `6.1.0-${i}-test`
    makeVmlinux(image, { release, defines: { STACK: 256 + i }, more })
    return makePackage(directory, image, { release, compression: 'gzip' })
  })
  const { source } = makeRepository(directory, { packages, signer })
  const server = await startServer(t, (request, response) => {
    const path = join(directory, decodeURIComponent(request.url!))
    // a service also asks for the indexes of other sources
    if (existsSync(path)) response.end(readFileSync(path))
    else response.writeHead(404).end()
  })
  const sources = join(directory, 'sources.json')
  writeFileSync(sources, JSON.stringify([source]))
  const common = ['--json', '--store', storeUrl, '--scratch', scratch]
  const repository = { sources: [source], mirror: `${server.url}/debian` }
  const named = ['--sources', sources, '--source', 'test', '--mirror', repository.mirror]
  const onDemand = ['--listen', '127.0.0.1:0', '--drain', '0', '--generate', 'on-miss'].concat(
    named.filter((word) => word !== '--source' && word !== 'test'),
  )
  const variables = { ...process.env, XDG_CACHE_HOME: join(directory, 'cache') }
  return {
    ...env,
    repository,
    generate: (...args) => start(t, ['generate', ...common, ...named, ...args], variables),
    serve: (...args) => start(t, ['serve', ...common, ...onDemand, ...args], variables),
    worker: (...args) => start(t, ['worker', ...common, ...args], variables),
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

/** Starts `btfmill` in a process group of its own, as a shell does. It is killed after the test. */
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
  const waitFor = <T>(find: () => T | undefined): Promise<T> =>
    new Promise((resolve, reject) => {
      const look = () => {
        const found = find()
        const isOver = child.exitCode !== null || child.signalCode !== null
        if (found === undefined && !isOver) return
        waiting.delete(look)
        if (found !== undefined) resolve(found)
        else
          reject(new Error(`the process ended before: ${JSON.stringify(lines.at(-1))} ${stderr}`))
      }
      waiting.add(look)
      look()
    })
  return {
    child,
    lines,
    ended,
    said: (what) => waitFor(() => (what.test(stderr) ? true : undefined)).then(() => {}),
    line: (matches) => waitFor(() => lines.find(matches)),
  }
}

/** The summary that a process prints when it ends. Fails if there is none. */
export async function summaryOf({ ended, lines }: Process): Promise<Line | undefined> {
  const { status, stderr } = await ended
  if (lines.at(-1)?.event !== 'summary') throw new Error(`status ${status}: ${stderr}`)
  return lines.at(-1)
}
