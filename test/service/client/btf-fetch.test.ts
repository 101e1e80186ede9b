// bpf/example/btf-fetch, the client in POSIX sh: under dash with GNU wget, and with busybox only.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { machine, release, version } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { canonicalArch, type Kernel } from '../../../storage/index.ts'
import { btfOf, RAW, recordOf, startMill } from '../../helpers/test-service.ts'

const SCRIPT = join(import.meta.dirname, '../../../bpf/example/btf-fetch')
/** busybox applets that the script uses */
const APPLETS = [
  'sh',
  'wget',
  'sed',
  'tail',
  'uname',
  'sha256sum',
  'cut',
  'mkdir',
  'mktemp',
  'chmod',
  'mv',
  'rm',
  'od',
  'tr',
  'sleep',
  'grep',
  'timeout',
  'true',
]
const sha256 = createHash('sha256').update(RAW.little).digest('hex')
const OS_RELEASE = 'NAME="Debian"\nID=debian\nVERSION_ID="12"\n'

const here = { arch: canonicalArch(machine()), release: release() }
const [buildId, otherBuild] = ['ab'.repeat(20), 'cd'.repeat(20)] as [string, string]

/** The content of /sys/kernel/notes; the build-id is neither the first note nor the last. */
function note(build: string, order: 'LE' | 'BE'): Buffer {
  const word = (value: number): Buffer => {
    const bytes = Buffer.alloc(4)
    if (order === 'LE') bytes.writeUInt32LE(value)
    else bytes.writeUInt32BE(value)
    return bytes
  }
  const other = Buffer.concat([word(6), word(4), word(3), Buffer.from('Linux\0\0\0'), word(0)])
  const name = Buffer.from('GNU\0')
  const own = Buffer.concat([word(4), word(20), word(3), name, Buffer.from(build, 'hex')])
  return Buffer.concat([other, own, other])
}

const tools = t.testdir({})
for (const applet of APPLETS) symlinkSync('/usr/bin/busybox', join(tools, applet))
const SHELLS = { dash: '/usr/bin:/bin', busybox: tools }

interface ScriptResult {
  status: number
  stdout: string
  stderr: string
}

interface Machine {
  root: string
  cache: string
  fetch(...args: string[]): Promise<ScriptResult>
}

/** Returns a machine with this os-release, whose programs come from `path`. */
function machineOf(t: Test, path: string, osRelease = OS_RELEASE): Machine {
  const directory = t.testdir({ root: { etc: { 'os-release': osRelease } } })
  const [root, cache] = [join(directory, 'root'), join(directory, 'cache')]
  const env = { PATH: path, BTFMILL_ROOT: root, BTFMILL_CACHE: cache }
  return {
    root,
    cache,
    fetch: (...args) =>
      promisify(execFile)('sh', [SCRIPT, ...args], { env, timeout: 60_000 }).then(
        ({ stdout, stderr }) => ({ status: 0, stdout, stderr }),
        ({ code, stdout, stderr }) => ({ status: code, stdout, stderr }),
      ),
  }
}

const files = (directory: string): string[] =>
  existsSync(directory)
    ? readdirSync(directory, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ name }) => name)
    : []

