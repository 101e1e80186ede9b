// The package @btfmill/client, packed and installed like npm does: its content, its dependencies, and a fetch.
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

const CHECKOUT = join(import.meta.dirname, '../../..')
const PACKAGE = join(CHECKOUT, 'service/client')

/** Installs the package and its dependencies, and nothing more, into an empty project. Returns its directory. */
function install(directory: string): string {
  const modules = join(directory, 'node_modules')
  const target = join(modules, '@btfmill/client')
  mkdirSync(target, { recursive: true })
  const packed = execFileSync('npm', ['pack', '--json', '--pack-destination', directory], {
    cwd: PACKAGE,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [{ filename }] = JSON.parse(packed.slice(packed.indexOf('['))) as [{ filename: string }]
  execFileSync('tar', ['-xzf', join(directory, filename), '--strip-components=1', '-C', target])
  const { dependencies } = JSON.parse(readFileSync(join(target, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  for (const name of Object.keys(dependencies))
    symlinkSync(join(CHECKOUT, 'node_modules', name), join(modules, name))
  return target
}

t.test('the client package has three dependencies, which have none', async (t) => {
  const target = install(t.testdir())
  const { dependencies } = JSON.parse(readFileSync(join(target, 'package.json'), 'utf8'))
  t.same(Object.keys(dependencies).sort(), ['lru-cache', 'typebox', 'undici'])
  for (const name of Object.keys(dependencies)) {
    const manifest = join(CHECKOUT, 'node_modules', name, 'package.json')
    t.same(JSON.parse(readFileSync(manifest, 'utf8')).dependencies ?? {}, {}, name)
  }
  t.notOk(existsSync(join(target, 'dist/storage/s3.js')), 'the package has no S3 client')
  t.notOk(readdirSync(join(target, 'dist/service')).includes('app.js'), 'the package has no server')
})

t.test('an agent that installs the client package alone fetches BTF', async (t) => {
  const directory = t.testdir()
  install(directory)
  const btf = Buffer.from('arbitrary bytes: the client checks only the SHA-256')
  const sha256 = createHash('sha256').update(btf).digest('hex')
  const server = createServer((_, response) => {
    response.setHeader('etag', `"${sha256}"`).end(btf)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const script = join(directory, 'agent.js')
  writeFileSync(
    script,
    `import { fetchBtf } from '@btfmill/client'
     const kernel = { distro: 'debian', version: '12', arch: 'x86_64', release: '6.1.0-1-amd64' }
     const options = { server: 'http://127.0.0.1:${port}', kernel, cache: ${JSON.stringify(join(directory, 'cache'))} }
     console.log(JSON.stringify(await fetchBtf(options)))`,
  )
  writeFileSync(join(directory, 'package.json'), '{ "type": "module" }')
  const { stdout } = await promisify(execFile)(process.execPath, ['--preserve-symlinks', script])
  const fetched = JSON.parse(stdout)
  t.equal(fetched.sha256, sha256)
  t.same(readFileSync(fetched.path), btf)
})
