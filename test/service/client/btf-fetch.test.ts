// bpf/example/btf-fetch, the client in POSIX sh, runs under dash with GNU wget and under busybox alone.
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { type AddressInfo, createServer as createNetServer } from 'node:net'
import { machine, release, version } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { canonicalArch, type Kernel } from '../../../storage/index.ts'
import { btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const SCRIPT = join(import.meta.dirname, '../../../bpf/example/btf-fetch')
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
]
const MORE = ['od', 'tr', 'sleep', 'grep', 'timeout', 'true']
const sha256 = createHash('sha256').update(RAW.little).digest('hex')
const MEBIBYTE = Buffer.alloc(1 << 20)
const OS_RELEASE = 'NAME="Debian"\nID=debian\nVERSION_ID="12"\n'

const here = { arch: canonicalArch(machine()), release: release() }
const [buildId, otherBuild] = ['ab'.repeat(20), 'cd'.repeat(20)] as [string, string]

/** /sys/kernel/notes with the build-id between two other notes. */
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
for (const applet of [...APPLETS, ...MORE]) symlinkSync('/usr/bin/busybox', join(tools, applet))
const SHELLS = { dash: '/usr/bin:/bin', busybox: tools }

interface Outcome {
  status: number
  stdout: string
  stderr: string
}

interface Machine {
  root: string
  cache: string
  fetch(...args: string[]): Promise<Outcome>
}

/** A machine with that os-release, whose programs come from `path`. */
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

