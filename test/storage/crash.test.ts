// A disk store whose writers are killed: what was put is there, nothing is half, and leftovers go.
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

/** What a writer said before it was killed: the digest each key had last, and the one it was about to get. */
interface Told {
  done: Map<string, string>
  begun: Map<string, string>
}

/** Lets a writer write for some milliseconds after its first word, and kills it. */
async function killAfter(root: string, delay: number): Promise<Told> {
  const child = spawn(process.execPath, [VICTIM, root], { stdio: ['ignore', 'pipe', 'inherit'] })
  const output = text(child.stdout)
  await once(child.stdout, 'data')
  await sleep(delay)
  child.kill('SIGKILL')
  const told: Told = { done: new Map(), begun: new Map() }
  for (const line of (await output).split('\n')) {
    const [word = '', key = '', digest = ''] = line.split(' ')
    if (word === 'begin') told.begun.set(key, digest)
    if (word === 'done') told.done.set(key, digest)
  }
  return told
}

async function digestsOf(store: Store): Promise<Map<string, string | undefined>> {
  const digests = new Map<string, string | undefined>()
  for (const key of await keysOf(store, ''))
    digests.set(key, digestOf(await buffer((await store.get(key)).body)))
  return digests
}

t.test('a writer killed at any moment leaves the old or the new, and no rest', async (t) => {
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
      t.ok([kept.get(key), begun.get(key)].includes(digest), `${key} is what was put last`)
      kept.set(key, digest)
    }
    t.same(
      [...kept.keys()].filter((key) => !found.has(key)),
      [],
      'all that was put is there',
    )
    left += leftovers().length
    const { body, etag } = await store.get('swapped')
    await store.put('swapped', await buffer(body), { ifMatch: etag })
    await openStore(url)
    t.same(leftovers(), [], 'the next to open it removes the rest')
  }
  t.comment(`${ROUNDS} killed left ${left} temporary files beside ${kept.size} objects`)
  t.ok(left > 0, 'some were killed in the midst of a put')
})
