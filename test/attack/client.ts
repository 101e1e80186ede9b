/* Hostile servers, files in the client's cache, clocks that jump, and texts that a browser might run. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstat, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { constants, zstdCompressSync } from 'node:zlib'
import { type FetchOptions, fetchBtf } from '../../service/client/client.ts'
import { Catalog, generateKeys, openStore, putRecord } from '../../storage/index.ts'
import { serve } from '../helpers/serve-process.ts'
import { ask, btfOf, RAW, recordOf } from '../helpers/test-service.ts'
import type { Finding, Target } from './attack.ts'
import { condition, refusal } from './refusal.ts'

const { kernel } = recordOf({})
const sha256 = createHash('sha256').update(RAW.little).digest('hex')
const SCRIPT = '<script>alert(1)</script>'
/** Lets the clock of a process jump by up to ten years, forth and back, ten times a second. */
const JUMPS = `data:text/javascript,const now=Date.now;let by=0;setInterval(()=>{by=(Math.random()-0.5)*6e11},100).unref();Date.now=()=>Math.floor(now()+by)`

const send = (response: ServerResponse, bytes: Uint8Array, headers = {}) =>
  response.writeHead(200, { etag: `"${sha256}"`, ...headers }).end(bytes)

/** Attacks the client, then asks a service for texts with scripts and lets its clock jump. */
export async function attackClient(target: Target): Promise<Finding[]> {
  return [...(await servers(target)), ...(await caches(target)), ...(await pages(target))]
}

async function servers({ directory, teardown }: Target): Promise<Finding[]> {
  const bomb = zstdCompressSync(Buffer.alloc(2 ** 30), {
    params: { [constants.ZSTD_c_windowLog]: 27 },
  })
  const endless = (response: ServerResponse): void => {
    while (!response.destroyed && response.write(Buffer.alloc(2 ** 20))) {}
    response.once('drain', () => endless(response))
  }
  const ATTACKS: Record<string, [string[], RequestListener]> = {
    'a response of gigabytes in 100 KB': [
      ['digest_mismatch'],
      (_, response) => send(response, bomb, { 'content-encoding': 'zstd' }),
    ],
    'a response without an end': [['invalid_response'], (_, response) => endless(response)],
    'a refusal without an end': [
      ['invalid_response'],
      (_, response) => endless(response.writeHead(404)),
    ],
    'a byte now and then': [
      ['timeout'],
      (_, response) => {
        const timer = setInterval(() => response.write('x'), 50)
        response.on('close', () => clearInterval(timer))
      },
    ],
    'an endless wait': [
      ['timeout'],
      (_, response) =>
        response.writeHead(202, { 'retry-after': '999999' }).end('{"code":"pending"}'),
    ],
    'a redirect to a file': [
      ['unreachable'],
      (_, response) => response.writeHead(307, { location: 'file:///etc/passwd' }).end(),
    ],
    'a redirect without an end': [
      ['refused'],
      (_, response) => response.writeHead(307, { location: '/again' }).end(),
    ],
  }
  const findings: Finding[] = []
  for (const [what, [code, listener]] of Object.entries(ATTACKS)) {
    const server = createServer(listener).listen(0, '127.0.0.1')
    teardown(() => server.close().closeAllConnections())
    await new Promise((resolve) => server.once('listening', resolve))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const options: FetchOptions = {
      server: url,
      kernel,
      cache: join(directory, 'none'),
      attempts: 2,
      minDelay: 5,
      deadline: 8000,
      wait: true,
    }
    findings.push(await refusal(`server: ${what}`, code, () => fetchBtf(options)))
  }
  return findings
}

