// Tests a disk store whose writers are killed: completed puts survive, no object is torn, and temporary files go.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer, text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { openStore, type Store } from '../../storage/index.ts'
import { keysOf } from '../helpers/store-contract.ts'
import { digestOf, makeObject } from '../helpers/victim.ts'

const ROUNDS = 20
const VICTIM = join(import.meta.dirname, '../helpers/victim.ts')

/** The output of a killed writer: the last digest that each key got, and the digest that it was about to get. */
interface WriterLog {
  done: Map<string, string>
  begun: Map<string, string>
}

/** Kills a writer some milliseconds after its first output. */
async function killAfter(root: string, delay: number): Promise<WriterLog> {
  const child = spawn(process.execPath, [VICTIM, root], { stdio: ['ignore', 'pipe', 'inherit'] })
  const output = text(child.stdout)
  await once(child.stdout, 'data')
  await sleep(delay)
  child.kill('SIGKILL')
  const log: WriterLog = { done: new Map(), begun: new Map() }
  for (const line of (await output).split('\n')) {
    const [word = '', key = '', digest = ''] = line.split(' ')
    if (word === 'begin') log.begun.set(key, digest)
    if (word === 'done') log.done.set(key, digest)
  }
  return log
}

async function digestsOf(store: Store): Promise<Map<string, string | undefined>> {
  const digests = new Map<string, string | undefined>()
  for (const key of await keysOf(store, ''))
    digests.set(key, digestOf(await buffer((await store.get(key)).body)))
  return digests
}

t.test(
  'a writer killed at any moment leaves the old or the new object, and the next open removes the rest',
  async (t) => {
    const root = mkdtempSync(join(tmpdir(), 'btfmill-crash-'))
    t.teardown(() => rmSync(root, { recursive: true }))
    const url = `file:${root}`
    const leftovers = () => readdirSync(join(root, '.tmp'))
    const store = await openStore(url)
    const { bytes, digest } = makeObject()
    await store.put('swapped', bytes)
    const kept = new Map([['swapped', digest]])
    let left = 0
    for (let round = 0; round < ROUNDS; round++) {
      const { done, begun } = await killAfter(root, Math.random() * 60)
      for (const [key, digest] of done) kept.set(key, digest)
      const found = await digestsOf(store)
      for (const [key, digest = 'not whole'] of found) {
        t.ok(
          [kept.get(key), begun.get(key)].includes(digest),
          `${key} has the bytes of the last put`,
        )
        kept.set(key, digest)
      }
      t.same(
        [...kept.keys()].filter((key) => !found.has(key)),
        [],
        'every completed put survives',
      )
      left += leftovers().length
      const { body, etag } = await store.get('swapped')
      await store.put('swapped', await buffer(body), { ifMatch: etag })
      await openStore(url)
      t.same(leftovers(), [], 'the next open removes temporary files')
    }
    t.comment(`${ROUNDS} killed left ${left} temporary files beside ${kept.size} objects`)
    t.ok(left > 0, 'some writers were killed during a put')
  },
)
