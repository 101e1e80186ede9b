// Redirects to the bucket for large bodies, with a real S3 server and real clients.
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { fetchBtf } from '../../../service/index.ts'
import { blobKey, openPresigner, packKey, packsOf, sha256Of } from '../../../storage/index.ts'
import { makeBucket } from '../../helpers/bucket.ts'
import { packOf } from '../../helpers/packs.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const run = promisify(execFile)
const [LITTLE, BIG] = [sha256Of(RAW.little), sha256Of(RAW.big)]
const KERNEL = { distro: 'debian', version: '12', arch: 'x86_64', release: '6.1.0-1-amd64' }
const PATH = '/v1/btf/debian/12/x86_64/6.1.0-1-amd64'

const bucket = await makeBucket(t)
const store = await bucket.open('a/prefix')
const records = async () => [
  recordOf({}, { btf: await btfOf(store, RAW.little) }),
  recordOf({ release: 'small' }, { btf: { ...(await btfOf(store, RAW.big)), size: 10 } }),
]
const { url } = await startTestService(t, records, { store, settings: { redirectAbove: 10 } })
const zstd = { 'accept-encoding': 'zstd' }

t.test('a client that accepts zstd is redirected to a presigned URL of the bucket', async (t) => {
  for (const path of [PATH, `/v1/btf/sha256/${LITTLE}`]) {
    const { status, headers, bytes } = await ask(`${url}${path}`, zstd)
    t.equal(status, 307, path)
    t.equal(bytes.length, 0)
    t.equal(headers['cache-control'], 'no-store')
    t.equal(headers.etag, `"${LITTLE}-zstd"`)
    const address = headers.location!
    t.ok(address.startsWith(`${bucket.endpoint}/btf/a/prefix/${blobKey(LITTLE)}?`), address)
    t.notMatch(address, bucket.owner.secretAccessKey)
    const there = await ask(address)
    t.equal(there.status, 200)
    t.equal(there.headers['content-encoding'], 'zstd')
    t.equal(there.headers['content-type'], 'application/octet-stream')
    t.ok(zstdDecompressSync(there.bytes).equals(RAW.little))
    const changed = address.replace(/(X-Amz-Signature=)./, '$1x')
    t.equal((await ask(changed)).status, 403, 'a changed signature is refused')
  }
})

t.test('BTF that has no blob is not redirected', async (t) => {
  const key = packKey('ab'.repeat(32))
  await store.put(key, Buffer.concat((await packOf(store)).pieces))
  const { body } = await store.get(blobKey(LITTLE))
  const blob = Buffer.concat(await body.toArray())
  await store.delete(blobKey(LITTLE))
  await packsOf(store).refresh()
  const service = await startTestService(t, () => [], { store, settings: { redirectAbove: 10 } })
  const { status, bytes } = await ask(`${service.url}${PATH}`, zstd)
  t.equal(status, 200)
  t.ok(zstdDecompressSync(bytes).equals(RAW.little))
  await store.put(blobKey(LITTLE), blob)
  t.equal((await ask(`${url}${PATH}`, zstd)).status, 307)
  await store.delete(key)
  await packsOf(store).refresh()
})

t.test('other requests are answered by the service itself', async (t) => {
  const others: [string, Record<string, string>, number][] = [
    [PATH, {}, 200],
    [PATH, { 'accept-encoding': 'gzip' }, 200],
    [PATH, { ...zstd, range: 'bytes=0-3' }, 206],
    [PATH, { ...zstd, 'if-none-match': `"${LITTLE}-zstd"` }, 304],
    [`${PATH}?dialect=libbpf-0.5`, zstd, 200],
    ['/v1/btf/debian/12/x86_64/small', zstd, 200],
    ['/debian/12/x86_64/6.1.0-1-amd64.btf.tar.xz', zstd, 200],
    [`/v1/btf/sha256/${'0'.repeat(64)}`, zstd, 404],
  ]
  for (const [path, headers, status] of others)
    t.equal(
      (await ask(`${url}${path}`, headers)).status,
      status,
      `${path} ${JSON.stringify(headers)}`,
    )
})

t.test(
  'curl and the fetch client follow the redirect, and the client checks the digest',
  async (t) => {
    const file = join(t.testdir({}), 'curl.btf')
    await run('curl', [
      '-sfL',
      '--compressed',
      '-H',
      'accept-encoding: zstd',
      '-o',
      file,
      `${url}${PATH}`,
    ])
    t.ok(readFileSync(file).equals(RAW.little))
    const output = join(t.testdirName, 'ours.btf')
    const fetched = await fetchBtf({ server: url, kernel: KERNEL, output })
    t.same(fetched, { path: output, origin: 'server', sha256: LITTLE })
    t.ok(readFileSync(output).equals(RAW.little))

    // a replaced object in the bucket is refused
    const { body } = await store.get(blobKey(BIG))
    await store.put(blobKey(LITTLE), body)
    const again = fetchBtf({ server: url, kernel: KERNEL, output, attempts: 1 })
    await t.rejects(again, { code: 'digest_mismatch' })
  },
)

t.test('a store without presigned URLs never redirects', async (t) => {
  for (const other of ['memory:', `file:${t.testdir({})}`])
    t.equal(await openPresigner(other), undefined)
  const plain = await startTestService(
    t,
    async (store) => [recordOf({}, { btf: await btfOf(store, RAW.little) })],
    { settings: { redirectAbove: 10 } },
  )
  t.equal((await ask(`${plain.url}${PATH}`, zstd)).status, 200)
})
