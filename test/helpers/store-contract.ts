/*
 * The contract of `Store`, which every backend must fulfil. A backend tells how to open it, and how to bring it into a
 * state where it denies access or does not answer. A case that a backend cannot show is skipped with the backend's
 * reason.
 */
import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Test } from 'tap'
import type { Store, StoreErrorCode } from '../../storage/index.ts'

/** Brings the store into a state, runs `use` with it, and undoes the state. */
type Around = (use: (store: Store) => Promise<void>) => Promise<void>

export interface Backend {
  /** Opens the store under test. The tests clear it. */
  open(): Promise<Store>
  /** Lists everything besides the objects: temporary files, parts of uploads. */
  leftovers(store: Store): Promise<string[]>
  /** The state in which the store denies access, or why there is none. */
  refusing: Around | string
  /** The state in which the store does not answer, or why there is none. */
  unreachable: Around | string
  /** Why `ifAbsent` and `ifMatch` cannot be tested, if they cannot. */
  unconditional?: string
  /** Set if the store keeps its objects in memory. */
  resident?: true
}

const KIB = 1024
const MIB = 1024 * KIB

/** Valid keys: `+ ~` are literal, `:` and a leading dot are encoded. */
const KEYS = [
  'a',
  'a/b',
  'a/bc',
  'a/b0/c',
  'a-b/c',
  'kernels/debian/13/x86_64/6.12.107+deb13~rc1-amd64/2%3A5.4-1.json',
  `deep/${'d/'.repeat(100)}e`,
  `${'n'.repeat(255)}/${'m'.repeat(255)}`,
  '%2Ehidden',
]

/** Invalid keys. */
const INVALID_KEYS = [
  ...['', '/', '/a', 'a/', 'a//b', '.', '..', '../a', 'a/../b', 'a/./b', 'a/..', '.tmp/a', 'a/.b'],
  ...['a b', 'a:b', 'a?b', 'a#b', 'a*b', 'a\\b', 'a\nb', 'a\0b', 'ä', '\ud800', 'a\u202eb'],
  ...['a%', 'a%2', 'a%2f', 'a%61', 'a%FF', '%2E%2E', '%2E', 'a/%2E./b'],
  ...['n'.repeat(256), 'n/'.repeat(600), `n${'/n'.repeat(512)}`],
]

type Case = (t: Test, store: Store, backend: Backend) => Promise<void>

