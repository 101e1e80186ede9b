// bpf/example/btf-fetch, the client in POSIX sh, runs under dash with curl or GNU wget, and under busybox alone.
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { type AddressInfo, createServer as createNetServer } from 'node:net'
import { machine, release, version } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { canonicalArch, type Kernel } from '../../../storage/index.ts'
import { startForwardProxy } from '../../helpers/forward-proxy.ts'
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
const MORE = ['od', 'tr', 'sleep', 'grep', 'timeout', 'true', 'cat', 'find', 'id', 'rmdir', 'touch']
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

/** A directory with these programs alone, as values of `programs`. */
function pathWith(programs: Record<string, string>): string {
  const directory = mkdtempSync(join(home, 'bin-'))
  for (const [name, program] of Object.entries(programs))
    symlinkSync(program, join(directory, name))
  return directory
}

const home = t.testdir({})
const applets = [...APPLETS, ...MORE]
const busybox = Object.fromEntries(applets.map((name) => [name, '/usr/bin/busybox']))
const gnu = Object.fromEntries(applets.map((name) => [name, `/usr/bin/${name}`]))
const { wget: _, ...withoutWget } = gnu
const SHELLS = {
  'dash and curl': pathWith({ ...withoutWget, curl: '/usr/bin/curl' }),
  'dash and wget': pathWith(gnu),
  busybox: pathWith(busybox),
}

interface Outcome {
  status: number
  stdout: string
  stderr: string
}

interface Machine {
  root: string
  cache: string
  fetch(...args: string[]): Promise<Outcome>
  /** runs btf-fetch with these variables too */
  fetchWith(variables: Record<string, string>, ...args: string[]): Promise<Outcome>
}

/** A machine with that os-release, whose programs come from `path`. */
function machineOf(t: Test, path: string, osRelease = OS_RELEASE): Machine {
  const directory = t.testdir({ root: { etc: { 'os-release': osRelease } } })
  const [root, cache] = [join(directory, 'root'), join(directory, 'cache')]
  const fetchWith: Machine['fetchWith'] = (variables, ...args) => {
    const env = { PATH: path, BTFMILL_ROOT: root, BTFMILL_CACHE: cache, ...variables }
    const options = { env, timeout: 60_000, encoding: 'latin1' } as const
    return promisify(execFile)('sh', [SCRIPT, ...args], options).then(
      ({ stdout, stderr }) => ({ status: 0, stdout, stderr }),
      ({ code, stdout, stderr }) => ({ status: code, stdout, stderr }),
    )
  }
  return { root, cache, fetch: (...args) => fetchWith({}, ...args), fetchWith }
}

const files = (directory: string): string[] =>
  existsSync(directory)
    ? readdirSync(directory, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ name }) => name)
    : []

const TOKEN = `btfmill_${'t0'.repeat(20)}`

/** A server that has the BTF of every kernel. */
const answer: RequestListener = ({ url }, response) => {
  response.end(url?.includes('/sha256?') ? `${sha256}  x.btf\n` : RAW.little)
}

/** The command lines of all processes. */
const commandLines = (): string =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
      } catch {
        return '' // it has ended
      }
    })
    .join('\n')

