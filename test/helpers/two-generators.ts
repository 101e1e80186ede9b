/* Two generators on one store, killed and started again until both are done. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { Catalog, openStore, type Store, verifyStore } from '../../storage/index.ts'
import { Random } from '../fuzz/random.ts'
import { keyOf, recordsOf } from './recorder.ts'
import { seedOf } from './seed.ts'

const RECORDER = join(import.meta.dirname, 'recorder.ts')
const NAMES = ['left', 'right']
const MAX_KILLS = 4
/** Milliseconds up to which a generator lives on after its first word. */
const LIFE = 800

/** Runs a generator to its end, killed again and again on the way there. Returns how often. */
async function runKilled(url: string, name: string, random: Random): Promise<number> {
  for (let kills = 0; ; kills++) {
    const child = spawn(process.execPath, [RECORDER, url, name], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const closed = once(child, 'close')
    await Promise.race([once(child.stdout, 'data'), closed])
    if (kills < MAX_KILLS) {
      await Promise.race([sleep(random.below(LIFE)), closed])
      child.kill('SIGKILL')
    }
    const [status, signal] = await closed
    if (status === 0) return kills
    if (signal !== 'SIGKILL') throw new Error(`${name} ended with ${status ?? signal}`)
  }
}

/** Lets them, and looks whether all records are there, and in the snapshot. */
export async function writeTogether(t: Test, url: string): Promise<void> {
  const seed = seedOf(t)
  const kills = await Promise.all(
    NAMES.map((name, i) => runKilled(url, name, new Random(seed + i))),
  )
  t.ok(Math.min(...kills) > 2, `killed ${kills.join(' and ')} times`)

  const store = await openStore(url)
  const keys = NAMES.flatMap((name) => recordsOf(name).map(keyOf)).sort()
  const kept = await Array.fromAsync(store.list('kernels/'), ({ key }) => key)
  t.same(kept, keys, 'every record')
  t.same(await snapshotKeys(store), keys, 'the snapshot has them all, whoever wrote it last')
  t.same(await Array.fromAsync(verifyStore(store)), [], 'clean')
}

/** The keys of the records that the snapshot has. */
export const snapshotKeys = async (store: Store): Promise<string[]> =>
  [...(await Catalog.openSnapshot(store)).list()].map(({ key }) => key)