/** The cases for every store, by the sentence of the contract that they test. */
const CASES: Record<string, Case> = {
  async 'get, head and list return what was put'(t, store) {
    for (const key of KEYS.slice(1)) {
      const before = Date.now()
      const put = await store.put(key, Buffer.from(key))
      t.match(put, { key, size: key.length, etag: /./ })
      t.ok(Math.abs(put.modified.getTime() - before) < 60_000)
      t.same(await store.head(key), put)
      const { body, ...info } = await store.get(key)
      t.same(info, put)
      t.equal((await buffer(body)).toString(), key)
    }
    t.same(await keysOf(store, ''), KEYS.slice(1).sort())
  },

  async 'a key without an object gives not_found'(t, store) {
    await store.put('a/b', Buffer.from('x'))
    for (const key of ['c', 'a', 'a/c', 'a/b/c', 'a/bc', 'a/B']) {
      await t.rejects(store.get(key), storeError('not_found'), `get ${key}`)
      await t.rejects(
        store.get(key, { start: 0 }),
        storeError('not_found'),
        `get a range of ${key}`,
      )
      await t.rejects(store.head(key), storeError('not_found'), `head ${key}`)
    }
    t.same(await keysOf(store, 'c/'), [])
  },

  async 'delete succeeds for a missing object'(t, store) {
    await store.put('a/b', Buffer.from('x'))
    await store.put('a/c', Buffer.from('y'))
    await store.delete('a/b')
    await store.delete('a/b')
    await store.delete('a')
    await store.delete('a/c/d')
    await t.rejects(store.get('a/b'), storeError('not_found'))
    t.same(await keysOf(store, ''), ['a/c'])
    await store.put('a/b', Buffer.from('z'))
    t.equal(await textOf(store, 'a/b'), 'z', 'a deleted object can be put again')
  },

  async 'list takes the prefix as a plain string and lists in byte order'(t, store) {
    const keys = ['a-b/c', 'a/b', 'a/b-d', 'a/bb/c', 'a/bc', 'a0', 'b/a/b']
    for (const key of keys.toReversed()) await store.put(key, Buffer.from(key))
    for (const prefix of ['', 'a', 'a/', 'a/b', 'a/bb', 'a/bb/', 'a/b/', 'a/bc', 'a/bcd', 'b', 'c'])
      t.same(
        await keysOf(store, prefix),
        keys.filter((key) => key.startsWith(prefix)),
        `in byte order: ${JSON.stringify(prefix)}`,
      )
    for await (const info of store.list('a')) t.same(info, await store.head(info.key))
    for (const prefix of ['/', '/a', '../', 'a/../', 'a//', './', '.t', '.tmp/', 'a/b\0', 'ä/'])
      t.same(await keysOf(store, prefix), [], `no key starts with ${JSON.stringify(prefix)}`)
  },

  async 'a key below another object is stored or rejected, and no object is lost'(t, store) {
    await store.put('a/b', Buffer.from('file'))
    await store.put('c/d', Buffer.from('below'))
    const stored = new Map([
      ['a/b', 'file'],
      ['c/d', 'below'],
    ])
    for (const key of ['a/b/c', 'c']) {
      try {
        await store.put(key, Buffer.from('other'))
        stored.set(key, 'other')
      } catch (error) {
        t.match(error, storeError('invalid_key'))
      }
    }
    t.same(await keysOf(store, ''), [...stored.keys()].sort())
    for (const [key, text] of stored) t.equal(await textOf(store, key), text)
  },

  async 'every method rejects a key that encodeName cannot have made'(t, store) {
    for (const key of INVALID_KEYS) {
      const name = JSON.stringify(key.slice(0, 40))
      await t.rejects(store.get(key), storeError('invalid_key'), `get ${name}`)
      await t.rejects(store.head(key), storeError('invalid_key'), `head ${name}`)
      await t.rejects(store.put(key, Buffer.from('x')), storeError('invalid_key'), `put ${name}`)
      await t.rejects(store.delete(key), storeError('invalid_key'), `delete ${name}`)
    }
    t.same(await keysOf(store, ''), [])
  },

  async 'an empty object is stored and read'(t, store) {
    for (const body of [Buffer.alloc(0), Readable.from([])]) {
      const sha256 = digest('')
      t.match(await store.put('empty', body, { sha256 }), { size: 0 })
      t.equal(await textOf(store, 'empty'), '')
      await t.rejects(store.get('empty', { start: 0 }), storeError('invalid_range'))
    }
  },

  async 'an object of 200 MiB streams in and out, without being held in memory'(t, store, backend) {
    const size = 200 * MIB
    const peak = peakMemory()
    const source = randomStream(size, peak.sample)
    const put = await store.put('large', source.stream)
    t.equal(put.size, size)
    const read = await drain(store, 'large', peak.sample)
    t.same(read, { size, sha256: source.sha256() })
    if (!backend.resident)
      t.ok(peak.grown() < size / 2, `at most ${peak.grown() / MIB} MiB were held`)
  },

  async 'get with a range returns exactly these bytes, or rejects the range'(t, store) {
    const bytes = randomBytes(300 * KIB)
    const size = bytes.length
    await store.put('one', bytes)
    for (const [start, end] of [
      [0, 0],
      [0, size - 1],
      [5, 9],
      [70_000, 200_000],
      [size - 1, size - 1],
      [size - 3, size + 100],
      [7, undefined],
    ] as const) {
      const range = end === undefined ? { start } : { start, end }
      const { body, ...info } = await store.get('one', range)
      t.equal(info.size, size, 'the size is that of the whole object')
      t.ok((await buffer(body)).equals(bytes.subarray(start, (end ?? size) + 1)), `${start}-${end}`)
    }
    for (const range of [
      { start: size },
      { start: size, end: size + 1 },
      { start: 5, end: 4 },
      { start: -1 },
      { start: 0, end: -1 },
      { start: 0.5 },
      { start: Number.NaN },
      { start: 0, end: Number.POSITIVE_INFINITY },
    ])
      await t.rejects(store.get('one', range), storeError('invalid_range'), JSON.stringify(range))
  },

  async 'a put whose source fails midway leaves the old object'(t, store) {
    await store.put('old', Buffer.from('old'))
    for (const [name, source] of Object.entries(FAILING)) {
      for (const key of ['old', 'new']) {
        const stream = source()
        await t.rejects(
          store.put(key, stream),
          { code: 'ESOURCE' },
          `${name}: the source's own error is passed on`,
        )
        t.ok(stream.destroyed)
      }
    }
    const cut: Readable = Readable.from(interrupted(() => cut.destroy()))
    await t.rejects(store.put('new', cut), 'a source that is closed before its end')
    t.same(await keysOf(store, ''), ['old'])
    t.equal(await textOf(store, 'old'), 'old')
  },

  async 'an aborted put leaves the old object'(t, store) {
    await store.put('old', Buffer.from('old'))
    for (const key of ['old', 'new']) {
      const stop = new AbortController()
      const source = Readable.from(interrupted(() => stop.abort()))
      await t.rejects(store.put(key, source, { signal: stop.signal }), { name: 'AbortError' })
      t.ok(source.destroyed)
      const gone = { signal: AbortSignal.abort() }
      await t.rejects(store.put(key, Buffer.from('x'), gone), { name: 'AbortError' })
    }
    t.same(await keysOf(store, ''), ['old'])
    t.equal(await textOf(store, 'old'), 'old')
  },

  async 'a rejected put destroys its source'(t, store) {
    const source = Readable.from(chunks(MIB))
    await t.rejects(store.put('../a', source), storeError('invalid_key'))
    t.ok(source.destroyed)
  },

  async 'a put with a wrong digest leaves the old object'(t, store) {
    await store.put('old', Buffer.from('old'))
    for (const key of ['old', 'new']) {
      for (const sha256 of [digest('other'), digest('').slice(1), '']) {
        const put = store.put(key, Buffer.from('some bytes'), { sha256 })
        await t.rejects(put, storeError('digest_mismatch'), sha256)
      }
      const large = randomStream(20 * MIB)
      const put = store.put(key, large.stream, { sha256: digest('other') })
      await t.rejects(put, storeError('digest_mismatch'))
    }
    t.same(await keysOf(store, ''), ['old'])
    t.equal(await textOf(store, 'old'), 'old')
    await store.put('new', Buffer.from('some bytes'), { sha256: digest('some bytes') })
    t.equal(await textOf(store, 'new'), 'some bytes', 'a put with the right digest is stored')
  },

  async 'the etag changes with every put of other bytes'(t, store) {
    const etags = new Set<string>()
    for (let i = 0; i < 200; i++) etags.add((await store.put('one', Buffer.from(`${i}`))).etag)
    t.equal(etags.size, 200)
  },

  async 'one of several concurrent puts wins, with all its bytes'(t, store) {
    const bodies = Array.from({ length: 20 }, (_, i) => Buffer.alloc((i + 1) * 50 * KIB, i))
    const puts = await Promise.all(bodies.map((body) => store.put('a/b', body)))
    t.equal(new Set(puts.map(({ etag }) => etag)).size, bodies.length, 'each put has its own etag')
    const { body, ...info } = await store.get('a/b')
    const winner = puts.findIndex(({ etag }) => etag === info.etag)
    t.same(puts[winner], info)
    t.ok((await buffer(body)).equals(bodies[winner]!))
  },

  async 'a reader during an overwrite sees the old or the new object, whole'(t, store) {
    const body = (i: number) => Buffer.alloc((1 + (i % 3)) * 700 * KIB, i % 256)
    await store.put('one', body(0))
    let done = false
    const read = async (): Promise<string[]> => {
      const torn: string[] = []
      while (!done) {
        const { body, size } = await store.get('one')
        const bytes = await buffer(body)
        const whole = bytes.equals(Buffer.alloc(size, bytes[0]))
        if (!whole) torn.push(`${bytes.length} of ${size} bytes`)
        if ((await keysOf(store, '')).length !== 1) torn.push('not listed')
      }
      return torn
    }
    const readers = [read(), read(), read()]
    for (let i = 1; i <= 30; i++) await store.put('one', body(i))
    done = true
    for (const torn of await Promise.all(readers)) t.same(torn, [])
  },

  async 'a read that began before an overwrite gets one whole object'(t, store) {
    const [old, other] = [Buffer.alloc(8 * MIB, 1), Buffer.alloc(8 * MIB, 2)]
    await store.put('one', old)
    const { body } = await store.get('one')
    await store.put('one', other)
    await store.delete('one')
    await sleep(50)
    const bytes = await buffer(body)
    t.ok(bytes.equals(old) || bytes.equals(other))
  },

  async 'list returns more than 2500 keys in order, and can be left early'(t, store) {
    const keys = Array.from({ length: 2600 }, (_, i) => `many/${i % 7}/${i}.json`)
    await each(keys, (key) => store.put(key, Buffer.from(key)))
    t.same(await keysOf(store, 'many/'), keys.toSorted())
    t.equal(
      (await keysOf(store, 'many/3')).length,
      keys.filter((key) => /^many\/3/.test(key)).length,
    )
    let seen = 0
    for await (const { key } of store.list('many/')) {
      if (seen++ === 0) await store.delete('many/6/2596.json')
      else if (seen === 5) break
      t.ok(key.startsWith('many/'))
    }
    t.equal(seen, 5, 'the listing was left early')
  },
}