async function serverThat(t: Test, listener: RequestListener, host = '127.0.0.1'): Promise<string> {
  const server = createServer(listener).listen(0, host)
  t.teardown(() => server.close().closeAllConnections())
  await once(server, 'listening')
  return `http://${host}:${(server.address() as AddressInfo).port}`
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

  t.test(`${shell}: btf-fetch goes through a proxy, but not to this machine itself`, async (t) => {
    const server = await serverThat(t, answer)
    const other = await serverThat(t, answer, '127.0.0.2')
    const proxy = await startForwardProxy(t, server)
    for (const variable of ['http_proxy', 'HTTP_PROXY']) {
      const variables = { [variable]: proxy.url }
      const { fetchWith, cache } = machineOf(t, path)
      const named = await fetchWith(variables, '--server', 'http://btfmill.test:8080')
      t.equal(named.status, 0, named.stderr)
      t.match(proxy.requests.splice(0), [
        /^GET http:\/\/btfmill\.test:8080\/v1\/btf\/debian\/12\/.*\/sha256/,
        `GET http://btfmill.test:8080/v1/btf/sha256/${sha256}`,
      ])
      rmSync(cache, { recursive: true })
      t.equal((await fetchWith(variables, '--server', server)).status, 0, 'loopback')
      rmSync(cache, { recursive: true })
      for (const no of ['NO_PROXY', 'no_proxy']) {
        const except = { ...variables, [no]: 'x.test,127.0.0.2' }
        t.equal((await fetchWith(except, '--server', other)).status, 0)
        rmSync(cache, { recursive: true })
      }
      t.same(proxy.requests, [])
    }
  })

  t.test(`${shell}: btf-fetch uses a second cache where the first cannot be written`, async (t) => {
    const server = await serverThat(t, answer)
    const { fetchWith, root } = machineOf(t, path)
    const readOnly = { BTFMILL_CACHE: '/dev/null/cache' }
    for (const [variables, place] of [
      [{ HOME: join(root, 'home') }, 'home/.cache/btfmill'],
      [{ XDG_CACHE_HOME: join(root, 'xdg') }, 'xdg/btfmill'],
      [{ TMPDIR: root, HOME: '/dev/null' }, `btfmill-${process.getuid?.()}`],
    ] as const) {
      const first = await fetchWith({ ...readOnly, ...variables }, '--server', server)
      t.match(first, { status: 0, stderr: /cannot write to \/dev\/null\/cache/ })
      t.ok(first.stdout.startsWith(`${join(root, place)}/debian/12/`), first.stdout)
      t.match(await fetchWith({ ...readOnly, ...variables }, '--offline'), {
        status: 0,
        stdout: first.stdout,
        stderr: /from the cache/,
      })
    }
    const nowhere = { ...readOnly, HOME: '/dev/null', TMPDIR: '/dev/null' }
    t.match(await fetchWith(nowhere, '--server', server), {
      status: 1,
      stderr: /cannot write to \/dev\/null\/btfmill-/,
    })
  })

  t.test(
    `${shell}: btf-fetch neither reads nor writes a second cache of another user`,
    process.getuid?.() === 0 ? {} : { skip: 'needs root to give a directory away' },
    async (t) => {
      const server = await serverThat(t, answer)
      const { fetchWith, root } = machineOf(t, path)
      const variables = { BTFMILL_CACHE: '/dev/null/cache', TMPDIR: root, HOME: '/dev/null' }
      t.equal((await fetchWith(variables, '--server', server)).status, 0)
      const place = join(root, `btfmill-${process.getuid?.()}`)
      chownSync(place, 65534, 65534)
      t.match(await fetchWith(variables, '--offline'), { status: 1, stdout: '' })
      t.match(await fetchWith(variables, '--server', server), { status: 1, stdout: '' })
      renameSync(place, join(root, 'elsewhere'))
      chownSync(join(root, 'elsewhere'), 0, 0)
      symlinkSync(join(root, 'elsewhere'), place)
      t.match(await fetchWith(variables, '--offline'), { status: 1, stdout: '' })
    },
  )

  t.test(`${shell}: btf-fetch removes BTF that no kernel used for --keep days`, async (t) => {
    const server = await serverThat(t, answer)
    const { fetch, cache } = machineOf(t, path)
    const old = join(cache, 'debian/12/x86_64/6.1.0-1-amd64/00')
    const young = join(cache, 'debian/12/x86_64/6.1.0-2-amd64/00')
    const names = [`${'0'.repeat(64)}.btf`, '.fetch.abcdef', 'notes.btf']
    for (const directory of [old, young]) {
      mkdirSync(directory, { recursive: true })
      for (const name of names) writeFileSync(join(directory, name), '')
    }
    const days = (n: number) => Date.now() / 1000 - n * 24 * 60 * 60
    for (const name of names) utimesSync(join(old, name), days(40), days(40))
    t.equal((await fetch('--server', server)).status, 0)
    t.same(readdirSync(old).sort(), [...names].sort(), 'the default is 90 days')
    const file = (await fetch('--offline')).stdout.trimEnd()
    utimesSync(file, days(40), days(40))
    t.equal((await fetch('--offline')).status, 0)
    t.ok(lstatSync(file).mtimeMs / 1000 > days(1), 'a file that is used is a young one')
    rmSync(file)
    t.equal((await fetch('--server', server, '--keep', '0')).status, 0)
    t.same(readdirSync(old).sort(), [...names].sort(), '0 keeps all')
    rmSync(file)
    t.equal((await fetch('--server', server, '--keep', '30')).status, 0)
    t.same(readdirSync(old), ['notes.btf'], 'only files of btf-fetch are removed')
    t.same(readdirSync(young).sort(), [...names].sort())
    rmSync(join(old, 'notes.btf'))
    for (const name of names) utimesSync(join(young, name), days(40), days(40))
    rmSync(join(young, 'notes.btf'))
    rmSync(file)
    t.equal((await fetch('--server', server, '--keep', '30')).status, 0)
    t.notOk(existsSync(young), 'an empty directory goes too')
    t.match(await fetch('--server', server, '--keep', 'x'), { status: 2 })
  })

  t.test(`${shell}: btf-fetch writes BTF to a file or to standard output`, async (t) => {
    const server = await serverThat(t, answer)
    const { fetch, root } = machineOf(t, path)
    const output = join(root, 'kernel.btf')
    t.match(await fetch('--server', server, '--output', output), {
      status: 0,
      stdout: `${output}\n`,
    })
    t.ok(readFileSync(output).equals(RAW.little))
    t.equal(lstatSync(output).mode & 0o777, 0o644)
    t.same(
      readdirSync(root).filter((name) => name.startsWith('kernel')),
      ['kernel.btf'],
    )
    const { status, stdout } = await fetch('--offline', '-o', '-')
    t.equal(status, 0)
    t.ok(Buffer.from(stdout, 'latin1').equals(RAW.little))
    for (const wrong of [join(root, 'no/such'), root])
      t.match(await fetch('--offline', '-o', wrong), { status: 1, stderr: /cannot write to / })
  })

  t.test(`${shell}: btf-fetch sends a token to the server alone`, async (t) => {
    const asked: (string | undefined)[] = []
    let lines = ''
    const elsewhere = await serverThat(t, ({ headers }, response) => {
      asked.push(headers.authorization)
      response.end(RAW.little)
    })
    const server = await serverThat(t, ({ url, headers }, response) => {
      lines += commandLines()
      if (headers.authorization !== `Bearer ${TOKEN}`) response.writeHead(401).end()
      else if (url?.includes('/sha256?')) response.end(`${sha256}  x.btf\n`)
      else response.writeHead(307, { location: `${elsewhere}/blob` }).end()
    })
    const { fetchWith, root } = machineOf(t, path)
    const file = join(root, 'token')
    writeFileSync(file, `${TOKEN}\n`)
    if (shell === 'busybox') {
      const { status, stderr } = await fetchWith({ BTFMILL_TOKEN: TOKEN }, '--server', server)
      t.match({ status, stderr }, { status: 1, stderr: /^btf-fetch: busybox cannot send a token/ })
      t.equal(lines, '', 'the server was not asked')
      return
    }
    t.match(await fetchWith({}, '--server', server), { status: 1, stderr: /needs a token/ })
    const ways: [Record<string, string>, ...string[]][] = [
      [{}, '--token-file', file],
      [{ BTFMILL_TOKEN_FILE: file }],
      [{ BTFMILL_TOKEN: TOKEN }],
    ]
    for (const [variables, ...args] of ways) {
      const outcome = await fetchWith({ ...variables, HOME: root }, '--server', server, ...args)
      t.equal(outcome.status, 0, outcome.stderr)
      t.same(asked.splice(0), [undefined])
      rmSync(outcome.stdout.trimEnd())
    }
    t.notOk(lines.includes(TOKEN), 'no command line shows the token')
    t.match(lines, /btf-fetch/)
    for (const wrong of ['two words', 'x"y', '']) {
      writeFileSync(file, wrong)
      const outcome = await fetchWith({}, '--server', server, '--token-file', file)
      t.match(outcome, { status: 1, stderr: /invalid token|is empty/ })
    }
  })
}

t.test('without curl, wget and busybox, btf-fetch says so at once', async (t) => {
  const { fetch, cache } = machineOf(t, pathWith(withoutWget))
  const { status, stderr } = await fetch('--server', 'http://127.0.0.1:1')
  t.equal(status, 1)
  t.equal(
    stderr,
    'btf-fetch: cannot ask http://127.0.0.1:1: expected curl, wget or busybox in PATH\n',
  )
  t.notOk(existsSync(cache))
})

t.test('btf-fetch uses a busybox that has no link named wget', async (t) => {
  const server = await serverThat(t, answer)
  const path = pathWith({ ...withoutWget, busybox: '/usr/bin/busybox' })
  t.match(await machineOf(t, path).fetch('--server', server), { status: 0 })
})