async function caches({ directory, teardown }: Target): Promise<Finding[]> {
  const server = createServer((_, response) => send(response, RAW.little)).listen(0, '127.0.0.1')
  teardown(() => server.close().closeAllConnections())
  await new Promise((resolve) => server.once('listening', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const victim = join(directory, 'victim')
  await writeFile(victim, 'untouched')
  const PLANTS: Record<string, (path: string) => unknown> = {
    'a link to /dev/zero': (path) => symlink('/dev/zero', path),
    'a pipe': (path) => execFileSync('mkfifo', [path]),
    'a file of 1 TiB': (path) => execFileSync('truncate', ['--size=1T', path]),
    'a link to another file': (path) => symlink(victim, path),
    'a link that leads nowhere': (path) => symlink(join(directory, 'nowhere'), path),
  }
  const findings: Finding[] = []
  for (const [what, plant] of Object.entries(PLANTS)) {
    const cache = join(directory, `cache-${Object.keys(PLANTS).indexOf(what)}`)
    const { distro, version, arch, release } = kernel
    const folder = join(cache, distro, version, arch, release, 'any')
    await mkdir(folder, { recursive: true })
    const path = join(folder, `${sha256}.btf`)
    await plant(path)
    findings.push(
      await refusal(`cache: ${what}`, [undefined], () =>
        fetchBtf({ server: url, kernel, cache, deadline: 20_000 }),
      ),
    )
    findings.push(condition(`cache: ${what} is replaced`, (await lstat(path)).isFile()))
  }
  findings.push(
    condition(
      'cache: the other file is untouched',
      (await readFile(victim, 'utf8')) === 'untouched',
    ),
  )
  return findings
}

async function pages({ directory, teardown }: Target): Promise<Finding[]> {
  const url = `file:${join(directory, 'pages')}`
  const store = await openStore(url)
  const keys = generateKeys()
  await putRecord(store, recordOf({}, { btf: await btfOf(store, RAW.little) }))
  const failure = {
    code: 'internal' as const,
    message: SCRIPT,
    attempts: 1,
    at: '2026-11-01T12:00:00.000Z',
    retryAt: null,
  }
  await putRecord(store, recordOf({ release: '6.1.0-script' }, { failure }))
  await Catalog.publish(store, keys.secretKey)
  const args = [
    '--store',
    url,
    '--state',
    join(directory, 'pages-state'),
    '--refresh',
    '1',
    '--log-requests',
    'false',
  ]
  const service = await serve({ teardown: (end) => teardown(end as () => unknown) }, args, {
    options: ['--import', JUMPS],
  })
  const findings: Finding[] = []
  const paths = [
    `/v1/btf/${encodeURIComponent(SCRIPT)}/12/x86_64/x`,
    '/v1/btf/debian/12/x86_64/6.1.0-script',
    `/v1/kernels?distro=${encodeURIComponent(SCRIPT)}`,
    `/${encodeURIComponent(SCRIPT)}`,
    '/v1/kernels',
    '/docs/',
    `/docs/${encodeURIComponent(SCRIPT)}`,
    `/docs?x=${encodeURIComponent(SCRIPT)}`,
    ...['/types/', '/functions/', '/search?q=', '/kernels?distro=', '/diff/a..'].map(
      (path) => path + encodeURIComponent(SCRIPT),
    ),
    ...['/kernels/debian/12/x86_64/6.1.0-script', '/status'],
  ]
  for (const path of paths) {
    const { status, headers, bytes } = await ask(`${service.url}${path}`, { accept: 'text/html' })
    const isHtml = /html/.test(headers['content-type'] ?? 'text/html')
    const safe =
      headers['x-content-type-options'] === 'nosniff' && !(isHtml && bytes.includes(SCRIPT))
    const policy =
      !isHtml ||
      status >= 300 ||
      /script-src|default-src/.test(headers['content-security-policy'] ?? '')
    findings.push(
      condition(
        `page: ${path}`,
        safe && policy,
        `${status} ${headers['content-type'] ?? 'without a type'}`,
      ),
    )
  }
  let [right, asked] = [0, 0]
  for (const end = performance.now() + 15_000; performance.now() < end; asked++) {
    if ((await ask(`${service.url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64`)).status === 200) right++
    await sleep(20)
  }
  findings.push(
    condition('clock: requests succeed while it jumps', right === asked, `${right} of ${asked}`),
  )
  return findings
}
