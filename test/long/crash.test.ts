// Runs generate, import, gc, verify --repair and export at once on one store, which the test damages as well, and kills
// each at a random moment: 1,000 rounds in total, or BTFMILL_CRASH_ROUNDS. Published BTF stays, and a repair completes
// what killed runs left unfinished. The moments follow from a seed that each run prints.
import { mkdtempSync, readdirSync, rmSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer, text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import {
  Catalog,
  openStore,
  SNAPSHOT_KEY,
  type Store,
  signatureKey,
  verifyContent,
  verifyStore,
} from '../../storage/index.ts'
import { MANIFEST_KEY } from '../../storage/manifest.ts'
import { Random } from '../fuzz/random.ts'
import { makeBucket } from '../helpers/bucket.ts'
import { seedOf } from '../helpers/seed.ts'
import { writeTogether } from '../helpers/two-generators.ts'
import {
  type Ended,
  type Inputs,
  type Life,
  makeInputs,
  RUN_NAMES,
  RUNS,
  type RunName,
  runFor,
} from './runs.ts'

/** The rounds on each of the two backends. */
const ROUNDS = Math.ceil(Number(process.env.BTFMILL_CRASH_ROUNDS ?? 1000) / 2)
/** Every fifth round, generate runs alone and may finish. */
const WHOLE = 5
/** Longer than any run takes. */
const FOREVER: Life = { from: 'start', milliseconds: 120_000 }

/** A store's URL, and backend-specific helpers where they exist. */
interface Backend {
  url: string
  /** makes all blobs old enough for gc */
  age?: () => void
  /** lists temporary files of killed writers */
  leftovers?: () => string[]
}

async function keysOf(store: Store, ...prefixes: string[]): Promise<string[]> {
  const keys: string[] = []
  for (const prefix of prefixes) for await (const { key } of store.list(prefix)) keys.push(key)
  return keys
}

/** The keys of the records with BTF. Rejects if a record is invalid. */
async function publishedIn(store: Store): Promise<string[]> {
  const catalog = new Catalog(store, (error) => {
    throw error
  })
  await catalog.refresh()
  return [...catalog.list()].flatMap(({ key, record }) => (record.btf ? [key] : []))
}

/** Damages an archive, the manifest or the snapshot, all of which can be made again. Returns the key. */
async function damage(store: Store, random: Random): Promise<string> {
  const key = random.pick(await keysOf(store, 'archive/', SNAPSHOT_KEY))
  await store.put(key, Buffer.from('damaged'))
  return key
}

const gone = (before: Iterable<string>, now: readonly string[]): string[] => {
  const there = new Set(now)
  return [...before].filter((key) => !there.has(key))
}

/** Rejects if the signature of the snapshot or the manifest does not verify. */
async function verifySignatures(store: Store, { publicKey }: Inputs): Promise<void> {
  for (const key of [SNAPSHOT_KEY, MANIFEST_KEY]) {
    const content = await buffer((await store.get(key)).body)
    verifyContent(content, await text((await store.get(signatureKey(key))).body), publicKey)
  }
}

/**
 * Measures how long each run takes, and how long it writes, while all run at once, as they do in the rounds: alone each is
 * several times as fast. The random moments are drawn from these ranges.
 */
async function measure(url: string, inputs: Inputs, random: Random): Promise<Map<RunName, Ended>> {
  await start('generate', FOREVER, url, inputs, random) // so that the others have something to read
  const run = async (name: RunName) =>
    [name, await start(name, FOREVER, url, inputs, random)] as const
  return new Map(await Promise.all(RUN_NAMES.map(run)))
}

function start(
  name: RunName,
  life: Life,
  url: string,
  inputs: Inputs,
  random: Random,
): Promise<Ended> {
  const run = RUNS[name]
  return runFor(life, run, [...run.args(inputs, random), '--store', url])
}

/** Chooses a moment, mostly while the run writes. gc may have nothing to write. */
function lifeOf({ start, begin }: Ended, random: Random): Life {
  return begin === undefined || random.once(4)
    ? { from: 'start', milliseconds: random.below(start) }
    : { from: 'begin', milliseconds: random.below(begin) }
}

async function survive(t: Test, { url, age, leftovers = () => [] }: Backend): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'crash-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const random = new Random(seedOf(t))
  const inputs = await makeInputs(directory)
  const times = await measure(url, inputs, random)
  const store = await openStore(url)
  const published = new Set<string>()
  const count = { rounds: 0, killed: 0, unfinished: 0, damaged: 0, leftovers: 0, removed: 0 }
  const started = performance.now()

  for (let round = 1; round <= ROUNDS; round++) {
    const whole = round % WHOLE === 0
    const names: readonly RunName[] = whole ? ['generate'] : RUN_NAMES
    age?.()
    const blobs = await keysOf(store, 'blobs/')
    const damaged = !whole && random.once(3) ? [await damage(store, random)] : []
    const lives = names.map((name) => (whole ? FOREVER : lifeOf(times.get(name)!, random)))
    const runs = names.map((name, i) => start(name, lives[i]!, url, inputs, random))
    const ended = await Promise.all(runs)
    const told = ended.map(({ killed }, i) => {
      const { from, milliseconds } = lives[i]!
      return killed
        ? `${names[i]} killed ${milliseconds} ms after its ${from}`
        : `${names[i]} finished`
    })
    const title = `round ${round}: ${[...told, ...damaged].join(', ')}`

    const findings = await Array.fromAsync(verifyStore(store, { repair: true }))
    const lost = findings.filter(({ repaired }) => !repaired)
    t.same(lost, [], `${title}: verifyStore repairs all that is wrong`)
    if (findings.length > 0)
      t.same(await Array.fromAsync(verifyStore(store)), [], 'the store is clean after the repair')
    const keys = await keysOf(store, 'archive/')
    const now = [...(await publishedIn(store)), ...keys]
    t.same(gone(published, now), [], 'no published BTF and no archive is lost')
    for (const key of now) published.add(key)
    if (whole) {
      await verifySignatures(store, inputs)
      t.same(readdirSync(inputs.scratch), [], 'unpacked files are removed')
    }

    count.rounds++
    count.killed += ended.filter(({ killed }) => killed).length
    count.unfinished += findings.length > 0 ? 1 : 0
    count.damaged += damaged.length
    count.removed += gone(blobs, await keysOf(store, 'blobs/')).length
    count.leftovers += leftovers().length
    await openStore(url)
    t.same(leftovers(), [], 'the next process that opens the store removes temporary files')
  }
  t.comment(`${Math.round((performance.now() - started) / count.rounds)} ms per round`)
  t.comment(JSON.stringify(count))
  t.ok(count.unfinished > ROUNDS / 20, 'runs were killed while they wrote')
  if (age) t.ok(count.removed > 0, 'gc removed superseded blobs')
}

t.test('a store on disk survives kills in each round', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'crash-store-'))
  t.teardown(() => rmSync(root, { recursive: true }))
  const twoDays = 2 * 24 * 3600
  await survive(t, {
    url: `file:${root}`,
    age() {
      const past = Date.now() / 1000 - twoDays
      const files = readdirSync(join(root, 'blobs'), { recursive: true, withFileTypes: true })
      for (const file of files)
        if (file.isFile()) utimesSync(join(file.parentPath, file.name), past, past)
    },
    leftovers: () => readdirSync(join(root, '.tmp')),
  })
})

t.test('a store on S3 survives kills in each round', async (t) => {
  const bucket = await makeBucket(t)
  // objects on S3 cannot be made old, so gc keeps the blobs of the other runs
  await t.test('generate, import, gc, verify and export lose nothing', async (t) =>
    survive(t, { url: (await bucket.open('crash')).url }),
  )
  await t.test('two generators that write together lose nothing', async (t) =>
    writeTogether(t, (await bucket.open('together')).url),
  )
})
