// The library as its users get it: as a package of its own, as `btfmill/bpf`, and in a browser. No network is used.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, extname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { minimizeBtf, openObject, parseBtf, printLayout } from '../../bpf/index.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { withoutHooks } from '../helpers/without-hooks.ts'

const CHECKOUT = join(import.meta.dirname, '../..')
const TIMEOUT = 60_000

/** A new folder outside the checkout, where Node finds no node_modules by accident. */
async function newFolder(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'btfmill-bpf-'))
  t.teardown(() => rm(folder, { recursive: true, maxRetries: 5 }))
  return folder
}

/** Runs a program with this process's Node first in PATH, and without tap's hooks. */
async function run(cwd: string, program: string, ...args: string[]): Promise<string> {
  const path = `${dirname(process.execPath)}:${process.env.PATH}`
  const options = { cwd, timeout: TIMEOUT, env: { ...process.env, PATH: path } }
  return (await promisify(execFile)(...withoutHooks(program, args), options)).stdout
}

/** A copy of the checkout that packing may write to while other tests read the original. */
const copy = await newFolder(t)
for (const name of ['package.json', 'package-lock.json', 'LICENSE', 'bpf', 'docker/node'])
  cpSync(join(CHECKOUT, name), join(copy, name), { recursive: true })
for (const name of ['tsconfig.json', 'tsconfig.build.json', 'storage', 'generator', 'service'])
  cpSync(join(CHECKOUT, name), join(copy, name), { recursive: true })
symlinkSync(join(CHECKOUT, 'node_modules'), join(copy, 'node_modules'))
await run(copy, 'npm', 'pack', '--workspace', 'bpf', '--offline')
const tarball = readdirSync(copy).find((name) => name.endsWith('.tgz'))!

/** A program that prints how many types a BTF has. */
const counting = (specifier: string): string =>
  `import { readFileSync } from 'node:fs'
   import { parseBtf } from '${specifier}'
   console.log(parseBtf(readFileSync(process.argv[2])).typeCount)`
const kernelPath = littleKernels().get('x86_64')!
const kernel = parseBtf(readFileSync(kernelPath))

t.test('the tarball of the library installs exactly one package, offline', async (t) => {
  const home = await newFolder(t)
  writeFileSync(join(home, 'package.json'), '{"private": true, "type": "module"}')
  cpSync(join(copy, tarball), join(home, tarball))
  await run(home, 'npm', 'install', '--offline', '--no-audit', '--no-fund', `./${tarball}`)
  const installed = readdirSync(join(home, 'node_modules'), { recursive: true, encoding: 'utf8' })
  t.same(
    installed.filter((path) => path.endsWith('package.json')),
    ['@btfmill/bpf/package.json'],
  )
  const files = readdirSync(join(home, 'node_modules/@btfmill/bpf'))
  t.same(files.sort(), ['LICENSE', 'README.md', 'delta.md', 'dist', 'package.json'])
  t.notOk(
    installed.some((path) => /(?<!\.d)\.ts$/.test(path)),
    'no sources',
  )
  writeFileSync(join(home, 'count.js'), counting('@btfmill/bpf'))
  const printed = await run(home, process.execPath, 'count.js', kernelPath)
  t.equal(printed, `${kernel.typeCount}\n`)
})

t.test('packing the library leaves nothing behind in its folder', async (t) => {
  t.same(
    readdirSync(join(copy, 'bpf')).filter((name) => /^(dist|LICENSE)$|\.js$/.test(name)),
    [],
  )
})

t.test('btfmill/bpf resolves in the main package without its dependencies', async (t) => {
  await run(copy, join(CHECKOUT, 'node_modules/.bin/tsc'), '-p', 'tsconfig.build.json', '--noCheck')
  const home = await newFolder(t)
  const installed = join(home, 'node_modules/btfmill')
  mkdirSync(installed, { recursive: true })
  for (const name of ['package.json', 'dist'])
    cpSync(join(copy, name), join(installed, name), { recursive: true })
  writeFileSync(join(home, 'count.mjs'), counting('btfmill/bpf'))
  const printed = await run(home, process.execPath, 'count.mjs', kernelPath)
  t.equal(printed, `${kernel.typeCount}\n`)
  const { exports } = JSON.parse(readFileSync(join(copy, 'package.json'), 'utf8'))
  t.match(readFileSync(join(installed, exports['./bpf'].types), 'utf8'), /parseBtf/)
})

const PAGE = `<!doctype html><meta charset="utf-8"><pre id="layout"></pre><pre id="size"></pre>
<script type="module">
import { minimizeBtf, openObject, parseBtf, printLayout } from './dist/index.js'
const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer())
const kernel = parseBtf(await bytes('kernel.btf'))
const layout = printLayout(kernel, kernel.find('task_struct', 'STRUCT'))
const small = minimizeBtf(kernel, [openObject(await bytes('walk.bpf.o'))])
document.getElementById('layout').textContent = layout
document.getElementById('size').textContent = Array.from(small).join(' ')
</script>`

/** The document that headless Chromium has made of a page, as HTML. */
async function dumpDom(t: Test, url: string): Promise<string> {
  const profile = await mkdtemp(join(tmpdir(), 'btfmill-chromium-'))
  const args = [
    ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
    ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
    ...['--disable-dev-shm-usage', `--user-data-dir=${profile}`],
    ...['--virtual-time-budget=10000', '--dump-dom', url],
  ]
  const stdio = ['ignore', 'pipe', 'ignore'] as const
  const browser = spawn('chromium', args, { stdio: [...stdio], detached: true })
  const exited = once(browser, 'exit')
  const kill = () => {
    try {
      process.kill(-browser.pid!, 'SIGKILL')
    } catch {} // the whole group has ended
  }
  const timer = setTimeout(kill, TIMEOUT)
  t.teardown(async () => {
    clearTimeout(timer)
    kill()
    await exited
    await rm(profile, { recursive: true, maxRetries: 10, retryDelay: 100 })
  })
  return text(browser.stdout!)
}

t.test('the library gives the same in headless Chromium as in Node', async (t) => {
  const walk = coreObjects('el').get('task')!
  const types: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript' }
  const site = await newFolder(t)
  await run(site, 'tar', '-xzf', join(copy, tarball), '--strip-components=1')
  writeFileSync(join(site, 'index.html'), PAGE)
  cpSync(kernelPath, join(site, 'kernel.btf'))
  cpSync(walk, join(site, 'walk.bpf.o'))
  const server = createServer(({ url = '/' }, response) => {
    try {
      const body = readFileSync(join(site, new URL(url, 'http://x').pathname))
      const type = types[extname(url)] ?? 'application/octet-stream'
      response.writeHead(200, { 'content-type': type }).end(body)
    } catch {
      response.writeHead(404).end()
    }
  }).listen(0, '127.0.0.1')
  t.teardown(() => server.close().closeAllConnections())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo

  const dom = await dumpDom(t, `http://127.0.0.1:${port}/index.html`)
  const element = (id: string) => new RegExp(`<pre id="${id}">([^<]*)</pre>`).exec(dom)?.[1]
  t.equal(element('layout'), printLayout(kernel, kernel.find('task_struct', 'STRUCT')!))
  const small = minimizeBtf(kernel, [openObject(readFileSync(walk))])
  t.equal(element('size'), small.join(' '))
})
