/*
 * Mirrors whose two sides are killed: the mirror at a step of its writing, the service while it answers. What is there
 * stays, and the next run completes it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'
import { Catalog, getBlob, openStore, type Store, verifyStore } from '../../storage/index.ts'
import { Random } from '../fuzz/random.ts'
import { MAIN } from './command.ts'
import type { KilledWrite } from './killed-write.ts'
import { nthBtf, packStore } from './packs.ts'
import { type Fault, type FaultyServer, none, startProxy } from './proxy.ts'
import { seedOf } from './seed.ts'
import { serve } from './serve-process.ts'
import { putKernels } from './upstreams.ts'

/** Bytes that each kernel has for itself, so that a pack takes many writes. */
const OWN_BYTES = 60_000
/** The most times that a mirror is killed before a run may complete it. */
const MAX_LIFE = 4
/** The most times that a service is killed during one run. */
const MAX_RESTARTS = 4

const PRELOAD = join(import.meta.dirname, 'killed-write.ts')

/** A bucket for the mirrors' stores, in place of a directory. */
interface MirrorBucket {
  /** the URL of a store below a prefix */
  storeAt(prefix: string): string
}

/**
 * Kills either side `kills` times. The moments follow from a seed that the test prints. With `everywhere`, a mirror must have
 * been killed at each kind of step.
 */
export async function surviveKills(
  t: Test,
  kills: number,
  { everywhere = false, kernels = 40, bucket }: SurviveOptions = {},
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'killed-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const random = new Random(seedOf(t))
  const origins: Origin[] = []
  for (const kind of ['blobs', 'packs'] as const) {
    const origin = await originIn(t, directory, kind, { random, kernels })
    const whole = await runMirror(origin, placeOf(directory, `whole-${kind}`, bucket))
    t.equal(whole.status, 0, whole.stderr)
    origin.steps = whole.steps
    origin.requests = origin.proxy.requests.length
    origins.push(origin)
  }
  const count = { mirror: {}, service: {} } as Record<Side, Record<string, number>>
  for (let life = 0; sum(count.mirror) < kills || sum(count.service) < kills; life++) {
    const isDone = sum(count.mirror) >= kills
    const victim: Side = isDone || (sum(count.service) < kills && life % 2) ? 'service' : 'mirror'
    const origin = origins[(life >> 1) % origins.length]!
    const at = placeOf(directory, `mirror-${life}`, bucket)
    const wanted = kills - sum(count[victim])
    const done = victim === 'mirror' ? killMirror : killService
    for (const kill of await done(t, origin, at, random, wanted)) {
      const title = `${kill}, ${origin.kind}`
      count[victim][title] = (count[victim][title] ?? 0) + 1
    }
    t.same(await recordsIn(at.store), await recordsIn(origin.path), 'the mirror has all kernels')
    const store = await openStore(at.store)
    t.same(await Array.fromAsync(verifyStore(store)), [], 'the mirror is whole')
    if (bucket) continue
    t.same(readdirSync(join(at.store, '.tmp')), [], 'no temporary files stay')
    rmSync(at.store, { recursive: true })
  }
  for (const { path } of origins) {
    const damaged = (await Array.fromAsync(verifyStore(await openStore(path)))).length
    t.equal(damaged, 0, 'the store of the service is whole')
  }
  const kinds = origins.flatMap(({ kind, steps }) =>
    Object.keys(steps).map((step) => `${step}, ${kind}`),
  )
  if (everywhere) t.same(Object.keys(count.mirror).sort(), kinds.sort(), 'at each kind of step')
  for (const [side, kinds] of Object.entries(count))
    t.comment(`the ${side} was killed ${sum(kinds)} times: ${JSON.stringify(kinds)}`)
}

interface SurviveOptions {
  everywhere?: boolean
  /** of each service */
  kernels?: number
  bucket?: MirrorBucket | undefined
}

type Side = 'mirror' | 'service'

const sum = (counts: Record<string, number>): number =>
  Object.values(counts).reduce((total, n) => total + n, 0)

/** Kills a mirror in one run after another until one ends by itself. Returns what it wrote at each kill. */
async function killMirror(
  t: Test,
  origin: Origin,
  at: MirrorPlace,
  random: Random,
  wanted: number,
): Promise<string[]> {
  const kills: string[] = []
  let before = new Map<string, unknown>()
  for (;;) {
    const kinds = Object.keys(origin.steps)
    const kind = kinds[origin.turn++ % kinds.length]!
    const n = random.below(origin.steps[kind]!)
    const step = { kind, n, after: random.once(2) }
    const isLast = kills.length >= Math.min(wanted, MAX_LIFE)
    const { status, signal, stderr, step: last } = await runMirror(origin, at, isLast ? {} : step)
    if (signal === null) {
      t.equal(status, 0, stderr)
      return kills
    }
    t.equal(signal, 'SIGKILL')
    kills.push(last!)
    const store = await openStore(at.store)
    const damaged = (await Array.fromAsync(verifyStore(store))).filter(({ behind }) => !behind)
    t.same(damaged, [], `nothing is damaged after a kill at ${last} ${n}`)
    const now = await recordsIn(at.store)
    t.same(
      [...before.keys()].filter((key) => !now.has(key)),
      [],
      'no record is lost',
    )
    before = now
  }
}

