// S3 through a network that fails at random: many rounds of puts, and 200 MB up and down.
import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import t from 'tap'
import { StoreError } from '../../storage/index.ts'
import { Random } from '../fuzz/random.ts'
import { makeBucket } from '../helpers/bucket.ts'
import { FAULTS, type FaultyServer, startProxy } from '../helpers/proxy.ts'
import { seedOf } from '../helpers/seed.ts'

const MIB = 1024 * 1024
const WRITERS = 4
const ROUNDS = 100

const bucket = await makeBucket(t)
const direct = await bucket.open('long')

const random = new Random(seedOf(t))

/** Makes one of `count` requests fail, with a random fault. */
const oneOf =
  (count: number): FaultyServer['fault'] =>
  () =>
    random.once(count) ? random.pick(Object.values(FAULTS)) : undefined

const nameOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

t.test('after a put that fails, the object is the old one or the new one, whole', async (t) => {
  const proxy = await startProxy(t, bucket.endpoint)
  proxy.fault = oneOf(4)
  const store = await bucket.open('long', { endpoint: proxy.url, timeout: 2 })
  const told = { done: 0, failed: 0 }
  const write = async (_: unknown, writer: number): Promise<void> => {
    const key = `objects/${writer}`
    let { etag } = await direct.put(key, Buffer.from('first'))
    let there = nameOf(Buffer.from('first'))
    for (let round = 0; round < ROUNDS; round++) {
      const body = randomBytes(round % 5 === 0 ? 6 * MIB : 50_000)
      const next = nameOf(body)
      const options = round % 3 === 0 ? { ifMatch: etag } : {}
      const put = await store.put(key, Readable.from([body]), options).catch((error) => error)
      const found = await direct.get(key)
      const now = nameOf(await buffer(found.body))
      if (put instanceof StoreError) {
        told.failed++
        t.equal(put.code, 'unreachable', `${key} ${round}: ${put.message}`)
        t.ok([there, next].includes(now), `${key} ${round}: whole`)
      } else {
        told.done++
        t.match(put, { size: body.length, etag: found.etag })
        t.equal(now, next, `${key} ${round}: stored`)
      }
      there = now
      etag = found.etag
    }
  }
  await Promise.all(Array.from({ length: WRITERS }, write))
  t.comment(`${told.done} puts done, ${told.failed} failed, ${proxy.requests.length} requests`)
  t.ok(told.done > (WRITERS * ROUNDS) / 2, 'most puts succeed')
})

t.test('200 MB arrive unchanged while connections break', async (t) => {
  const proxy = await startProxy(t, bucket.endpoint)
  proxy.fault = oneOf(20)
  const store = await bucket.open('long', { endpoint: proxy.url, timeout: 5 })
  const seed = randomBytes(MIB)
  const hash = createHash('sha256')
  const chunks = function* () {
    for (let i = 0; i < 200; i++) {
      const chunk = Buffer.from(seed)
      chunk.writeUInt32LE(i)
      hash.update(chunk)
      yield chunk
    }
  }
  await store.put('large', Readable.from(chunks()))
  const sent = hash.digest('hex')
  proxy.fault = oneOf(2)
  const { body, size } = await store.get('large')
  t.equal(size, 200 * MIB)
  const received = createHash('sha256')
  for await (const chunk of body) received.update(chunk)
  t.equal(received.digest('hex'), sent)
})
