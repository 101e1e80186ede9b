// /v1/packs, and a service whose kernels are only in packs.
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { openStore, packKey, type Store, sha256Of } from '../../../storage/index.ts'
import { formOf, KERNELS, objectFile, putKernels } from '../../helpers/bundles.ts'
import { packStore, putSeries } from '../../helpers/packs.ts'
import { ask, startTestService } from '../../helpers/test-service.ts'

const store = await openStore('memory:')
const records = [
  ...(await putSeries(store, 4)),
  ...(await putSeries(store, 2, { flavour: 'cloud-amd64', from: 10 })),
]
const digest = await packStore(store)
const bytes = await contentOf(store, packKey(digest))
const { url } = await startTestService(t, () => [], { store })

async function contentOf(from: Store, key: string): Promise<Buffer> {
  return Buffer.concat(await (await from.get(key)).body.toArray())
}

t.test('the list describes each pack', async (t) => {
  const { status, json, headers } = await ask(`${url}/v1/packs`)
  t.equal(status, 200)
  t.equal(headers['cache-control'], 'public, max-age=60')
  const series = { distro: 'debian', version: '12', arch: 'x86_64' }
  t.match(json, {
    packs: [
      {
        ...{ digest, size: bytes.length, kernels: 6, members: 6 },
        series: [
          { ...series, flavour: '-amd64', kernels: 4 },
          { ...series, flavour: '-cloud-amd64', kernels: 2 },
        ],
      },
    ],
  })
  const [{ indexSize }] = json!.packs as [{ indexSize: number }]
  t.equal(indexSize, 48 + bytes.readUInt32LE(8))
})

t.test('a pack is sent whole, in ranges, or not at all if the client has it', async (t) => {
  const path = `${url}/v1/packs/${digest}`
  const whole = await ask(path)
  t.equal(whole.status, 200)
  t.ok(whole.bytes.equals(bytes))
  t.match(whole.headers, {
    etag: `"${digest}"`,
    'content-type': 'application/vnd.btfmill.pack',
    'content-length': String(bytes.length),
    'cache-control': 'public, max-age=31536000, immutable',
    'accept-ranges': 'bytes',
  })
  const part = await ask(path, { range: 'bytes=8-99' })
  t.equal(part.status, 206)
  t.ok(part.bytes.equals(bytes.subarray(8, 100)))
  t.match(part.headers, {
    'content-range': `bytes 8-99/${bytes.length}`,
    'content-length': '92',
  })
  const end = await ask(path, { range: 'bytes=-10', 'if-range': `"${digest}"` })
  t.ok(end.bytes.equals(bytes.subarray(-10)))
  const head = await ask(path, {}, 'HEAD')
  t.match(
    [head.status, head.bytes.length, head.headers['content-length']],
    [200, 0, `${bytes.length}`],
  )
  t.equal((await ask(path, { 'if-none-match': `"${digest}"` })).status, 304)
  t.match(await ask(path, { range: `bytes=${bytes.length}-` }), {
    status: 416,
    json: { code: 'invalid_range' },
    headers: { 'content-range': `bytes */${bytes.length}` },
  })
  for (const method of ['GET', 'HEAD'] as const)
    t.equal((await ask(`${url}/v1/packs/${'0'.repeat(64)}`, {}, method)).status, 404)
  t.match(await ask(`${url}/v1/packs/x`), { status: 400, json: { code: 'invalid_request' } })
})

t.test('a packed kernel is served in all encodings, in ranges and as an archive', async (t) => {
  const decode = {
    zstd: zstdDecompressSync,
    gzip: gunzipSync,
    identity: (body: Buffer) => body,
  }
  for (const { kernel, btf } of records) {
    const { distro, version, arch, release } = kernel
    for (const path of [`${distro}/${version}/${arch}/${release}`, `sha256/${btf.sha256}`])
      for (const [encoding, decoded] of Object.entries(decode)) {
        const answer = await ask(`${url}/v1/btf/${path}`, { 'accept-encoding': encoding })
        t.equal(answer.status, 200)
        t.equal(sha256Of(decoded(answer.bytes)), btf.sha256)
        const suffix = encoding === 'identity' ? '' : `-${encoding}`
        t.equal(answer.headers.etag, `"${btf.sha256}${suffix}"`)
      }
  }
  const path = `${url}/v1/btf/sha256/${records[3]!.btf.sha256}`
  t.match(await ask(path, { range: 'bytes=0-3' }), { status: 206 })
  t.equal((await ask(`${path}?dialect=libbpf-0.5`)).status, 200)
  t.equal((await ask(path, {}, 'HEAD')).status, 200)
  const { release } = records[3]!.kernel
  t.equal((await ask(`${url}/debian/12/x86_64/${release}.btf.tar.xz`)).status, 200)
})

t.test('kernels that are packed while the service runs stay available', async (t) => {
  const moving = await openStore('memory:')
  const [first, second] = await putSeries(moving, 2)
  const service = await startTestService(t, () => [], { store: moving })
  const get = async (sha256: string) => (await ask(`${service.url}/v1/btf/sha256/${sha256}`)).status
  t.equal(await get(first!.btf.sha256), 200)
  t.equal(await get('0'.repeat(64)), 404)
  await packStore(moving)
  t.equal(await get(second!.btf.sha256), 200)
})

t.test(
  'a pack that cannot be read is left out of the list, and its kernels are errors',
  async (t) => {
    const broken = await openStore('memory:')
    const [record] = await putSeries(broken, 2)
    const name = await packStore(broken)
    const whole = await contentOf(broken, packKey(name))
    await broken.put(packKey(name), whole.subarray(0, 40))
    const service = await startTestService(t, () => [], { store: broken })
    t.same((await ask(`${service.url}/v1/packs`)).json, { packs: [] })
    const path = `${service.url}/v1/btf/sha256/${record!.btf.sha256}`
    t.match(await ask(path), { status: 404, json: { code: 'unknown_blob' } })
    await broken.put(packKey(name), whole)
    t.equal((await ask(path)).status, 200)
  },
)

t.test('objects and bundles have the same results when all kernels are in a pack', async (t) => {
  const objects = ['task', 'bitfield'].map((name) => objectFile(name))
  const paths = [
    'check?distro=debian',
    'minimize?distro=debian',
    'check?distro=debian&version=12&release=6.1.0-9-amd64',
    'minimize?distro=debian&version=12&release=6.1.0-9-amd64',
    'bundles?profile=bcc',
    'bundles?profile=tree&zstd=true',
  ]
  const answers = async (kernels: Store) => {
    const service = await startTestService(t, () => [], { store: kernels })
    const all: [string, number, string][] = []
    for (const path of paths) {
      const body = formOf(...objects)
      const answer = await fetch(`${service.url}/v1/${path}`, { method: 'POST', body })
      const bytes = Buffer.from(await answer.arrayBuffer())
      all.push([path, answer.status, sha256Of(bytes)])
    }
    return all
  }
  const kernels = await openStore('memory:')
  await putKernels(kernels, KERNELS)
  const before = await answers(kernels)
  t.same([...new Set(before.map(([, status]) => status))], [200])
  await packStore(kernels)
  t.same(await Array.fromAsync(kernels.list('blobs/')), [])
  t.same(await answers(kernels), before)
})