/** The cases for stores with conditional puts. */
const CONDITIONAL: Record<string, Case> = {
  async 'a put with ifAbsent succeeds only if there is no object, for one of many writers'(
    t,
    store,
  ) {
    const first = await store.put('one', Buffer.from('first'), { ifAbsent: true })
    const again = store.put('one', Buffer.from('again'), { ifAbsent: true })
    await t.rejects(again, storeError('precondition_failed'))
    t.same(await store.head('one'), first)
    await store.delete('one')
    await store.put('one', Buffer.from('after'), { ifAbsent: true })
    t.equal(await textOf(store, 'one'), 'after')
    const won = await race((i) => store.put('two', Buffer.from(`${i}`), { ifAbsent: true }))
    t.equal(won.length, 1, 'one of twenty succeeds')
    t.equal(await textOf(store, 'two'), `${won[0]}`)
  },

  async 'a put with ifMatch succeeds only over that etag, for one of many writers'(t, store) {
    const none = store.put('one', Buffer.from('x'), { ifMatch: 'none' })
    await t.rejects(none, storeError('precondition_failed'), 'ifMatch fails if there is no object')
    t.same(await keysOf(store, ''), [])
    const { etag: first } = await store.put('one', Buffer.from('1'))
    const { etag: second } = await store.put('one', Buffer.from('2'), { ifMatch: first })
    t.same((await store.head('one')).etag, second)
    const late = store.put('one', Buffer.from('3'), { ifMatch: first })
    await t.rejects(late, storeError('precondition_failed'))
    t.equal(await textOf(store, 'one'), '2')
    const won = await race((i) => store.put('one', Buffer.from(`won ${i}`), { ifMatch: second }))
    t.equal(won.length, 1, 'one of twenty succeeds')
    t.equal(await textOf(store, 'one'), `won ${won[0]}`)
  },

  async 'a counter that many writers raise by compare-and-swap loses no increment'(t, store) {
    await store.put('count', Buffer.from('0'))
    const raise = async (): Promise<void> => {
      for (;;) {
        const { body, etag } = await store.get('count')
        const next = Buffer.from(`${Number(await buffer(body)) + 1}`)
        if ((await race(() => store.put('count', next, { ifMatch: etag }), 1)).length === 1) return
        await sleep(Math.random() * 20)
      }
    }
    await Promise.all(Array.from({ length: 20 }, raise))
    t.equal(await textOf(store, 'count'), '20')
  },
}

