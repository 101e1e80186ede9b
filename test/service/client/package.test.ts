// The package @btfmill/client, packed and unpacked as npm does it, outside the checkout.
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { withoutHooks } from '../../helpers/without-hooks.ts'

const CHECKOUT = join(import.meta.dirname, '../../..')

/** Packs the client in a copy of the checkout, so that tests that read the checkout never see what packing writes. */
function pack(): string {
  const copy = t.testdir()
  for (const name of ['package.json', 'tsconfig.json', 'bpf', 'storage', 'service'])
    cpSync(join(CHECKOUT, name), join(copy, name), { recursive: true })
  symlinkSync(join(CHECKOUT, 'node_modules'), join(copy, 'node_modules'))
  const client = join(copy, 'service/client')
  execFileSync(...withoutHooks('npm', ['pack', '--offline']), { cwd: client, stdio: 'pipe' })
  return join(client, readdirSync(client).find((name) => name.endsWith('.tgz'))!)
}

const tarball = pack()

interface Project {
  directory: string
  /** where the client package is */
  client: string
}

/**
 * A project with the client package and its dependencies. It is outside the checkout, since Node would find packages
 * that are not among the dependencies in the checkout's node_modules.
 */
function install(t: Test): Project {
  const directory = mkdtempSync(join(tmpdir(), 'btfmill-client-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const modules = join(directory, 'node_modules')
  const client = join(modules, '@btfmill/client')
  mkdirSync(client, { recursive: true })
  execFileSync('tar', ['-xzf', tarball, '--strip-components=1', '-C', client])
  for (const name of dependenciesOf(client))
    symlinkSync(join(CHECKOUT, 'node_modules', name), join(modules, name))
  return { directory, client }
}

function dependenciesOf(directory: string): string[] {
  const manifest = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'))
  return Object.keys(manifest.dependencies ?? {}).sort()
}

t.test('the client package needs two packages, none of which needs another', async (t) => {
  const { client } = install(t)
  t.same(dependenciesOf(client), ['lru-cache', 'typebox'])
  for (const name of dependenciesOf(client))
    t.same(dependenciesOf(join(CHECKOUT, 'node_modules', name)), [], name)
  t.notOk(existsSync(join(client, 'dist/storage/s3.js')), 'S3 is not in it')
  t.notOk(readdirSync(join(client, 'dist/service')).includes('app.js'), 'the server is not in it')
})

t.test('an agent that installs the client package alone fetches BTF', async (t) => {
  const { directory } = install(t)
  const btf = Buffer.from('any bytes: the client compares their SHA-256')
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
  const { stdout } = await promisify(execFile)(process.execPath, [script])
  const fetched = JSON.parse(stdout)
  t.equal(fetched.sha256, sha256)
  t.same(readFileSync(fetched.path), btf)
})
