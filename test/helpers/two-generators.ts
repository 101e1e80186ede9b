/* Two generators on one store, which are killed and restarted until both are done. */
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
/** The longest time from a generator's first output until it is killed, in milliseconds. */
const MAX_LIFE = 800

/** Runs a generator until it is done, and kills it several times before. Returns the number of kills. */
async function runKilled(url: string, name: string, random: Random): Promise<number> {
  for (let kills = 0; ; kills++) {
    const child = spawn(process.execPath, [RECORDER, url, name], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const closed = once(child, 'close')
    await Promise.race([once(child.stdout, 'data'), closed])
    if (kills < MAX_KILLS) {
      await Promise.race([sleep(random.below(MAX_LIFE)), closed])
      child.kill('SIGKILL')
    }
    const [status, signal] = await closed
    if (status === 0) return kills
    if (signal !== 'SIGKILL') throw new Error(`${name} ended with ${status ?? signal}`)
  }
}

/** Runs both generators and checks that store and snapshot have all records. */
export async function writeTogether(t: Test, url: string): Promise<void> {
  const seed = seedOf(t)
  const kills = await Promise.all(
    NAMES.map((name, i) => runKilled(url, name, new Random(seed + i))),
  )
  t.ok(Math.min(...kills) > 2, `the generators were killed ${kills.join(' and ')} times`)

  const store = await openStore(url)
  const keys = NAMES.flatMap((name) => recordsOf(name).map(keyOf)).sort()
  const kept = await Array.fromAsync(store.list('kernels/'), ({ key }) => key)
  t.same(kept, keys, 'the store has every record')
  t.same(
    await snapshotKeys(store),
    keys,
    'the snapshot has every record, whichever generator wrote it last',
  )
  t.same(await Array.fromAsync(verifyStore(store)), [], 'verifyStore finds nothing')
}

/** The keys of the records in the snapshot. */
export const snapshotKeys = async (store: Store): Promise<string[]> =>
  [...(await Catalog.openSnapshot(store)).list()].map(({ key }) => key)