async function serverThat(t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  t.teardown(() => server.close().closeAllConnections())
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A server with two builds of this machine's kernel: the first has the little-endian BTF, the second the other. */
const startTwins = (t: Test, ...twins: Partial<Kernel>[]) =>
  startTestService(t, (store) =>
    Promise.all(
      twins.map(async (twin, at) => {
        const record = recordOf({ ...here, ...twin })
        const btf = await btfOf(store, [RAW.little, RAW.big][at]!)
        return { ...record, btf, package: { ...record.package, version: `6.1.1-${at}` } }
      }),
    ),
  )

for (const [shell, path] of Object.entries(SHELLS)) {
  t.test(
    `${shell}: btf-fetch asks the server once, then uses the cache while its file is intact`,
    async (t) => {
      const testService = await startTestService(t, async (store) => [
        recordOf(here, { btf: await btfOf(store, RAW.little) }),
      ])
      const { fetch, cache } = machineOf(t, path)
      const first = await fetch('--server', testService.url)
      t.equal(first.status, 0, first.stderr)
      const file = first.stdout.trimEnd()
      t.ok(readFileSync(file).equals(RAW.little))
      t.same(files(cache), [`${sha256}.btf`], 'the cache holds nothing more')

      const again = await fetch('--offline')
      t.match(again, { status: 0, stdout: first.stdout, stderr: /from the cache/ })
      writeFileSync(file, 'damaged')
      t.match(await fetch('--server', testService.url, '--quiet'), {
        status: 0,
        stdout: first.stdout,
        stderr: /^$/,
      })
      t.ok(readFileSync(file).equals(RAW.little))
    },
  )

  t.test(`${shell}: btf-fetch selects the running build among two with one release`, async (t) => {
    const testService = await startTwins(t, { buildId }, { buildId: otherBuild })
    const { fetch, root, cache } = machineOf(t, path)
    t.match(await fetch('--server', testService.url), { status: 1, stderr: /has several builds/ })
    mkdirSync(join(root, 'sys/kernel'), { recursive: true })
    for (const [build, notes, raw] of [
      [buildId, note(buildId, 'LE'), RAW.little],
      [otherBuild, note(otherBuild, 'BE'), RAW.big],
    ] as const) {
      writeFileSync(join(root, 'sys/kernel/notes'), notes)
      const { status, stdout, stderr } = await fetch('--server', testService.url)
      t.equal(status, 0, stderr)
      t.ok(
        stdout.startsWith(cache) && stdout.includes(`/${build}/`),
        'each build has its own cache',
      )
      t.ok(readFileSync(stdout.trimEnd()).equals(raw))
    }
  })

  t.test(
    `${shell}: without a readable build-id, btf-fetch selects the build by uname -v`,
    async (t) => {
      const testService = await startTwins(
        t,
        { buildId, unameVersion: version() },
        { buildId: otherBuild, unameVersion: `${version()}x` },
      )
      const { status, stdout, stderr } = await machineOf(t, path).fetch('--server', testService.url)
      t.equal(status, 0, stderr)
      t.ok(readFileSync(stdout.trimEnd()).equals(RAW.little))
    },
  )

  t.test(`${shell}: btf-fetch does not repeat a request that the server refuses`, async (t) => {
    const testService = await startTestService(t)
    const { fetch, cache } = machineOf(t, path)
    const { status, stdout, stderr } = await fetch('--server', testService.url)
    t.match({ status, stdout }, { status: 1, stdout: /^$/ })
    t.equal(
      (await fetch('--server', testService.url, '--quiet')).stderr,
      stderr,
      '--quiet prints the reason of a failure',
    )
    t.match(stderr, /^btf-fetch: \S+ has no BTF for debian 12 .*\n$/)
    t.same(files(cache), [])
  })

  t.test(
    `${shell}: btf-fetch never accepts bytes that differ from the announced digest`,
    async (t) => {
      let asked = 0
      const server = await serverThat(t, ({ url }, response) => {
        if (url?.includes('/sha256?')) response.end(`${sha256}  x.btf\n`)
        else response.end(asked++ === 0 ? RAW.big : RAW.little)
      })
      const { fetch, cache } = machineOf(t, path)
      t.match(await fetch('--server', server), { status: 0, stderr: /is incomplete; trying again/ })
      t.equal(asked, 2)
      t.same(files(cache), [`${sha256}.btf`])
    },
  )

  t.test(`${shell}: btf-fetch stops an endless response, and leaves no file`, async (t) => {
    let sent = 0
    const endless: RequestListener = ({ url }, response) => {
      if (url?.includes('/sha256?')) return response.end(`${sha256}  x.btf\n`)
      const send = (): void => {
        while (!response.destroyed && response.write(MEBIBYTE)) sent++
        response.once('drain', send)
      }
      return send()
    }
    const { fetch, cache } = machineOf(t, path)
    const outcome = await fetch('--server', await serverThat(t, endless), '--quiet')
    t.match(outcome, { status: 1, stdout: /^$/, stderr: /^btf-fetch: .* is too large\n$/ })
    t.ok(sent < 80, `${sent} MiB`)
    t.same(files(cache), [])
  })

  t.test(`${shell}: btf-fetch prints no control character of a server`, async (t) => {
    const server = createNetServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () =>
        socket.end('HTTP/1.1 418 \x1b[2J \\033[2J \x9b2J\r\ncontent-length: 0\r\n\r\n'),
      )
    }).listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const { status, stderr } = await machineOf(t, path).fetch(
      '--server',
      `http://127.0.0.1:${port}`,
    )
    t.equal(status, 1)
    t.match(stderr, / refuses: .*418/)
    t.match(stderr, /^[ -~]*\n$/)
  })

  t.test(`${shell}: btf-fetch takes neither a link nor a pipe from its cache`, async (t) => {
    const server = await serverThat(t, ({ url }, response) => {
      response.end(url?.includes('/sha256?') ? `${sha256}  x.btf\n` : RAW.little)
    })
    const { fetch, root } = machineOf(t, path)
    const file = (await fetch('--server', server)).stdout.trimEnd()
    writeFileSync(join(root, 'other'), RAW.little)
    for (const plant of [
      () => symlinkSync('/dev/zero', file),
      () => execFileSync('mkfifo', [file]),
      () => symlinkSync(join(root, 'other'), file),
    ]) {
      rmSync(file)
      plant()
      t.match(await fetch('--server', server), { status: 0, stdout: `${file}\n` })
      t.ok(lstatSync(file).isFile())
      t.ok(readFileSync(file).equals(RAW.little))
    }
  })

  t.test(`${shell}: btf-fetch waits for a generation as long as --wait says`, async (t) => {
    let pending = 2
    const server = await serverThat(t, ({ url }, response) => {
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

  t.test(
    `${shell}: btf-fetch refuses os-release values that are no plain words, and executes none`,
    async (t) => {
      for (const id of ['$(touch /tmp/btf-fetch-ran)', '../../etc', '"a b"', '`id`', '']) {
        const { fetch } = machineOf(t, path, `ID=${id}\nVERSION_ID=12\n`)
        const { status, stderr } = await fetch('--server', 'http://127.0.0.1:1')
        t.equal(status, 1, id)
        t.match(stderr, /invalid ID ".*": expected letters/s)
      }
      t.notOk(existsSync('/tmp/btf-fetch-ran'))
    },
  )

  t.test(`${shell}: btf-fetch prefers the kernel's own BTF, and reports wrong usage`, async (t) => {
    const { fetch, root } = machineOf(t, path)
    t.match(await fetch('--quiet'), { status: 1, stderr: /no server: expected --server URL/ })
    t.match(await fetch('--offline'), { status: 1, stderr: /no BTF in the cache/ })
    t.match(await fetch('--offline', '--quiet'), { status: 1, stderr: /^$/ })
    t.match(await fetch('--unknown'), { status: 2, stderr: /usage/ })
    const own = join(root, 'sys/kernel/btf/vmlinux')
    mkdirSync(join(own, '..'), { recursive: true })
    writeFileSync(own, 'own')
    t.match(await fetch(), { status: 0, stdout: `${own}\n` })
  })
}
