/* Mirrors whose two sides are killed at random moments: what is there stays, and the next run completes it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { Catalog, getBlob, openStore, type Store, verifyStore } from '../../storage/index.ts'
import { Random } from '../fuzz/random.ts'
import { MAIN, run } from './command.ts'
import { packStore } from './packs.ts'
import { seedOf } from './seed.ts'
import { type Serving, serve } from './serve-process.ts'
import { putKernels } from './upstreams.ts'

const KERNELS = 40
/** Rounds after which a new mirror begins. */
const LIFE = 2

/** Kills one side in each of `rounds` rounds. The moments follow from a seed that the test prints. */
export async function surviveKills(t: Test, rounds: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'killed-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const random = new Random(seedOf(t))
  const origins = await Promise.all(['blobs', 'packs'].map((kind) => originIn(t, directory, kind)))
  const longest = await timeOf(origins[0]!, directory)
  const count = { 'the mirror': 0, 'the service': 0, partial: 0 }
  for (let round = 0; round < rounds; round++) {
    const life = Math.floor(round / LIFE)
    const origin = origins[life % origins.length]!
    const at = { store: join(directory, `mirror-${life}`), cache: join(directory, `cache-${life}`) }
    const victim = random.once(2) ? 'the mirror' : 'the service'
    // a run starts and reads the catalog for about half of its time
    const delay = Math.round(longest / 2) + random.below(Math.ceil(longest / 2))
    const { status, stderr } = await mirrorAndKill(origin, at, victim, delay)
    const title = `round ${round}: ${victim} killed after ${delay} ms`
    if (victim === 'the service')
      t.equal(status, 0, `${title}: the mirror waits and goes on ${stderr}`)
    count[victim]++
    const store = await openStore(at.store)
    const damaged = (await Array.fromAsync(verifyStore(store))).filter(({ behind }) => !behind)
    t.same(damaged, [], `${title}: nothing is damaged`)
    const found = await recordsIn(store)
    if (found.size > 0 && found.size < KERNELS) count.partial++
    if (round % LIFE < LIFE - 1 && round < rounds - 1) continue
    const last = await run(...argsFor(origin, at))
    t.equal(last.stderr, '')
    t.same(await recordsIn(store), await recordsIn(origin.store), 'the next run completes it')
    t.same(await Array.fromAsync(verifyStore(store)), [])
  }
  t.comment(JSON.stringify(count))
}

interface Origin {
  store: Store
  serving: Serving
  /** kills the service and starts it again at the same address */
  restart: () => Promise<void>
}

async function originIn(t: Test, directory: string, kind: string): Promise<Origin> {
  const path = join(directory, kind)
  const store = await openStore(path)
  await putKernels(store, KERNELS)
  if (kind === 'packs') await packStore(store)
  await Catalog.publish(store)
  const args = ['--store', path, '--log-level', 'info']
  const serving = await serve(t, args)
  const listen = ['--listen', serving.url.slice('http://'.length)]
  let now = serving
  return {
    store,
    serving,
    restart: async () => {
      await now.kill()
      now = await serve(t, [...args, ...listen])
    },
  }
}

/** Milliseconds of a whole run, on this machine as it is now. */
async function timeOf(origin: Origin, directory: string): Promise<number> {
  const began = performance.now()
  await run(
    ...argsFor(origin, { store: join(directory, 'timed'), cache: join(directory, 'timed-cache') }),
  )
  return performance.now() - began
}

interface MirrorPlace {
  store: string
  cache: string
}

const argsFor = ({ serving }: Origin, { store, cache }: MirrorPlace): string[] => [
  'mirror',
  serving.url,
  '--store',
  store,
  '--cache',
  cache,
]

async function mirrorAndKill(
  origin: Origin,
  at: MirrorPlace,
  victim: 'the mirror' | 'the service',
  delay: number,
): Promise<{ status: number | null; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, ...argsFor(origin, at)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const said = text(child.stderr)
  const ended = once(child, 'close')
  // in most rounds, while it writes
  if (delay % 4 > 0) {
    while (child.exitCode === null && !existsSync(join(at.store, 'kernels'))) await sleep(2)
    await sleep(delay % 200)
  } else await sleep(delay)
  if (victim === 'the mirror') child.kill('SIGKILL')
  else await origin.restart()
  const [status] = await ended
  return { status, stderr: await said }
}

/** The records of a store by their keys, as they were made, with BTF that can be read. */
async function recordsIn(store: Store): Promise<Map<string, unknown>> {
  const records = new Map<string, unknown>()
  for (const { key, record } of (await Catalog.open(store)).list()) {
    const { takenFrom: _, ...made } = record
    await getBlob(store, made.btf!.sha256)
    records.set(key, made)
  }
  return records
}