/** Runs the whole contract of `Store` as subtests of `t`, on a store that is cleared before and after. */
export async function testStore(t: Test, backend: Backend): Promise<void> {
  const store = await backend.open()
  const test = (name: string, run: Case, skip?: string) =>
    t.test(name, skip === undefined ? {} : { skip }, async (t) => {
      await clear(store)
      await run(t, store, backend)
      t.same(await backend.leftovers(store), [], 'no temporary files or parts remain')
    })
  t.teardown(() => clear(store))
  for (const [name, run] of Object.entries(CASES)) await test(name, run)
  for (const [name, run] of Object.entries(CONDITIONAL))
    await test(name, run, backend.unconditional)
  for (const [state, code] of Object.entries(STATES)) {
    const around = backend[state as keyof typeof STATES]
    const name = `every method of a store that is ${state} fails with ${code}`
    if (typeof around === 'string') await test(name, async () => {}, around)
    else await test(name, (t, store) => testState(t, store, around, code))
  }
}

const STATES = { refusing: 'not_permitted', unreachable: 'unreachable' } as const

/** Checks that every method of a store in a state fails with `code`, and that no object is lost. */
async function testState(
  t: Test,
  store: Store,
  around: Around,
  code: StoreErrorCode,
): Promise<void> {
  await store.put('a/b', Buffer.from('x'))
  await around(async (store) => {
    for (const key of ['a/b', 'a/none', 'none']) {
      await t.rejects(store.get(key), storeError(code), `get ${key}`)
      await t.rejects(store.head(key), storeError(code), `head ${key}`)
      await t.rejects(store.put(key, Buffer.from('y')), storeError(code), `put ${key}`)
      await t.rejects(store.delete(key), storeError(code), `delete ${key}`)
    }
    await t.rejects(keysOf(store, 'a/'), storeError(code), 'list')
    await t.rejects(keysOf(store, ''), storeError(code), 'list all')
  })
  t.same(await keysOf(store, ''), ['a/b'])
  t.equal(await textOf(store, 'a/b'), 'x', 'the object is unchanged')
}

