// npm run bench:serve: the service against nginx with the same files, one process each, under wrk with keep-alive
// connections. Requests are small BTF, a 304 for the same, and a kernel's complete BTF as stored; first without request
// logs, then with (ours to a pipe, nginx's to a file). Then the service's memory after one and after ten minutes' worth of
// mixed load, and a herd of clients that start at once. The first run downloads the kernels of the long tests and takes
// minutes.
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { request } from 'undici'
import { minimizeBtf, openObject, parseBtf } from '../../bpf/index.ts'
import { blobKey, openStore, putRecord, sha256Of } from '../../storage/index.ts'
import { coreObjects } from '../helpers/core.ts'
import { startNginx } from '../helpers/nginx.ts'
import { serve } from '../helpers/serve-process.ts'
import { btfOf, recordOf } from '../helpers/test-service.ts'
import { kernels } from '../long/kernels.ts'
import { herd } from './herd.ts'
import { Load } from './load.ts'
import { median, mib, nodeAsStarted, table } from './measure.ts'
import { type Throughput, wrk } from './wrk.ts'

const RUNS = 5
/** A cloud kernel of Debian 12: 4.1 MB of BTF, 1.2 MB with zstd. */
const KERNEL = /^x86_64-6\.1/
/** This object needs 2 KB of that. */
const OBJECT = 'enum64'

/** Memory part: more kernels than the body cache holds in all encodings, requests per minute, minutes. */
const VARIANTS = 60
const MINUTE = 3000
const MINUTES = 10
const SEED = 1
/** Herd part: runs, clients per run, kernels that are not in memory. */
const HERDS = 3
const CLIENTS = 5000
const COLD = 3

/** Offset of `str_len` in a BTF header. */
const STR_LEN = 20

/** Functions that clean up, run in reverse order. */
class Teardown implements Pick<Test, 'teardown'> {
  readonly #ends: (() => unknown)[] = []

  teardown(end: () => unknown): void {
    this.#ends.unshift(end)
  }