/** Kills a service several times during one run of a mirror, which waits for it. Returns the moments. */
async function killService(
  t: Test,
  origin: Origin,
  at: MirrorPlace,
  random: Random,
  wanted: number,
): Promise<string[]> {
  const kills: string[] = []
  const { proxy, requests } = origin
  let next = random.below(Math.ceil(requests / 2))
  proxy.requests.length = 0
  proxy.fault = (number) => {
    const isDue = number >= next && kills.length < Math.min(wanted, MAX_RESTARTS)
    if (origin.isDown) return random.once(4) ? undefined : origin.wait
    if (!isDue) return undefined
    next = number + 1 + random.below(Math.ceil(requests / 2))
    const moment = random.pick(['before its answer', 'within its answer'] as const)
    kills.push(moment)
    return moment === 'before its answer' ? origin.dieAsked : origin.dieAnswering
  }
  const { status, stderr } = await runMirror(origin, at)
  proxy.fault = () => undefined
  t.equal(status, 0, `the mirror waits and goes on ${stderr}`)
  await origin.up()
  return kills
}

interface Origin {
  kind: 'blobs' | 'packs'
  path: string
  proxy: FaultyServer
  /** what a whole run of a mirror writes, and how many requests it sends */
  steps: Record<string, number>
  requests: number
  /** kills that were tried, which chooses the kind of the next step */
  turn: number
  readonly isDown: boolean
  /** kills the service, which is started again behind the proxy */
  dieAsked: Fault
  dieAnswering: Fault
  /** answers when it runs again, so that a mirror need not try for long */
  wait: Fault
  /** waits until it runs */
  up(): Promise<void>
}

async function originIn(
  t: Test,
  directory: string,
  kind: Origin['kind'],
  { random, kernels }: { random: Random; kernels: number },
): Promise<Origin> {
  const path = join(directory, kind)
  const store = await openStore(path)
  await putKernels(store, kernels, (n) => withOwnBytes(nthBtf(n), random))
  if (kind === 'packs') await packStore(store)
  await Catalog.publish(store)
  const args = ['--store', path, '--log-level', 'info']
  let serving = await serve(t, args)
  const proxy = await startProxy(t, () => serving.url)
  let restarting: Promise<void> | undefined
  const restart = () => {
    const killed = serving.kill()
    restarting = killed
      .then(() => serve(t, args))
      .then((started) => {
        serving = started
        restarting = undefined
      })
    return killed
  }
  const dieAsked: Fault = ({ response, forward }) => {
    forward(() => {})
    void restart().then(() => response.destroy())
  }
  const wait: Fault = async (exchange) => {
    await restarting
    none(exchange)
  }
  // what the service has handed to the system arrives; of that, half is passed on
  const dieAnswering: Fault = ({ response, forward }) =>
    forward((from: IncomingMessage) => {
      response.writeHead(from.statusCode!, from.headers)
      void restart().then(async () => {
        const pieces: Buffer[] = []
        try {
          for await (const piece of from as AsyncIterable<Buffer>) pieces.push(piece)
        } catch {} // the connection broke off
        const bytes = Buffer.concat(pieces)
        if (bytes.length < 2) response.destroy()
        else response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy())
      })
    })
  return {
    ...{ kind, path, proxy, steps: {}, requests: 0, turn: 0, dieAsked, dieAnswering, wait },
    get isDown() {
      return restarting !== undefined
    },
    async up() {
      await restarting
    },
  }
}

/** BTF with a string of its own that compresses badly. */
function withOwnBytes(raw: Buffer, random: Random): Buffer {
  const words = Array.from({ length: OWN_BYTES / 6 }, () => random.below(36 ** 6).toString(36))
  const added = Buffer.from(`${words.join('')}\0`)
  const result = Buffer.concat([raw, added])
  result.writeUInt32LE(raw.readUInt32LE(20) + added.length, 20)
  return result
}

interface MirrorPlace {
  store: string
  cache: string
}

const placeOf = (directory: string, name: string, bucket?: MirrorBucket): MirrorPlace => ({
  store: bucket?.storeAt(name) ?? join(directory, name),
  cache: join(directory, `${name}-cache`),
})

interface EndedMirror {
  status: number | null
  signal: string | null
  stderr: string
  /** what it wrote, if it ended by itself */
  steps: Record<string, number>
  /** what it wrote when it was killed */
  step: string | undefined
}

async function runMirror(
  { proxy }: Origin,
  { store, cache }: MirrorPlace,
  at?: Partial<KilledWrite['at']>,
): Promise<EndedMirror> {
  const args = ['mirror', proxy.url, '--store', store, '--cache', cache]
  const [counts, log] = [`${cache}.counts`, `${cache}.log`]
  const killed = { counts, log, ...(at?.kind !== undefined && { at }) }
  const child = spawn(process.execPath, ['--import', PRELOAD, MAIN, ...args], {
    env: { ...process.env, BTFMILL_KILLED_WRITE: JSON.stringify(killed) },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const said = text(child.stderr)
  const [status, signal] = await once(child, 'close')
  const steps = status === 0 ? JSON.parse(readFileSync(counts, 'utf8')) : {}
  const lines = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []
  return { status, signal, stderr: await said, steps, step: lines.at(-1) }
}

/** The records of a store by their keys, as they were made, with BTF that can be read. */
async function recordsIn(path: string): Promise<Map<string, unknown>> {
  const store: Store = await openStore(path)
  const records = new Map<string, unknown>()
  for (const { key, record } of (await Catalog.open(store)).list()) {
    const { takenFrom: _, ...made } = record
    await getBlob(store, made.btf!.sha256)
    records.set(key, made)
  }
  return records
}