/** The properties of a `StoreError`, for `t.rejects` and `t.throws`. */
export const storeError = (code: StoreErrorCode) => ({ name: 'StoreError', code })

export async function keysOf(store: Store, prefix: string): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of store.list(prefix)) keys.push(key)
  return keys
}

export async function textOf(store: Store, key: string): Promise<string> {
  return (await buffer((await store.get(key)).body)).toString()
}

async function clear(store: Store): Promise<void> {
  await each(await keysOf(store, ''), (key) => store.delete(key))
}

/** Runs `use` for every key, 16 at a time. */
async function each(keys: string[], use: (key: string) => Promise<unknown>): Promise<void> {
  const waiting = keys.values()
  const work = async () => {
    for (const key of waiting) await use(key)
  }
  await Promise.all(Array.from({ length: 16 }, work))
}

/**
 * Starts `count` puts at once. Returns the numbers of those that succeed. Throws any error but `precondition_failed`.
 */
async function race(put: (i: number) => Promise<unknown>, count = 20): Promise<number[]> {
  const results = await Promise.allSettled(Array.from({ length: count }, (_, i) => put(i)))
  for (const result of results) {
    const refused = result.status === 'rejected' && result.reason
    if (refused && refused.code !== 'precondition_failed') throw refused
  }
  return results.flatMap(({ status }, i) => (status === 'fulfilled' ? [i] : []))
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex')

function* chunks(size: number): Generator<Buffer> {
  for (let at = 0; at < size; at += 64 * KIB) yield Buffer.alloc(Math.min(64 * KIB, size - at), 1)
}

/** 24 MiB that call `interrupt` halfway, after more bytes than buffers hold. */
async function* interrupted(interrupt: () => void): AsyncGenerator<Buffer> {
  yield* chunks(12 * MIB)
  interrupt()
  await sleep(10)
  yield* chunks(12 * MIB)
}

const failure = (): Error => Object.assign(new Error('the source failed'), { code: 'ESOURCE' })

const FAILING: Record<string, () => Readable> = {
  'at once': () =>
    new Readable({
      read() {
        this.destroy(failure())
      },
    }),
  'after 12 MiB': () =>
    Readable.from(
      (function* () {
        yield* chunks(12 * MIB)
        throw failure()
      })(),
    ),
}

/** A stream of different chunks, and its digest, which is complete once all chunks have passed. */
function randomStream(
  size: number,
  onChunk = () => {},
): { stream: Readable; sha256: () => string } {
  const hash = createHash('sha256')
  const seed = randomBytes(64 * KIB)
  const make = function* () {
    for (let at = 0; at < size; at += seed.length) {
      const chunk = Buffer.from(seed.buffer.slice(seed.byteOffset, seed.byteOffset + seed.length))
      chunk.writeUInt32LE(at / seed.length)
      hash.update(chunk)
      onChunk()
      yield chunk
    }
  }
  return { stream: Readable.from(make(), { objectMode: false }), sha256: () => hash.digest('hex') }
}

async function drain(
  store: Store,
  key: string,
  onChunk: () => void,
): Promise<{ size: number; sha256: string }> {
  const hash = createHash('sha256')
  let size = 0
  const { body } = await store.get(key)
  await pipeline(body, async (pieces: AsyncIterable<Buffer>) => {
    for await (const piece of pieces) {
      hash.update(piece)
      size += piece.length
      onChunk()
    }
  })
  return { size, sha256: hash.digest('hex') }
}

/** Measures the peak of buffer memory since the call, in bytes, without garbage. */
function peakMemory(): { sample: () => void; grown: () => number } {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const measure = (): number => process.memoryUsage().arrayBuffers
  collect()
  const start = measure()
  let peak = start
  const sample = () => {
    if (measure() < peak + 8 * MIB) return
    collect()
    peak = Math.max(peak, measure())
  }
  return { sample, grown: () => peak - start }
}
