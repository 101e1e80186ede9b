/*
 * Tests S3 through a proxy that loses, cuts, delays and rejects requests. A repeated request is carried out once. A
 * failed operation gives `unreachable` and never `not_found`. Objects are whole or absent.
 */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import type { Store } from '../../storage/index.ts'
import { makeBucket } from '../helpers/bucket.ts'
import { FAULTS, type FaultyServer, slow, startProxy } from '../helpers/proxy.ts'
import { keysOf, storeError } from '../helpers/store-contract.ts'

const bucket = await makeBucket(t)
/** The store without the proxy. */
const direct = await bucket.open('faults')

const OLD = Buffer.alloc(20_000, 'old')
const NEW = Buffer.alloc(10_000, 'new')
/** An object of two parts. */
const LARGE = Buffer.alloc(6 * 1024 * 1024, 'large')

/** `old` or `new` for an object that is whole; else a description. */
async function stateOf(key: string): Promise<string> {
  const bytes = await buffer((await direct.get(key)).body)
  if (bytes.equals(OLD)) return 'old'
  return bytes.equals(NEW) || bytes.equals(LARGE) ? 'new' : `${bytes.length} other bytes`
}

/** Operations on a store with `OLD` at `key`. Each returns the state that a successful operation leaves. */
const OPERATIONS: Record<string, (t: Test, store: Store, key: string) => Promise<string>> = {
  async get(t, store, key) {
    const { body, size } = await store.get(key)
    t.equal(size, OLD.length)
    t.ok((await buffer(body)).equals(OLD), 'all bytes')
    return 'old'
  },
  async 'get a range'(t, store, key) {
    const { body } = await store.get(key, { start: 1000, end: 15_000 })
    t.ok((await buffer(body)).equals(OLD.subarray(1000, 15_001)), 'its bytes')
    return 'old'
  },
  async 'get none'(t, store, key) {
    await absent(t, store.get(`${key}-none`))
    return 'old'
  },
  async 'head none'(t, store, key) {
    await absent(t, store.head(`${key}-none`))
    return 'old'
  },
  async list(t, store, key) {
    t.same(await keysOf(store, ''), [key])
    return 'old'
  },
  async put(_, store, key) {
    await store.put(key, NEW)
    return 'new'
  },
  async 'put in parts'(t, store, key) {
    t.equal((await store.put(key, Readable.from([LARGE]))).size, LARGE.length)
    return 'new'
  },
  async 'put ifMatch'(_, store, key) {
    await store.put(key, NEW, { ifMatch: createHash('md5').update(OLD).digest('hex') })
    return 'new'
  },
  async 'put ifAbsent'(_, store, key) {
    await store.put(`${key}-other`, NEW, { ifAbsent: true })
    return 'old'
  },
  async delete(_, store, key) {
    await store.delete(`${key}-none`)
    return 'old'
  },
}

/** Expects `not_found`, and throws any other error. */
async function absent(t: Test, found: Promise<unknown>): Promise<void> {
  const error = await found.then(
    () => t.fail('found'),
    (error) => error,
  )
  if (error.code !== 'not_found') throw error
}

interface Round {
  /** the requests that reached the proxy */
  requests: string[]
  /** why the operation failed, if it did */
  error?: unknown
}

/** Runs an operation through a proxy, under a prefix of its own, and checks that the object is whole afterwards. */
async function runThrough(
  t: Test,
  name: string,
  place: string,
  fault: FaultyServer['fault'],
  timeout = 5,
): Promise<Round> {
  const there = `${place}/key`
  await direct.put(there, OLD)
  const proxy = await startProxy(t, bucket.endpoint)
  proxy.fault = fault
  const store = await bucket.open(`faults/${place}`, { endpoint: proxy.url, timeout })
  const { requests } = proxy
  try {
    const expected = await OPERATIONS[name]!(t, store, 'key')
    t.equal(await stateOf(there), expected, `${place}: the object is as the operation says`)
    return { requests }
  } catch (error) {
    t.match(await stateOf(there), /^(old|new)$/, `${place}: the object is whole`)
    return { requests, error }
  }
}

const place = (...names: (string | number)[]): string => names.join('/').replaceAll(' ', '-')

/** The requests of each operation without faults. */
const asked = new Map<string, string[]>()

t.before(async () => {
  for (const name of Object.keys(OPERATIONS)) {
    const { requests } = await runThrough(t, name, place('none', name), () => undefined)
    asked.set(name, requests)
  }
})

t.test('every operation succeeds on a slow server', async (t) => {
  const rounds = [...asked.keys()].map(async (name) => {
    const { error } = await runThrough(t, name, place('slow', name), () => slow)
    t.error(error, name)
  })
  await Promise.all(rounds)
})

for (const [fault, run] of Object.entries(FAULTS)) {
  t.test(`every operation succeeds after one fault of this kind: ${fault}`, async (t) => {
    const rounds = [...asked].flatMap(([name, requests]) =>
      requests.map(async (request, at) => {
        const here = place(fault, name, at)
        const { error } = await runThrough(t, name, here, (i) => (i === at ? run : undefined))
        t.error(error, `${name}: ${request}`)
        // If the response with the upload id is lost, the upload stays until a later writer finds it old.
        const lost = /^POST .*\?uploads/.test(request) ? 1 : 0
        t.ok((await bucket.uploads(`faults/${here}/`)).length <= lost, 'no parts remain')
      }),
    )
    await Promise.all(rounds)
  })

  t.test(
    `every operation fails with unreachable if all requests meet this fault: ${fault}`,
    async (t) => {
      const rounds = [...asked.keys()].map(async (name) => {
        const { error } = await runThrough(t, name, place(fault, 'always', name), () => run, 0.5)
        t.match(error, storeError('unreachable'), name)
      })
      await Promise.all(rounds)
    },
  )
}
