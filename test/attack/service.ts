/*
 * Floods a service with the memory of its Kubernetes deployment, while honest clients ask it for all that it does. The
 * limit is the kernel's, where this machine allows a control group. All attackers have one address and the honest clients
 * another, as on a network.
 */
import { existsSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, type Dispatcher, request } from 'undici'
import { type BtfType, encodeBtf, parseBtf } from '../../bpf/index.ts'
import { defaultsFor } from '../../service/memory.ts'
import { openStore, putRecord } from '../../storage/index.ts'
import { median } from '../bench/measure.ts'
import { Random } from '../fuzz/random.ts'
import { coreObjects, littleKernels, wholeKernel } from '../helpers/core.ts'
import { floodObject } from '../helpers/flood-object.ts'
import { limitMemory } from '../helpers/memory-limit.ts'
import { serve } from '../helpers/serve-process.ts'
import { btfOf, recordOf } from '../helpers/test-service.ts'
import type { Finding, Target } from './attack.ts'

const MIB = 2 ** 20
/** The memory limit of the deployment, in bytes (docker/kubernetes/service.yaml). */
const MEMORY = 1024 * MIB
const KERNELS = 20
/** This machine's own BTF, for questions about a whole kernel. */
const OWN_BTF = '/sys/kernel/btf/vmlinux'
const HONEST = '127.0.0.2'
/** Milliseconds that an honest client waits in all, as often as it is told to come again. */
const PATIENCE = 60_000
/** The longest that a look at /healthz may take, in milliseconds: the event loop is free again by then. */
const MAX_DELAY = 5000

/** The state of a flood: what the service answered, and whether it goes on. */
class Flood {
  readonly url: string
  readonly port: number
  readonly end: number
  readonly statuses = new Map<string, number>()
  readonly broken = new Map<string, number>()
  readonly honest = { succeeded: 0, failed: 0, reasons: new Map<string, number>() }
  readonly delays: number[] = []
  readonly random = new Random(1)

  constructor(url: string, minutes: number) {
    this.url = url
    this.port = Number(new URL(url).port)
    this.end = Date.now() + minutes * 60_000
  }

  get goesOn(): boolean {
    return Date.now() < this.end
  }

  /** Counts an answer, and notes one that no request may get: 5xx, but for 503 with Retry-After. */
  note(what: string, status: number, retryAfter: unknown): void {
    count(this.statuses, `${what.replace(/^honest .*/, 'honest')}: ${status}`)
    if (status >= 500 && !(status === 503 && retryAfter)) count(this.broken, `${what}: ${status}`)
  }

  /** Repeats an attack in so many clients at once. One that is cut off begins again. */
  async repeat(clients: number, attack: (n: number) => Promise<unknown>): Promise<void> {
    const client = async (first: number) => {
      for (let n = first; this.goesOn; n += clients) await attack(n).catch(() => sleep(50))
    }
    await Promise.all(Array.from({ length: clients }, (_, n) => client(n)))
  }
}

const count = (counts: Map<string, number>, key: string) =>
  counts.set(key, (counts.get(key) ?? 0) + 1)

/** Floods a service for some minutes. */
export async function attackService({ directory, minutes, teardown }: Target): Promise<Finding[]> {
  const url = `file:${join(directory, 'store')}`
  const store = await openStore(url)
  for (const [n, raw] of kernels().entries())
    await putRecord(
      store,
      recordOf({ release: `6.1.0-${n}-amd64` }, { btf: await btfOf(store, raw) }),
    )
  // nothing listens at the discard port: a generation that is started fails
  const generation = ['--generate', 'on-miss', '--mirror', 'http://127.0.0.1:9/debian']
  const args = ['--store', url, '--state', join(directory, 'state'), '--log-requests', 'false']
  const prefix = limitMemory(MEMORY, teardown)
  if (!prefix)
    console.log('this machine allows no control group: the service has its settings only')
  const service = await serve(
    { teardown: (end) => teardown(end as () => unknown) },
    [...args, ...generation, ...(prefix ? [] : settings())],
    prefix ? { prefix, env: ENV } : { options: ['--max-old-space-size=512'], env: ENV },
  )
  const flood = new Flood(service.url, minutes)
  await Promise.all([
    ...attacks(flood),
    flood.repeat(4, (n) => askHonestly(flood, n)),
    flood.repeat(1, () => lookAtHealth(flood)),
  ])
  return findingsOf(flood, peakOf(service.pid))
}

