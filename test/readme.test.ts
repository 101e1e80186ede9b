/*
 * The READMEs against the program: their commands run, in order, as from a fresh clone; the options and files that they
 * name exist. Every `sh` block runs unless the comment before it says why it does not: `<!-- not run: reason -->`.
 * A block after `<!-- background -->` runs until the end of its README.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { run as runBtfmill } from './helpers/command.ts'
import { until } from './helpers/wait-until.ts'

const ROOT = join(import.meta.dirname, '..')
const READMES = ['README.md', 'generator/README.md', 'service/README.md', 'bpf/README.md']
/** The address in the READMEs. The tests use a free port instead. */
const ADDRESS = '127.0.0.1:8080'
const SECONDS = 600

t.setTimeout(SECONDS * 1000 * 2)

const OFFLINE =
  process.env.BTFMILL_OFFLINE === '1'
    ? { skip: 'BTFMILL_OFFLINE=1: needs the mirror of a distribution' }
    : {}

interface Block {
  file: string
  line: number
  script: string
  background: boolean
  /** the reason why the block is not run */
  notRun: string | undefined
}

const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8')

function blocksOf(file: string): Block[] {
  const markdown = read(file)
  const fence = /(?:<!-- (?<mark>[^\n]*) -->\s*)?\n```sh\n(?<script>[\s\S]*?)\n```/g
  return [...markdown.matchAll(fence)].map(({ index, groups }) => ({
    file,
    line: markdown.slice(0, index).split('\n').length,
    script: groups!.script!,
    background: groups!.mark === 'background',
    notRun: /^not run: (.+)$/.exec(groups!.mark ?? '')?.[1],
  }))
}

/** A directory that looks like a checkout: what git tracks, and node_modules, linked. */
function linkCheckout(): string {
  const directory = mkdtempSync(join(tmpdir(), 'readme-'))
  const tracked = execFileSync('git', ['ls-files'], { cwd: ROOT, encoding: 'utf8' }).split('\n')
  const entries = new Set(tracked.filter(Boolean).map((path) => path.split('/')[0]!))
  for (const entry of [...entries, 'node_modules'])
    symlinkSync(join(ROOT, entry), join(directory, entry))
  return directory
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  return port
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })

/** Starts a block in a shell that stops at the first failure, in a process group of its own. */
function start({ script }: Block, directory: string, port: number): ChildProcess {
  const outer = /^(_?TAP|NODE_OPTIONS|npm_)/
  return spawn('sh', ['-euc', script.replaceAll(ADDRESS, `127.0.0.1:${port}`)], {
    cwd: directory,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !outer.test(name))),
  })
}

/**
 * True if `generate` published its kernel and failed only since a suite of the mirror differs from its signed index, as
 * during a mirror's update. That says nothing about the README.
 */
function mirrorIsOutOfStep(stdout: string, stderr: string): boolean {
  const failures = stderr.match(/: [a-z]+(_[a-z]+)+: /g) ?? []
  return (
    /^1 published; \d+ there already; \d+ ind(ex|exes) could not be read; .* MB of packages read$/m.test(
      stdout,
    ) && failures.every((failure) => failure === ': index_mismatch: ')
  )
}

async function stop(child: ChildProcess): Promise<void> {
  const closed = once(child, 'close')
  process.kill(-child.pid!, 'SIGTERM')
  await closed
}

t.test('the commands of the READMEs run in order from a fresh clone', OFFLINE, async (t) => {
  const directory = linkCheckout()
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  for (const file of READMES.filter((file) => existsSync(join(ROOT, file)))) {
    const port = await freePort()
    const servers: ChildProcess[] = []
    for (const block of blocksOf(file)) {
      if (block.notRun) continue
      const child = start(block, directory, port)
      const output = Promise.all([text(child.stdout!), text(child.stderr!)])
      const where = `${file}:${block.line}`
      if (block.background) {
        servers.push(child)
        await until(
          () => accepts(port),
          (accepted) => accepted,
        )
        t.pass(`${where} serves`)
        continue
      }
      const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), SECONDS * 1000)
      const [status, signal] = await once(child, 'close')
      clearTimeout(timer)
      const [stdout, stderr] = await output
      if (status === 1 && mirrorIsOutOfStep(stdout, stderr)) {
        t.comment(`${where}: published, but a suite of the mirror does not match its index now`)
        continue
      }
      t.same({ status, signal }, { status: 0, signal: null }, where, { stdout, stderr })
    }
    for (const server of servers) await stop(server)
  }
})

t.test('only few blocks are not run, and each of them says why', async (t) => {
  const blocks = READMES.slice(0, 3).flatMap(blocksOf)
  const run = blocks.filter(({ notRun }) => notRun === undefined)
  t.ok(run.length >= 15, `${run.length} blocks run`)
  t.ok(blocks.length - run.length <= 7)
  for (const file of READMES.slice(0, 3))
    t.equal(blocksOf(file).length, read(file).split('\n```sh\n').length - 1, file)
})

t.test('every command and option in the READMEs exists', async (t) => {
  const help = new Map<string, string>()
  const helpOf = async (command: string) => {
    if (!help.has(command)) help.set(command, (await runBtfmill(command, '--help')).stdout)
    return help.get(command)!
  }
  const top = (await runBtfmill('--help')).stdout
  const used = READMES.slice(0, 3).flatMap((file) => [
    ...read(file).matchAll(/(?:\bbtfmill(?: --)?|`) ?(?<command>[a-z]+)(?<rest> [^\n`|]*)/g),
  ])
  const commands = [...top.matchAll(/^ {2}(?!btfmill )([a-z]+) /gm)].map(([, name]) => name!)
  const checked = used.filter(({ groups }) => commands.includes(groups!.command!))
  t.ok(checked.length > 20, `${checked.length} uses of commands`)
  for (const { groups } of checked) {
    const { command, rest } = groups!
    const known = await helpOf(command!)
    for (const [option] of rest!.matchAll(/(?<= )--?[a-z][a-z-]*/g))
      t.match(known, new RegExp(`(^|[ ,])${option}\\b`, 'm'), `btfmill ${command} ${option}`)
  }
  const all = (await Promise.all(commands.map(helpOf))).join('\n')
  for (const file of READMES.slice(0, 3))
    for (const [, option] of read(file).matchAll(/`(--[a-z][a-z-]*)/g))
      t.match(all, new RegExp(`[ ,]${option}\\b`), `${file}: ${option}`)
})

t.test('every file that a README links to exists', async (t) => {
  for (const file of globSync('{,*/,*/*/}*.md', { cwd: ROOT, exclude: ['node_modules'] }))
    for (const [, target] of read(file).matchAll(/\]\((?!https?:|#)([^)#]+)/g))
      t.ok(existsSync(join(ROOT, dirname(file), target!)), `${file}: ${target}`)
})
