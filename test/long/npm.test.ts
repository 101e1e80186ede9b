// The npm package, packed and installed in an empty directory: the command and `btfmill/client`, for users without a
// checkout.
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { btfOf, RAW, recordOf, startTestService } from '../helpers/test-service.ts'
import { ready } from '../helpers/wait-until.ts'

const CHECKOUT = join(import.meta.dirname, '../..')
const MINUTES = 5

/** Runs a program with this process's Node first in its PATH, and without tap's hooks. */
const runIn =
  (cwd: string) =>
  async (program: string, ...args: string[]): Promise<string> => {
    const path = `PATH=${dirname(process.execPath)}:${process.env.PATH}`
    const command = ['--unset=NODE_OPTIONS', path, program, ...args]
    const { stdout } = await promisify(execFile)('env', command, {
      cwd,
      timeout: MINUTES * 60_000,
    })
    return stdout
  }

const sha256 = createHash('sha256').update(RAW.little).digest('hex')

t.test('the packed package works where nothing else is installed', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'btfmill-npm-')) // outside of the checkout and its node_modules
  t.teardown(() => rm(home, { recursive: true }))
  writeFileSync(join(home, 'package.json'), '{"private": true, "type": "module"}')
  const run = runIn(home)
  const packed = await runIn(CHECKOUT)('npm', 'pack', '--json', '--pack-destination', home)
  const [{ filename, files }] = JSON.parse(packed.slice(packed.indexOf('\n[') + 1))
  const paths: string[] = files.map(({ path }: { path: string }) => path)
  t.same(
    paths.filter(
      (path) => !/^(dist|bpf\/example)\/|^(package\.json|README\.md|LICENSE)$/.test(path),
    ),
    [],
    'the package has no sources and no tests',
  )
  t.ok(paths.includes('bpf/example/btf-fetch'))
  await run('npm', 'install', '--no-audit', '--no-fund', '--omit=dev', `./${filename}`)

  const name = recordOf({}).kernel
  const testService = await startTestService(t, async (store) => [
    recordOf(name, { btf: await btfOf(store, RAW.little) }),
  ])

  await t.test('the command fetches, dumps and lists', async (t) => {
    t.match(await run('npx', 'btfmill', '--help'), / {2}generate .* {2}fetch /s)
    const filters = Object.entries(name).flatMap(([key, value]) => [
      `--${key === 'version' ? 'distro-version' : key}`,
      value,
    ])
    await run(
      'npx',
      'btfmill',
      'fetch',
      '--server',
      testService.url,
      ...filters,
      '-o',
      'fetched.btf',
    )
    t.ok(readFileSync(join(home, 'fetched.btf')).equals(RAW.little))
    t.match(await run('npx', 'btfmill', 'dump', 'fetched.btf'), /struct/)
    mkdirSync(join(home, 'empty'))
    t.equal(await run('npx', 'btfmill', 'list', '--json', '--store', 'empty'), '')
  })

  await t.test('a service sends the library to browsers, which need no build', async (t) => {
    const main = join(home, 'node_modules/btfmill/dist/service/cli/main.js')
    const flags = ['serve', '--store', 'store', '--listen', '127.0.0.1:0', '--index', 'off']
    const service = spawn(process.execPath, [main, ...flags], { cwd: home })
    t.teardown(() => service.kill('SIGTERM'))
    const url = await new Promise<string>((resolve, reject) => {
      let said = ''
      service.once('exit', () => reject(new Error(said)))
      service.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text
        const [address] = /http:\/\/127\.0\.0\.1:[1-9]\d*(?=\D)/.exec(said) ?? []
        if (address) resolve(address)
      })
    })
    await ready(url)
    const page = await (await fetch(`${url}/check`)).text()
    const [, worker = '', base = ''] = /data-worker="((\S+\/)service\/\S+)"/.exec(page)!
    for (const path of [worker, `${base}bpf/index.js`, `${base}templates.js`, `${base}eta.js`]) {
      const answer = await fetch(url + path)
      t.equal(answer.status, 200, path)
      t.match(answer.headers.get('content-type'), /^text\/javascript/)
    }
  })

  await t.test('btfmill/client fetches from the server, then from its cache', async (t) => {
    writeFileSync(
      join(home, 'agent.js'),
      `import { fetchBtf } from 'btfmill/client'
       const options = ${JSON.stringify({ server: testService.url, kernel: name, cache: 'cache' })}
       console.log(JSON.stringify(await fetchBtf(options)))`,
    )
    t.match(JSON.parse(await run('node', 'agent.js')), { origin: 'server', sha256 })
    t.match(JSON.parse(await run('node', 'agent.js')), { origin: 'cache', sha256 })
  })

  await t.test('btfmill/client has types, and TypeScript checks them', async (t) => {
    const tsc = [join(CHECKOUT, 'node_modules/.bin/tsc'), '--noEmit', '--strict', '--ignoreConfig']
    const settings = ['--module', 'nodenext', '--target', 'es2024', '--types', 'node']
    const types = ['--typeRoots', join(CHECKOUT, 'node_modules/@types')]
    const check = (text: string) => {
      writeFileSync(join(home, 'agent.ts'), `import { fetchBtf } from 'btfmill/client'\n${text}`)
      return run(process.execPath, ...tsc, ...settings, ...types, 'agent.ts')
    }
    await check("const { path }: { path: string } = await fetchBtf({ server: 'http://x' })\n")
    const said = await check('await fetchBtf({ server: 1 })\n').catch(({ stdout }) => stdout)
    t.match(said, /not assignable/)
  })
})
