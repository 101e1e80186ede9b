// Raw BTF in the store: once for all kernels that share it, found corrupt when it is, bounded when it is read.
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
import { keysOf, told } from '../helpers/store-contract.ts'

const raw = fixture('types-x86_64.btf')
const sha256 = createHash('sha256').update(raw).digest('hex')
const key = blobKey(sha256)

t.test('what was put is there, under the digest of the raw bytes, compressed', async (t) => {
  const store = await openStore('memory:')
  t.same(await putBlob(store, raw), { sha256, size: raw.length })
  t.ok((await getBlob(store, sha256)).equals(raw))
  const { compressed } = await readBlob(store, sha256)
  t.ok(compressed.length < raw.length)
  t.ok(zstdDecompressSync(compressed).equals(raw), 'zstd, for those who pass it on')
  t.same(await keysOf(store, ''), [`blobs/${sha256.slice(0, 2)}/${sha256}.btf.zst`])
})

t.test('equal BTF is stored once', async (t) => {
  const store = await openStore('memory:')
  await putBlob(store, raw)
  const first = await store.head(key)
  await putBlob(store, Buffer.from(raw))
  t.same(await store.head(key), first, 'and not written again')
  await Promise.all(Array.from({ length: 5 }, () => putBlob(store, raw)))
  await putBlob(store, fixture('types-s390x.btf'))
  t.equal((await keysOf(store, 'blobs/')).length, 2)
})

t.test('no bytes at all are a blob too', async (t) => {
  const store = await openStore('memory:')
  const { sha256 } = await putBlob(store, Buffer.alloc(0))
  t.equal((await getBlob(store, sha256)).length, 0)
})

t.test('one that is not there, and a digest that is none', async (t) => {
  const store = await openStore('memory:')
  await t.rejects(getBlob(store, sha256), told('not_found'))
  for (const digest of ['', '../../x', sha256.toUpperCase(), `${sha256}00`])
    await t.rejects(getBlob(store, digest), told('invalid_key'), digest)
})

t.test('a corrupt blob is found', { timeout: 20_000 }, async (t) => {
  const store = await openStore('memory:')
  const good = zstdCompressSync(raw, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })
  const flipped = Buffer.from(good)
  flipped[good.length >> 1]! ^= 1
  const corrupt = {
    nothing: Buffer.alloc(0),
    'no zstd': randomBytes(1000),
    'not compressed': raw,
    'cut short': good.subarray(0, -5),
    'a bit flipped': flipped,
    'other bytes': zstdCompressSync(Buffer.concat([raw.subarray(1), raw.subarray(0, 1)])),
  }
  for (const [name, bytes] of Object.entries(corrupt)) {
    await store.put(key, bytes)
    await t.rejects(getBlob(store, sha256), told('digest_mismatch'), name)
  }
  await store.put(key, zstdCompressSync(Buffer.alloc(300 * 2 ** 20)))
  const bomb = { code: 'digest_mismatch', message: /does not decompress/ }
  await t.rejects(getBlob(store, sha256), bomb, 'a bomb goes no further than the bound')
  await store.put(key, good)
  t.ok((await getBlob(store, sha256)).equals(raw), 'other settings of zstd do not matter')
})

const CHUNK = 64 * 1024

/** A store that says an object is of that size, and gives bytes without end. */
function endless(store: Store, size: number): Store & { given: () => number } {
  let given = 0
  const pieces = async function* () {
    for (; ; given += CHUNK) yield Buffer.alloc(CHUNK)
  }
  return Object.assign(Object.create(store), {
    given: () => given,
    get: async () => ({ ...(await store.head(key)), size, body: Readable.from(pieces()) }),
  })
}

t.test('a blob beyond all measure is not read', { timeout: 20_000 }, async (t) => {
  const store = await openStore('memory:')
  await store.put(key, Buffer.from('x'))
  const large = endless(store, 2 ** 40)
  await t.rejects(getBlob(large, sha256), told('digest_mismatch'))
  t.ok(large.given() < 2 ** 20)
})

t.test('a store that fails is not a blob that is missing', async (t) => {
  const store = await openStore('memory:')
  const failing: Store = Object.assign(Object.create(store), {
    head: () => Promise.reject(new StoreError('unreachable', 'not_found_upstream')),
  })
  await t.rejects(putBlob(failing, raw), told('unreachable'))
  t.same(await keysOf(store, ''), [])
})