  async run(): Promise<void> {
    for (const end of this.#ends.splice(0)) await end()
  }
}

const pathOf = (release: string) => `/v1/btf/debian/12/x86_64/${release}`

/** Makes a store with the BTF of two kernels: a complete one, and one minimized for an object. */
async function prepare(directory: string, raw: Buffer): Promise<{ large: string; small: Buffer }> {
  const store = await openStore(`file:${directory}`)
  const object = openObject(readFileSync(coreObjects('el').get(OBJECT)!))
  const small = Buffer.from(minimizeBtf(parseBtf(raw), [object]))
  for (const [release, bytes] of Object.entries({ large: raw, small }))
    await putRecord(store, recordOf({ release }, { btf: await btfOf(store, bytes) }))
  return { large: blobKey(sha256Of(raw)), small }
}

async function tagOf(url: string): Promise<string> {
  const { headers, body } = await request(url)
  await body.dump()
  return String(headers.etag)
}

/** A row of the table: both sides in turn, several times. */
async function compare(
  name: string,
  of: keyof Throughput,
  wanted: string,
  [ours, theirs]: readonly (() => Promise<Throughput>)[],
): Promise<string[]> {
  const runs: [number, number][] = []
  for (let run = 0; run < RUNS; run++) runs.push([(await ours!())[of], (await theirs!())[of]])
  const cells = [0, 1].map((side) => {
    const value = median(runs.map((run) => run[side]!))
    return of === 'bytes' ? `${mib(value)}/s` : `${value.toFixed(0)}/s`
  })
  const ratio = median(runs.map(([a, b]) => a / b))
  return [name, ...cells, ratio.toFixed(2), wanted]
}

async function throughput(t: Teardown, directory: string, raw: Buffer): Promise<void> {
  const store = join(directory, 'store')
  const { large, small } = await prepare(store, raw)
  writeFileSync(join(directory, 'small.btf'), small)
  const size = statSync(join(store, large)).size
  const rows = [['', 'ours', 'nginx', 'ratio', 'wanted']]
  for (const log of [false, true]) {
    const args = ['--store', `file:${store}`, '--log-requests', `${log}`]
    const { url } = await serve(t, args, nodeAsStarted())
    const nginx = await startNginx(t, directory, { log })
    const sides = { ours: url + pathOf('small'), nginx: `${nginx}/small.btf` }
    const whole = { ours: url + pathOf('large'), nginx: `${nginx}/store/${large}` }
    const [ours, theirs] = await Promise.all([tagOf(sides.ours), tagOf(sides.nginx)])
    const how = log ? ', with a request log' : ''
    rows.push(
      await compare(`BTF of ${small.length} bytes${how}`, 'requests', log ? '' : '≥ 0.35', [
        () => wrk(sides.ours),
        () => wrk(sides.nginx),
      ]),
      await compare(`304 for the same${how}`, 'requests', log ? '' : '≥ 0.35', [
        () => wrk(sides.ours, { 'if-none-match': ours }),
        () => wrk(sides.nginx, { 'if-none-match': theirs }),
      ]),
      await compare(`${mib(size)} of zstd${how}`, 'bytes', log ? '' : '≥ 1.2', [
        () => wrk(whole.ours, { 'accept-encoding': 'zstd' }),
        () => wrk(whole.nginx),
      ]),
    )
  }
  console.log(`medians of ${RUNS} runs\n\n${table(rows)}`)
}

/** Makes different BTF with the same types: with one more string. */
function variantOf(raw: Buffer, n: number): Buffer {
  const added = Buffer.from(`variant_${n}\0`)
  const variant = Buffer.concat([raw, added])
  variant.writeUInt32LE(raw.readUInt32LE(STR_LEN) + added.length, STR_LEN)
  return variant
}

/** Fills a store with `count` kernels, each with different BTF. Returns their releases. */
async function fill(directory: string, raw: Buffer, count: number): Promise<string[]> {
  const store = await openStore(`file:${directory}`)
  const releases = Array.from({ length: count }, (_, n) => `6.1.0-${n}`)
  for (const [n, release] of releases.entries())
    await putRecord(store, recordOf({ release }, { btf: await btfOf(store, variantOf(raw, n)) }))
  return releases
}

/** Returns the resident set size of a process in bytes. */
function rssOf(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
  return Number(kilobytes) * 1024
}

async function memory(t: Teardown, directory: string, raw: Buffer): Promise<void> {
  const releases = await fill(join(directory, 'many'), raw, VARIANTS)
  const server = await serve(t, ['--store', `file:${directory}/many`], nodeAsStarted())
  const objects = ['task', 'enum64', 'match', 'subprogram'].map((name) =>
    readFileSync(coreObjects('el').get(name)!),
  )
  const load = new Load(server.url, releases, objects, SEED)
  t.teardown(() => load.close())
  const seen: number[] = []
  for (let minute = 0; minute < MINUTES; minute++) {
    await load.run(MINUTE)
    seen.push(rssOf(server.pid))
  }
  const [first, ...later] = seen as [number, ...number[]]
  const row = (name: string, value: number, wanted = '') => [
    ...[name, mib(value), (value / first).toFixed(2), wanted],
  ]
  const rows = [
    ['', 'RSS', 'ratio', 'wanted'],
    row(`after ${MINUTE} requests`, first),
    row(`after ${MINUTE * MINUTES}`, later.at(-1)!, '≤ 1.3'),
    row('largest after any minute', Math.max(...seen)),
  ]
  const what = `mixed load on ${VARIANTS} kernels of ${mib(raw.length)}, seed ${SEED}`
  console.log(`\n${what}\n\n${table(rows)}`)
}

/** Returns how often the service read the store. */
async function readsOf(url: string): Promise<number> {
  const { body } = await request(`${url}/metrics`)
  return Number(/btfmill_bodies_built_total\{kind="read"\} (\d+)/.exec(await body.text())?.[1])
}

async function stampede(t: Teardown, directory: string, raw: Buffer): Promise<void> {
  const runs: string[][] = []
  for (let run = 0; run < HERDS; run++) {
    const releases = await fill(join(directory, 'cold'), raw, COLD)
    const store = ['--store', `file:${directory}/cold`]
    const server = await serve(t, store, nodeAsStarted())
    const { times, bytes, failed } = await herd(server.url, releases.map(pathOf), CLIENTS)
    const reads = await readsOf(server.url)
    await server.kill()
    const at = (part: number) => `${times[Math.ceil(times.length * part) - 1]!.toFixed(2)} s`
    runs.push([`run ${run + 1}`, at(0.5), at(0.99), at(1), mib(bytes), `${failed}`, `${reads}`])
    if (failed > 0 || reads !== COLD) process.exitCode = 1
  }
  const head = ['', 'median', 'p99', 'last', 'bytes', 'failed (0)', `reads (${COLD})`]
  const what = `${CLIENTS} clients at once, each with one connection, for ${COLD} cold kernels`
  console.log(`\n${what}\n\n${table([head, ...runs])}`)
}

const PARTS = { throughput, memory, herd: stampede }

async function main(): Promise<void> {
  const t = new Teardown()
  const directory = mkdtempSync(join(tmpdir(), 'btfmill-bench-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  try {
    const { path } = (await kernels()).find(({ name }) => KERNEL.test(name))!
    for (const [name, part] of Object.entries(PARTS))
      if (process.argv.length === 2 || process.argv.includes(name))
        await part(t, directory, readFileSync(path))
  } finally {
    await t.run()
  }
}

await main()
