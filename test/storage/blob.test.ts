// Tests blobs: equal BTF is stored once, corrupt blobs are detected, and reads are bounded.
import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import {
  blobKey,
  getBlob,
  openStore,
  putBlob,
  readBlob,
  type Store,
  StoreError,
} from '../../storage/index.ts'
import { fixture } from '../helpers/fixtures.ts'
import { keysOf, storeError } from '../helpers/store-contract.ts'

const raw = fixture('types-x86_64.btf')
const sha256 = createHash('sha256').update(raw).digest('hex')
const key = blobKey(sha256)

t.test('putBlob stores BTF compressed under the digest of the raw bytes', async (t) => {
  const store = await openStore('memory:')
  t.same(await putBlob(store, raw), { sha256, size: raw.length })
  t.ok((await getBlob(store, sha256)).equals(raw))
  const { compressed } = await readBlob(store, sha256)
  t.ok(compressed.length < raw.length)
  t.ok(zstdDecompressSync(compressed).equals(raw), 'the stored bytes are a zstd frame')
  t.same(await keysOf(store, ''), [`blobs/${sha256.slice(0, 2)}/${sha256}.btf.zst`])
})

t.test('putBlob stores equal BTF once', async (t) => {
  const store = await openStore('memory:')
  await putBlob(store, raw)
  const first = await store.head(key)
  await putBlob(store, Buffer.from(raw))
  t.same(await store.head(key), first, 'the second put does not write')
  await Promise.all(Array.from({ length: 5 }, () => putBlob(store, raw)))
  await putBlob(store, fixture('types-s390x.btf'))
  t.equal((await keysOf(store, 'blobs/')).length, 2)
})

t.test('putBlob and getBlob accept a blob of zero bytes', async (t) => {
  const store = await openStore('memory:')
  const { sha256 } = await putBlob(store, Buffer.alloc(0))
  t.equal((await getBlob(store, sha256)).length, 0)
})

t.test(
  'getBlob rejects a missing blob as not_found and a malformed digest as invalid_key',
  async (t) => {
    const store = await openStore('memory:')
    await t.rejects(getBlob(store, sha256), storeError('not_found'))
    for (const digest of ['', '../../x', sha256.toUpperCase(), `${sha256}00`])
      await t.rejects(getBlob(store, digest), storeError('invalid_key'), digest)
  },
)

t.test('getBlob rejects every corrupt blob as digest_mismatch', { timeout: 20_000 }, async (t) => {
  const store = await openStore('memory:')
  const good = zstdCompressSync(raw, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })
  const flipped = Buffer.from(good)
  flipped[good.length >> 1]! ^= 1
  const corrupt = {
    empty: Buffer.alloc(0),
    'random bytes': randomBytes(1000),
    'not compressed': raw,
    'cut short': good.subarray(0, -5),
    'a bit flipped': flipped,
    'other bytes': zstdCompressSync(Buffer.concat([raw.subarray(1), raw.subarray(0, 1)])),
  }
  for (const [name, bytes] of Object.entries(corrupt)) {
    await store.put(key, bytes)
    await t.rejects(getBlob(store, sha256), storeError('digest_mismatch'), name)
  }
  await store.put(key, zstdCompressSync(Buffer.alloc(300 * 2 ** 20)))
  const bomb = { code: 'digest_mismatch', message: /does not decompress/ }
  await t.rejects(getBlob(store, sha256), bomb, 'a decompression bomb stops at the size limit')
  await store.put(key, good)
  t.ok((await getBlob(store, sha256)).equals(raw), 'a frame with other zstd settings is valid')
})

const CHUNK = 64 * 1024

/** A store whose object claims to have `size` bytes and never ends. */
function endless(store: Store, size: number): Store & { given: () => number } {
  let given = 0
  const pieces = async function* () {
    for (; ; given += CHUNK) yield Buffer.alloc(CHUNK)
  }
  return Object.assign(Object.create(store), {
    given: () => given,
    list: store.list.bind(store),
    get: async () => ({ ...(await store.head(key)), size, body: Readable.from(pieces()) }),
  })
}

t.test(
  'getBlob does not read a blob whose size is over the limit',
  { timeout: 20_000 },
  async (t) => {
    const store = await openStore('memory:')
    await store.put(key, Buffer.from('x'))
    const large = endless(store, 2 ** 40)
    await t.rejects(getBlob(large, sha256), storeError('digest_mismatch'))
    t.ok(large.given() < 2 ** 20)
  },
)

t.test('putBlob fails when the store fails, and does not take the blob for missing', async (t) => {
  const store = await openStore('memory:')
  const failing: Store = Object.assign(Object.create(store), {
    head: () => Promise.reject(new StoreError('unreachable', 'the server is gone')),
  })
  await t.rejects(putBlob(failing, raw), storeError('unreachable'))
  t.same(await keysOf(store, ''), [])
})