async function startListener(t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  t.teardown(() => server.close().closeAllConnections())
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Starts a service with builds of this machine's kernel: the first with little-endian BTF, the second with big-endian. */
const startWithBuilds = (t: Test, ...builds: Partial<Kernel>[]) =>
  startMill(t, (store) =>
    Promise.all(
      builds.map(async (build, index) => {
        const record = recordOf({ ...here, ...build })
        const btf = await btfOf(store, [RAW.little, RAW.big][index]!)
        return { ...record, btf, package: { ...record.package, version: `6.1.1-${index}` } }
      }),
    ),
  )

for (const [shell, path] of Object.entries(SHELLS)) {
  t.test(
    `${shell}: BTF comes from the server once, then from the cache while its file is intact`,
    async (t) => {
      const mill = await startMill(t, async (store) => [
        recordOf(here, { btf: await btfOf(store, RAW.little) }),
      ])
      const { fetch, cache } = machineOf(t, path)
      const first = await fetch('--server', mill.url)
      t.equal(first.status, 0, first.stderr)
      const file = first.stdout.trimEnd()
      t.ok(readFileSync(file).equals(RAW.little))
      t.same(files(cache), [`${sha256}.btf`], 'no other file is left')

      const again = await fetch('--offline')
      t.match(again, { status: 0, stdout: first.stdout, stderr: /from the cache/ })
      writeFileSync(file, 'damaged')
      t.match(await fetch('--server', mill.url, '--quiet'), {
        status: 0,
        stdout: first.stdout,
        stderr: /^$/,
      })
      t.ok(readFileSync(file).equals(RAW.little))
    },
  )

  t.test(`${shell}: the build-id selects the running build of two with one uname -r`, async (t) => {
    const mill = await startWithBuilds(t, { buildId }, { buildId: otherBuild })
    const { fetch, root, cache } = machineOf(t, path)
    t.match(await fetch('--server', mill.url), { status: 1, stderr: /has several builds/ })
    mkdirSync(join(root, 'sys/kernel'), { recursive: true })
    for (const [build, notes, raw] of [
      [buildId, note(buildId, 'LE'), RAW.little],
      [otherBuild, note(otherBuild, 'BE'), RAW.big],
    ] as const) {
      writeFileSync(join(root, 'sys/kernel/notes'), notes)
      const { status, stdout, stderr } = await fetch('--server', mill.url)
      t.equal(status, 0, stderr)
      t.ok(
        stdout.startsWith(cache) && stdout.includes(`/${build}/`),
        "not from the other build's cache",
      )
      t.ok(readFileSync(stdout.trimEnd()).equals(raw))
    }
  })

  t.test(`${shell}: uname -v selects the build if the build-id cannot be read`, async (t) => {
    const mill = await startWithBuilds(
      t,
      { buildId, unameVersion: version() },
      { buildId: otherBuild, unameVersion: `${version()}x` },
    )
    const { status, stdout, stderr } = await machineOf(t, path).fetch('--server', mill.url)
    t.equal(status, 0, stderr)
    t.ok(readFileSync(stdout.trimEnd()).equals(RAW.little))
  })

  t.test(`${shell}: a server without the BTF is reported, and nothing is cached`, async (t) => {
    const mill = await startMill(t)
    const { fetch, cache } = machineOf(t, path)
    const { status, stdout, stderr } = await fetch('--server', mill.url)
    t.match({ status, stdout }, { status: 1, stdout: /^$/ })
    t.equal(
      (await fetch('--server', mill.url, '--quiet')).stderr,
      stderr,
      'the error is printed with --quiet, too',
    )
    t.match(stderr, /^btf-fetch: \S+ has no BTF for debian 12 .*\n$/)
    t.same(files(cache), [])
  })

  t.test(`${shell}: a body with the wrong digest is fetched again, and never kept`, async (t) => {
    let downloads = 0
    const server = await startListener(t, ({ url }, response) => {
      if (url?.includes('/sha256?')) response.end(`${sha256}  x.btf\n`)
      else response.end(downloads++ === 0 ? RAW.big : RAW.little)
    })
    const { fetch, cache } = machineOf(t, path)
    t.match(await fetch('--server', server), { status: 0, stderr: /is incomplete; trying again/ })
    t.equal(downloads, 2)
    t.same(files(cache), [`${sha256}.btf`])
  })

  t.test(`${shell}: --wait waits for a generation under way`, async (t) => {
    let pending = 2
    const server = await startListener(t, ({ url }, response) => {
      if (!url?.includes('/sha256?')) response.end(RAW.little)
      else if (pending-- <= 0) response.end(`${sha256}  x.btf\n`)
      else {
        response.writeHead(202, { 'content-type': 'application/problem+json', 'retry-after': '1' })
        response.end(JSON.stringify({ status: 202, code: 'pending', job: '/v1/jobs/x' }))
      }
    })
    const { fetch, cache } = machineOf(t, path)
    t.match(await fetch('--server', server), {
      status: 1,
      stderr: /is generating the BTF: try again later/,
    })
    pending = 1
    t.match(await fetch('--server', server, '--wait', '60'), { status: 0, stderr: /; waiting/ })
    t.same(files(cache), [`${sha256}.btf`])
    for (const wait of ['', 'x', '-1', '9999999999'])
      t.match(await fetch('--server', server, '--wait', wait), { status: 2 })
  })

  t.test(`${shell}: os-release is parsed, and its content never runs`, async (t) => {
    for (const id of ['$(touch /tmp/btf-fetch-ran)', '../../etc', '"a b"', '`id`', '']) {
      const { fetch } = machineOf(t, path, `ID=${id}\nVERSION_ID=12\n`)
      const { status, stderr } = await fetch('--server', 'http://127.0.0.1:1')
      t.equal(status, 1, id)
      t.match(stderr, /invalid ID ".*": expected letters/s)
    }
    t.notOk(existsSync('/tmp/btf-fetch-ran'))
  })

  t.test(
    `${shell}: the kernel's own BTF needs no server, and wrong usage is refused`,
    async (t) => {
      const { fetch, root } = machineOf(t, path)
      t.match(await fetch('--quiet'), { status: 1, stderr: /no server: expected --server URL/ })
      t.match(await fetch('--offline'), { status: 1, stderr: /no BTF in the cache/ })
      t.match(await fetch('--offline', '--quiet'), { status: 1, stderr: /^$/ })
      t.match(await fetch('--unknown'), { status: 2, stderr: /usage/ })
      const own = join(root, 'sys/kernel/btf/vmlinux')
      mkdirSync(join(own, '..'), { recursive: true })
      writeFileSync(own, 'own')
      t.match(await fetch(), { status: 0, stdout: `${own}\n` })
    },
  )
}