/** As docker/Dockerfile sets it. */
const ENV = { ...process.env, MALLOC_MMAP_THRESHOLD_: String(MIB) }

/** The settings that the service would take by itself with this much memory, as flags. */
function settings(): string[] {
  const { threads, bulkRequests, bundles, ...sizes } = defaultsFor(MEMORY)
  const counts = { threads, bulkRequests, bundles }
  const flag = (name: string) => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`
  return [
    ...Object.entries(counts).flatMap(([name, count]) => [flag(name), `${count}`]),
    ...Object.entries(sizes).flatMap(([name, size]) => [flag(name), `${size / MIB}M`]),
  ]
}

/** Small kernels that differ, and the kernel of this machine, if it has BTF, in two forms. */
function kernels(): Buffer[] {
  const little = parseBtf(readFileSync(littleKernels().get('x86_64')!))
  const small = Array.from({ length: KERNELS }, (_, n) =>
    Buffer.from(wholeKernel(little, ['vfs_read', `function_${n}`]).bytes),
  )
  if (!existsSync(OWN_BTF)) return small
  const own = parseBtf(readFileSync(OWN_BTF))
  const types = [...own.types()]
  const at = types.findIndex(({ kind, name }) => kind === 'STRUCT' && name === 'task_struct')
  types[at] = { ...types[at]!, name: 'task_struct_other' } as BtfType
  const other = Buffer.from(encodeBtf(types, { byteOrder: own.byteOrder }))
  return [...small, other, Buffer.from(own.bytes)]
}

function findingsOf(
  { honest, broken, statuses, delays }: Flood,
  peak: number | undefined,
): Finding[] {
  const share = honest.succeeded / Math.max(1, honest.succeeded + honest.failed)
  const list = (counts: Map<string, number>) =>
    [...counts]
      .sort()
      .map(([key, times]) => `${key} × ${times}`)
      .join(', ') || 'none'
  console.log(`answers\n  ${list(statuses).replaceAll(', ', '\n  ')}`)
  console.log(`honest requests that failed: ${list(honest.reasons)}`)
  const delay = Math.max(0, ...delays)
  return [
    {
      what: 'peak memory of the service',
      measured: peak === undefined ? 'it has ended' : `${Math.round(peak / MIB)} MiB`,
      bound: `${MEMORY / MIB} MiB`,
      holds: peak !== undefined && peak < MEMORY,
    },
    {
      what: 'honest requests that succeed',
      measured: `${honest.succeeded} of ${honest.succeeded + honest.failed}`,
      bound: '99 %',
      holds: share >= 0.99,
    },
    {
      what: '5xx but 503 with Retry-After',
      measured: list(broken),
      bound: 'none',
      holds: broken.size === 0,
    },
    {
      what: 'longest wait for /healthz',
      measured: `${Math.round(delay)} ms, median ${Math.round(median(delays))} ms`,
      bound: `${MAX_DELAY} ms`,
      holds: delay < MAX_DELAY,
    },
  ]
}

/** The largest memory that a process has had, in bytes; undefined if it has ended. */
function peakOf(pid: number): number | undefined {
  try {
    const [, kib] = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
    return kib === undefined ? undefined : Number(kib) * 1024
  } catch {
    return undefined
  }
}

const object = readFileSync(coreObjects('el').get('task')!)

/** Many objects with long texts: what the service says about them must not fill its memory. */
const hostileForms = Array.from({ length: 8 }, (_, form) =>
  formOf(Array.from({ length: 32 }, (_, n) => floodObject(100_000, 330, `${form}-${n}`))),
)

function formOf(objects: readonly Uint8Array[]): Buffer {
  return Buffer.concat([
    ...objects.flatMap((bytes, n) => [
      Buffer.from(`--x\r\ncontent-disposition: form-data; name="object"; filename="o${n}"\r\n\r\n`),
      bytes,
      Buffer.from('\r\n'),
    ]),
    Buffer.from('--x--\r\n'),
  ])
}

/** Names, texts and cursors, some of them for the pages of types and the index. */
const NAMES = [
  ...['task_struct', 'sk_buff', 'vfs_read', 'int', 'task_struct.pid', 'task_struct.__state'],
  ...['*', '%', '_', `${'a_%'.repeat(100)}`, "x' OR 1=1 --", '__proto__', 'a.b.c.d', '\u0000'],
  ...['<script>alert(1)</script>', `${'x'.repeat(500)}`, 'e', 't_', '(', '[[[[', '\\'],
]
const SOME_KERNELS = ['0', '7', '19', `${KERNELS}`, `${KERNELS + 1}`, '99'].map(
  (n) => `debian/12/x86_64/6.1.0-${n}-amd64`,
)
const FILTERS = ['', 'kind=struct', 'kind=func', 'name=task', 'name=%25', 'kind=enum&name=e']
const CURSORS = ['', '&limit=1000', '&limit=1&cursor=1', '&cursor=9999999']

const FORM = { 'content-type': 'multipart/form-data; boundary=x' }
const BOMBS = [
  formOf(Array.from({ length: 20_000 }, () => Buffer.alloc(0))),
  Buffer.from(`--x\r\n${'a: b\r\n'.repeat(200_000)}\r\n\r\n--x--`),
  Buffer.from(
    `--x\r\ncontent-disposition: form-data; name="${'o'.repeat(2_000_000)}"\r\n\r\n\r\n--x--`,
  ),
  Buffer.from('--x'.repeat(700_000)),
]
const ODD = [
  '/v1/btf/..%2f..%2f..%2fetc/passwd/x/y',
  '/v1/btf/__proto__/constructor/toString/x',
  `/v1/kernels?${'release=*&'.repeat(300)}`,
  `/v1/kernels?release=${'*'.repeat(1500)}`,
  `/v1/kernels?release=${'*a'.repeat(700)}`,
  '/v1/kernels?limit=1e309&after=%00',
  `/${'a/'.repeat(1500)}`,
  '//evil.example/%0d%0ax-injected:1',
  '/v1/btf/sha256/%ff',
  '/docs/../../package.json',
  '/docs/<script>alert(1)</script>',
]

/** Attacks, each in several clients. */
function attacks(flood: Flood): Promise<void>[] {
  const { url, port, random } = flood
  const ask = async (
    what: string,
    path: string,
    options: Partial<Dispatcher.RequestOptions> = {},
  ) => {
    const { statusCode, headers, body } = await request(`${url}${path}`, options)
    flood.note(what, statusCode, headers['retry-after'])
    return {
      status: statusCode,
      location: headers.location,
      type: `${headers['content-type']}`,
      body,
    }
  }
  const post = (what: string, path: string, body: Uint8Array) =>
    ask(what, path, { method: 'POST', headers: FORM, body })
  return [
    // read slowly, or not at all
    flood.repeat(4, async (n) => {
      const path = n % 4 === 3 ? '/v1/bundles?profile=tree' : '/v1/check'
      const { body } = await post('hostile objects', path, hostileForms[n % hostileForms.length]!)
      await sleep(n % 3 === 0 ? 5000 : 500)
      // an answer that is cut off on purpose is no error of the script
      await (n % 3 === 0 ? body.on('error', () => {}).destroy() : body.dump())
    }),
    flood.repeat(2, async (n) => {
      const bytes = Buffer.from(n % 2 ? object : floodObject(2000, 50))
      for (let i = 0; i < 8; i++) bytes[random.below(bytes.length)] = random.below(256)
      const path = n % 3 ? '/v1/check' : '/v1/minimize?kernel=debian/12/x86_64/6.1.0-1-amd64'
      const { body } = await post('damaged objects', path, formOf([bytes]))
      await body.dump()
    }),
    flood.repeat(2, async (n) => {
      const { body } = await post('multipart bombs', '/v1/check', BOMBS[n % BOMBS.length]!)
      await body.dump()
    }),
    flood.repeat(2, async (n) => {
      const path =
        n % 4 ? ODD[n % ODD.length]! : `/${random.below(2 ** 31)}?${random.below(2 ** 31)}`
      const { body } = await ask('odd paths', path)
      if (/<script>alert\(1\)<\/script>/.test(await body.text()))
        count(flood.broken, `${path}: a script comes back`)
      await sleep(10)
    }),
    // pages and the index: everything that needs a thread, and few questions twice
    flood.repeat(40, async (n) => {
      const path = random.pick(PAGES)(random)
      const headers = { accept: n % 2 ? 'text/html' : 'application/json' }
      const { body, type } = await ask('pages and the index', path, { headers })
      const text = await body.text()
      if (/html/.test(type) && /<script>alert\(1\)<\/script>/.test(text))
        count(flood.broken, `${path}: a script comes back`)
    }),
    // objects for the page, whose results are looked at, or not
    flood.repeat(8, async (n) => {
      const bytes = n % 4 ? floodObject(400, 2000, `page ${n % 64}`) : Buffer.from(object)
      if (n % 4 === 0) bytes[random.below(bytes.length)] = random.below(256)
      const { body, location } = await post('objects for the page', '/check', formOf([bytes]))
      await body.dump()
      if (typeof location !== 'string') return
      const path = `${location}${random.pick(['', '', '/badge.svg', '/bundle'])}`
      const seen = await ask('pages of objects', path)
      await sleep(n % 3 === 0 ? 5000 : 100)
      await (n % 3 === 0 ? seen.body.on('error', () => {}).destroy() : seen.body.dump())
    }),
    flood.repeat(2, async (n) => {
      const bytes = Buffer.from(n % 2 ? object : floodObject(2000, 50))
      for (let i = 0; i < 4; i++) bytes[random.below(bytes.length)] = random.below(256)
      const kernel = random.pick(SOME_KERNELS)
      const { body } = await post('headers', `/v1/btf/${kernel}/vmlinux.h`, formOf([bytes]))
      await body.dump()
    }),
    flood.repeat(1, async (n) => {
      const headers = n % 2 ? { 'sec-fetch-site': 'cross-site' } : { origin: 'http://evil.example' }
      const path = `/v1/btf/debian/12/x86_64/6.1.0-cross-${n}`
      const { status, body } = await ask('cross-site requests', path, { headers })
      await body.dump()
      if (status === 202) count(flood.broken, 'a cross-site request starts a generation')
      await sleep(200)
    }),
    flood.repeat(50, async () => {
      await trickle(flood, port, 'GET /v1/kernels HTTP/1.1\r\nhost: x\r\n', 'x: y\r\n', 500)
    }),
    flood.repeat(42, async () => {
      const head = `POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-type: ${FORM['content-type']}\r\n`
      await trickle(flood, port, `${head}content-length: 33000000\r\n\r\n--x\r\n`, '', 1000)
    }),
    flood.repeat(20, async (n) => {
      const path = n % 2 ? '/v1/kernels' : '/debian/12/x86_64/6.1.0-1-amd64.btf.tar.xz'
      const get = `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`
      const socket = connect(port, '127.0.0.1').on('error', () => {})
      socket.pause()
      socket.write(get.repeat(20))
      await sleep(5000)
      socket.destroy()
    }),
  ]
}

/** Addresses of pages and of the index, with names and filters that few ask for. */
const PAGES: readonly ((random: Random) => string)[] = [
  (random) => `/types/${nameIn(random)}`,
  (random) => `/types/${nameIn(random)}?kernel=${random.pick(SOME_KERNELS)}`,
  (random) => `/types/${nameIn(random)}/history`,
  (random) => `/functions/${nameIn(random)}?kernel=${random.pick(SOME_KERNELS)}`,
  (random) => `/search?q=${nameIn(random)}`,
  (random) => `/diff/${twoIn(random)}?${random.pick(FILTERS)}`,
  (random) => `/diff/${twoIn(random)}?change=changed&page=${random.below(300) + 1}`,
  (random) => `/v1/search?q=${nameIn(random)}${random.pick(CURSORS)}`,
  (random) => `/v1/types/${nameIn(random)}/history?kind=struct${random.pick(CURSORS)}`,
  (random) => `/v1/types/${nameIn(random)}?kernel=${random.pick(SOME_KERNELS)}`,
  (random) => `/v1/diff?${twoIn(random, 'from=', '&to=')}&${random.pick(FILTERS)}`,
  (random) => `/v1/diff?${twoIn(random, 'from=', '&to=')}${random.pick(CURSORS)}`,
  (random) => `/v1/btf/${random.pick(SOME_KERNELS)}/vmlinux.h`,
  (random) => `/kernels?distro=${nameIn(random)}`,
  () => '/status',
  () => '/v1/stats',
]
const nameIn = (random: Random): string =>
  encodeURIComponent(random.pick(NAMES) + (random.once(3) ? random.below(1000) : ''))
const twoIn = (random: Random, before = '', between = '..'): string =>
  `${before}${random.pick(SOME_KERNELS)}${between}${random.pick(SOME_KERNELS)}`

/** Sends a piece at an interval until the service closes the connection, or a minute is over. */
async function trickle(flood: Flood, port: number, first: string, piece: string, interval: number) {
  const socket: Socket = connect(port, '127.0.0.1').on('error', () => {})
  socket.resume().write(first)
  for (let n = 0; n < 60_000 / interval && !socket.closed && flood.goesOn; n++) {
    if (piece) socket.write(piece)
    await sleep(interval)
  }
  socket.destroy()
}

const honestAgent = new Agent({ connect: { localAddress: HONEST } })
const honestForm = formOf([object])
const KERNEL = 'debian/12/x86_64/6.1.0-1-amd64'
const HONEST_REQUESTS: readonly { path: string; body?: Buffer }[] = [
  { path: `/v1/btf/${KERNEL}` },
  { path: '/v1/kernels' },
  { path: `/${KERNEL}.btf.tar.xz` },
  { path: '/v1/check?release=6.1.0-1-*', body: honestForm },
  { path: `/v1/minimize?kernel=${KERNEL}`, body: honestForm },
  { path: '/v1/bundles?profile=tree&release=6.1.0-1-*', body: honestForm },
  { path: `/v1/btf/${KERNEL}/vmlinux.h`, body: honestForm },
  { path: '/' },
  { path: `/kernels/${KERNEL}` },
  { path: '/types/task_struct' },
  { path: '/types/task_struct/history' },
  { path: `/diff/${KERNEL}..${KERNEL.replace('-1-', '-2-')}` },
  { path: '/search?q=task' },
  { path: '/v1/types/task_struct/history' },
  { path: '/v1/search?q=vfs' },
  { path: '/check', body: honestForm },
]

/** Asks as a client does: it comes again when it is told to, and after a connection is cut. */
async function askHonestly(flood: Flood, n: number): Promise<void> {
  const { path, body } = HONEST_REQUESTS[n % HONEST_REQUESTS.length]!
  const until = Date.now() + PATIENCE
  let last = ''
  while (Date.now() < until) {
    try {
      const answer = await request(`${flood.url}${path}`, {
        dispatcher: honestAgent,
        ...(body && { method: 'POST', headers: FORM, body }),
      })
      await answer.body.arrayBuffer()
      const { statusCode, headers } = answer
      flood.note(`honest ${path}`, statusCode, headers['retry-after'])
      if (statusCode === 200 || statusCode === 303) {
        flood.honest.succeeded++
        return await sleep(50)
      }
      last = `${path}: ${statusCode}`
      if (statusCode !== 503 && statusCode !== 429) break
      await sleep(1000 * Math.min(5, Number(headers['retry-after'] ?? 1)))
    } catch (error) {
      last = `${path}: ${(error as Error).message}`
      await sleep(500)
    }
  }
  flood.honest.failed++
  count(flood.honest.reasons, last)
}

async function lookAtHealth(flood: Flood): Promise<void> {
  const began = performance.now()
  const { body } = await request(`${flood.url}/healthz`, { dispatcher: honestAgent })
  await body.dump()
  flood.delays.push(performance.now() - began)
  await sleep(100)
}
