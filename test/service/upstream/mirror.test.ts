// Mirrors: the kernels of another service, with their provenance, in packs where they are, and only what is new.
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isDamaged } from '../../../service/bundle/member.ts'
import type { Available } from '../../../service/kernel/lookup.ts'
import { packKernels } from '../../../service/pack/packing.ts'
import { type MirrorOptions, ServiceMirror } from '../../../service/upstream/mirror.ts'
import {
  Catalog,
  collectGarbage,
  generateKeys,
  getBlob,
  openStore,
  packKey,
  putBlob,
  putRecord,
  SNAPSHOT_KEY,
  type Store,
  sha256Of,
  verifyStore,
} from '../../../storage/index.ts'
import { encodeSnapshot, signSnapshot } from '../../../storage/snapshot.ts'
import { run } from '../../helpers/command.ts'
import { framesAt, nthBtf, packOf, packStore, putPackOf } from '../../helpers/packs.ts'
import { type Fault, type FaultyServer, none, startProxy } from '../../helpers/proxy.ts'
import { btfOf, startTestService } from '../../helpers/test-service.ts'
import { kernelOf, putKernels } from '../../helpers/upstreams.ts'

const COUNT = 12
const IMPATIENT = { attempts: 2, minDelay: 1 }

function temporary(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'mirror-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

interface Origin {
  store: Store
  proxy: FaultyServer
  catalog: Catalog
}

/** A service with kernels, whose catalog is published. */
async function originOf(t: Test, store: Store, secretKey?: string): Promise<Origin> {
  await Catalog.publish(store, secretKey)
  const { url, catalog } = await startTestService(t, undefined, { store })
  return { store, catalog, proxy: await startProxy(t, url) }
}

async function mirrored(options: Omit<MirrorOptions, 'request'>, filter = {}) {
  const mirror = await ServiceMirror.open({ ...options, request: IMPATIENT })
  const states: Record<string, number> = {}
  for await (const { state } of mirror.run(filter)) states[state] = (states[state] ?? 0) + 1
  return { states, bytes: mirror.bytes }
}

const packingOf = async (store: Store) => ({
  ...{ store, catalog: await Catalog.open(store), filter: {}, keep: 'all' as const, isDamaged },
  read: ({ btf }: Available) => getBlob(store, btf.sha256),
})

/** Where the frames of a pack begin, and its size. */
async function framesOf(store: Store, digest: string) {
  const { body, size } = await store.get(packKey(digest))
  return { start: framesAt(Buffer.concat(await body.toArray())), size }
}

/** The records of a store without what a mirror adds, and that all their BTF can be read. */
async function recordsIn(store: Store) {
  const records = [...(await Catalog.open(store)).list()].map(({ record }) => record)
  for (const { btf } of records) await getBlob(store, btf!.sha256)
  return records.map(({ takenFrom: _, ...record }) => record)
}

t.test('a mirror has all kernels with their records, and reads nothing twice', async (t) => {
  const { proxy, store: origin } = await originOf(t, await openStore('memory:'))
  await putKernels(origin, COUNT)
  await Catalog.publish(origin)
  const store = await openStore('memory:')
  const options = { store, server: proxy.url, cache: temporary(t) }
  t.match(await mirrored(options), { states: { taken: COUNT } })
  t.same(await recordsIn(store), await recordsIn(origin))
  const [entry] = [...(await Catalog.open(store)).list()]
  t.match(entry!.record, {
    takenFrom: [{ kind: 'btfmill', url: `${proxy.url}/`, vouched: 'digest' }],
  })
  proxy.requests.length = 0
  t.match(await mirrored(options), { states: { present: COUNT }, bytes: 0 })
  t.same(proxy.requests, ['GET /v1/catalog/snapshot.ndjson.zst'])
  t.same(await Array.fromAsync(verifyStore(store)), [])
})

t.test('packs are copied whole, and a grown pack only from where it grew', async (t) => {
  const origin = await openStore('memory:')
  await putKernels(origin, COUNT)
  const digest = await packStore(origin)
  const { proxy } = await originOf(t, origin)
  const store = await openStore('memory:')
  const options = { store, server: proxy.url, cache: temporary(t) }
  const first = await mirrored(options)
  t.same(first.states, { taken: COUNT })
  const before = await framesOf(origin, digest)
  const { size } = before
  t.equal((await store.head(packKey(digest))).size, size)
  t.ok(first.bytes < size * 2, `${first.bytes} bytes for a pack of ${size}`)
  t.notOk(proxy.requests.some((line) => line.includes('/v1/btf/')))
  t.same(await recordsIn(store), await recordsIn(origin))
  t.same(await Array.fromAsync(verifyStore(store)), [])
  await Array.fromAsync(collectGarbage(store, { minAge: 0 }))
  t.same(await recordsIn(store), await recordsIn(origin))

  await putKernels(origin, COUNT + 1)
  const events = await Array.fromAsync(packKernels(await packingOf(origin)))
  const grown = events.find((event) => event.state === 'packed')!
  t.not(grown.digest, digest)
  await Catalog.publish(origin)
  const ranges: string[] = []
  proxy.fault = (_, { url, headers }) => {
    if (url!.endsWith(grown.digest)) ranges.push(headers.range!)
    return undefined
  }
  t.same((await mirrored(options)).states, { taken: 1, present: COUNT })
  t.same(await recordsIn(store), await recordsIn(origin))
  const after = await framesOf(origin, grown.digest)
  t.same(ranges, [
    `bytes=0-${after.start - 1}`,
    `bytes=${after.start + before.size - before.start}-${after.size - 1}`,
  ])
})

t.test(
  'of a pack with many other kernels, only the chains of the wanted ones are read',
  async (t) => {
    const origin = await openStore('memory:')
    await putKernels(origin, COUNT)
    await packStore(origin)
    const { proxy } = await originOf(t, origin)
    const store = await openStore('memory:')
    const filter = { release: kernelOf(0).release }
    const { states } = await mirrored({ store, server: proxy.url, cache: temporary(t) }, filter)
    t.same(states, { taken: 1 })
    t.same(await Array.fromAsync(store.list('packs/')), [])
    t.equal((await recordsIn(store)).length, 1)
  },
)

t.test('a signed catalog is required with a key, and the records tell the key', async (t) => {
  const keys = generateKeys()
  const origin = await openStore('memory:')
  await putKernels(origin, 2)
  const { proxy } = await originOf(t, origin, keys.secretKey)
  const cache = temporary(t)
  const store = await openStore('memory:')
  const options = { store, server: proxy.url, cache, publicKey: keys.publicKey }
  t.match(await mirrored(options), { states: { taken: 2 } })
  const [entry] = [...(await Catalog.open(store)).list()]
  const publicKey = keys.publicKey.trim().split('\n').at(-1)
  t.match(entry!.record.takenFrom, [{ vouched: 'signature', publicKey }])
  const { publicKey: other } = generateKeys()
  await t.rejects(mirrored({ ...options, publicKey: other }), { code: 'invalid_signature' })

  await putKernels(origin, 3)
  await Catalog.publish(origin) // without a signature
  await t.rejects(mirrored(options), { code: 'invalid_signature' })
  t.equal((await recordsIn(store)).length, 2)
  // what was taken from a mirror tells both services
  const next = await originOf(t, store)
  const last = await openStore('memory:')
  await mirrored({ store: last, server: next.proxy.url, cache })
  const [far] = [...(await Catalog.open(last)).list()]
  t.match(far!.record.takenFrom, [
    { url: `${next.proxy.url}/`, vouched: 'digest' },
    { url: `${proxy.url}/`, vouched: 'signature', publicKey },
  ])
})

t.test('BTF that was made here stays, and what is new or changed is taken', async (t) => {
  const origin = await openStore('memory:')
  const [first, second] = await putKernels(origin, 3)
  const { proxy } = await originOf(t, origin)
  const store = await openStore('memory:')
  const own = { ...first!, btf: await btfOf(store, nthBtf(30)) }
  await putRecord(store, own)
  const at = new Date().toISOString()
  const { btf: _, ...failed } = second!
  const failure = { code: 'no_btf', message: 'x', attempts: 1, at, retryAt: null } as const
  await putRecord(store, { ...failed, failure })
  const options = { store, server: proxy.url, cache: temporary(t) }
  t.match(await mirrored(options), { states: { 'made here': 1, taken: 1, updated: 1 } })
  const kept = (await Catalog.open(store)).findBy('release', kernelOf(0).release)
  t.same(kept, [own])

  const newer = { ...second!, btf: await btfOf(origin, nthBtf(20)), updatedAt: at }
  await putRecord(origin, newer)
  await Catalog.publish(origin)
  t.match(await mirrored(options), { states: { 'made here': 1, present: 1, updated: 1 } })
  t.match((await Catalog.open(store)).findBy('release', kernelOf(1).release), [
    { btf: { sha256: newer.btf.sha256 } },
  ])
})

t.test('modules come along', async (t) => {
  const origin = await openStore('memory:')
  const [record] = await putKernels(origin, 1)
  const { encodeBtf, parseBtf } = await import('../../../bpf/index.ts')
  const base = parseBtf(nthBtf(0))
  const type = { kind: 'FWD', id: base.endId, name: 'in_module', of: 'struct' } as const
  const module = Buffer.from(encodeBtf([type], { base, byteOrder: base.byteOrder }))
  const info = await putBlob(origin, module)
  await putRecord(origin, { ...record!, modules: { ext4: { ...info, types: 1 } } })
  const { proxy } = await originOf(t, origin)
  const store = await openStore('memory:')
  await mirrored({ store, server: proxy.url, cache: temporary(t) })
  t.same(await recordsIn(store), await recordsIn(origin))
  t.ok((await getBlob(store, info.sha256)).equals(module))
})

t.test('a service without a snapshot is mirrored by its list of kernels', async (t) => {
  const origin = await openStore('memory:')
  await putKernels(origin, 2)
  const { url } = await startTestService(t, undefined, { store: origin })
  const store = await openStore('memory:')
  t.match(await mirrored({ store, server: url, cache: temporary(t) }), { states: { taken: 2 } })
})

t.test('a service that lies about BTF or packs leaves nothing wrong', async (t) => {
  const origin = await openStore('memory:')
  const records = await putKernels(origin, 4)
  const digest = await putPackOf(origin)
  const { proxy } = await originOf(t, origin)
  const cache = temporary(t)
  const lies: Record<string, (path: string) => Buffer | undefined> = {
    'a pack of another digest': (path) =>
      path.endsWith(digest) ? Buffer.alloc(5000, 'BTFpack') : undefined,
    'a list of packs that is none': (path) =>
      path.endsWith('/packs') ? Buffer.from('{"packs":[{"digest":7}]}') : undefined,
    'BTF of another digest': (path) =>
      /packs$|packs\/|sha256\/./.test(path) ? Buffer.from('{"packs":[]}') : undefined,
    'a catalog that is none': (path) => (path.includes('catalog') ? nthBtf(0) : undefined),
  }
  for (const [title, lie] of Object.entries(lies)) {
    await t.test(title, async (t) => {
      const store = await openStore('memory:')
      proxy.fault = (_, { url }) => {
        const body = lie(url!)
        return body && (({ response }) => void response.writeHead(200).end(body))
      }
      const options = { store, server: proxy.url, cache: join(cache, title.replaceAll(' ', '-')) }
      await mirrored(options).catch((error: { code: string }) =>
        t.match(error.code, /^(invalid_response|digest_mismatch)$/),
      )
      const found = await recordsIn(store)
      for (const one of found)
        t.same(
          one,
          records.find(({ kernel }) => kernel.release === one.kernel.release),
        )
      t.same(await Array.fromAsync(verifyStore(store)), [])
    })
  }
})

/** A pack of a store whose frames are of other BTF than its index says, with the digest of its bytes. */
async function lyingPack(store: Store) {
  const bytes = Buffer.concat((await packOf(store)).pieces)
  const indexSize = framesAt(bytes)
  bytes.fill(0x5a, indexSize + 4)
  return { bytes, digest: sha256Of(bytes), size: bytes.length, indexSize }
}

const listOf = (...packs: object[]): Buffer => Buffer.from(JSON.stringify({ packs }))

t.test('a pack whose members are others than its index says is not kept', async (t) => {
  const origin = await openStore('memory:')
  await putKernels(origin, 4)
  const { bytes, ...listed } = await lyingPack(origin)
  const { proxy } = await originOf(t, origin)
  proxy.fault = (_, { url }) => {
    const body = url!.endsWith('/packs')
      ? listOf(listed)
      : url!.includes('/packs/')
        ? bytes
        : undefined
    return body && (({ response }) => void response.writeHead(200).end(body))
  }
  const cache = temporary(t)
  for (const filter of [{}, { release: kernelOf(3).release }]) {
    const store = await openStore('memory:')
    const { states } = await mirrored({ store, server: proxy.url, cache }, filter)
    t.same(states, { taken: filter.release ? 1 : 4 }, 'all are read as single BTF')
    t.same(await Array.fromAsync(store.list('packs/')), [])
    t.same(await Array.fromAsync(verifyStore(store)), [])
  }
  t.same(
    readdirSync(cache, { recursive: true }).filter((name) => `${name}`.endsWith('.part')),
    [],
  )
})

const HTML = Buffer.from('<!doctype html><title>Sign in</title>'.padEnd(2000))

const endless: Fault = ({ response }) => {
  response.writeHead(200)
  const write = () => {
    while (!response.destroyed && response.write(Buffer.alloc(2 ** 16))) {}
    response.once('drain', write)
  }
  write()
}

t.test('answers about packs that are none, endless or gone cost little', async (t) => {
  const origin = await openStore('memory:')
  await putKernels(origin, 4)
  const digest = await putPackOf(origin)
  const { proxy } = await originOf(t, origin)
  const { start, size } = await framesOf(origin, digest)
  const real = { digest, size, indexSize: start }
  const answers: Record<string, [list: Buffer | undefined, pack: Fault]> = {
    'HTML in place of a pack': [
      undefined,
      ({ response }) => void response.writeHead(200).end(HTML),
    ],
    'an endless pack': [undefined, endless],
    'a pack that is gone': [
      undefined,
      ({ response }) => void response.writeHead(404).end('{"code":"not_found"}'),
    ],
    'a pack of 60 GB': [listOf({ ...real, size: 60 * 2 ** 30 }), none],
    'an index of 60 MB': [listOf({ ...real, size: 2 ** 26, indexSize: 60 * 2 ** 20 }), endless],
  }
  for (const [title, [list, answer]] of Object.entries(answers)) {
    const store = await openStore('memory:')
    proxy.fault = (_, { url }) => {
      if (url!.includes('/packs/')) return answer
      const isList = list && url!.endsWith('/packs')
      return isList ? ({ response }) => void response.writeHead(200).end(list) : undefined
    }
    const options = { store, server: proxy.url, cache: temporary(t) }
    const { states, bytes } = await mirrored(options)
    t.same(states, { taken: 4 }, title)
    t.ok(bytes < 130 * 2 ** 20, `${title}: ${bytes} bytes`)
    t.same(await Array.fromAsync(verifyStore(store)), [], title)
  }
})

t.test(
  'a kernel whose BTF is endless, HTML or gone is refused, and the others are taken',
  async (t) => {
    const origin = await openStore('memory:')
    const [first] = await putKernels(origin, 3)
    const { proxy } = await originOf(t, origin)
    const answers: Record<string, Fault> = {
      invalid_response: endless,
      digest_mismatch: ({ response }) => void response.writeHead(200).end(HTML),
      refused: ({ response }) => void response.writeHead(404).end('{"code":"unknown_blob"}'),
    }
    for (const [code, answer] of Object.entries(answers)) {
      const store = await openStore('memory:')
      proxy.fault = (_, { url }) => (url!.includes(first!.btf.sha256) ? answer : undefined)
      const options = { store, server: proxy.url, cache: temporary(t), request: IMPATIENT }
      const mirror = await ServiceMirror.open(options)
      const results = await Array.fromAsync(mirror.run())
      t.same(results.map(({ state }) => state).sort(), ['refused', 'taken', 'taken'], code)
      t.match(
        results.find(({ state }) => state === 'refused'),
        { code },
      )
      t.equal((await recordsIn(store)).length, 2)
      t.same(await Array.fromAsync(verifyStore(store)), [])
    }
  },
)

t.test('a signed catalog names the packs of its store, and no other is read', async (t) => {
  const keys = generateKeys()
  const origin = await openStore('memory:')
  await putKernels(origin, 4)
  const digest = await packStore(origin)
  const { proxy, catalog } = await originOf(t, origin, keys.secretKey)
  const { start, size } = await framesOf(origin, digest)
  t.same((await Catalog.open(origin)).packs, [[digest, size]])
  t.equal(catalog.packs?.length, 1)
  const strange = { digest: 'ab'.repeat(32), size: size + 1, indexSize: start }
  proxy.fault = (_, { url }) => {
    const list = listOf(strange, { digest, size, indexSize: start })
    const isList = url!.endsWith('/packs')
    return isList ? ({ response }) => void response.writeHead(200).end(list) : undefined
  }
  const store = await openStore('memory:')
  const options = { store, server: proxy.url, cache: temporary(t), publicKey: keys.publicKey }
  t.same((await mirrored(options)).states, { taken: 4 })
  t.notOk(proxy.requests.some((line) => line.endsWith(strange.digest)))
  t.ok(await store.head(packKey(digest)))
  // the catalog follows the packs
  await origin.delete(packKey(digest))
  await Catalog.publish(origin, keys.secretKey)
  t.same((await Catalog.open(origin)).packs, [])
})

t.test(
  'a catalog of an older version, which names no packs, is mirrored with its packs',
  async (t) => {
    const keys = generateKeys()
    const origin = await openStore('memory:')
    await putKernels(origin, 4)
    const digest = await packStore(origin)
    const { proxy } = await originOf(t, origin, keys.secretKey)
    const entries = [...(await Catalog.open(origin)).list()]
    await origin.put(SNAPSHOT_KEY, await encodeSnapshot(entries))
    await signSnapshot(origin, keys.secretKey)
    t.equal((await Catalog.open(origin)).packs, undefined)
    const store = await openStore('memory:')
    const options = { store, server: proxy.url, cache: temporary(t), publicKey: keys.publicKey }
    t.same((await mirrored(options)).states, { taken: 4 })
    t.ok(await store.head(packKey(digest)))
  },
)

t.test('the command says what it took, and refuses a filter that matches nothing', async (t) => {
  const origin = await openStore('memory:')
  await putKernels(origin, 3)
  const { proxy } = await originOf(t, origin)
  const directory = temporary(t)
  const args = ['mirror', proxy.url, '--store', join(directory, 'store'), '--cache', directory]
  const dry = await run(...args, '--dry-run')
  t.match(dry, {
    status: 0,
    stdout: /^debian\/12\/i686\/6\.1\.0-1-686\n.*\n.*\n3 would be taken over; /,
  })
  t.same(readdirSync(join(directory, 'store')), ['.tmp'])
  t.match(await run(...args), { status: 0, stdout: /^3 taken over; \S+ read\n$/ })
  const again = await run(...args, '--json')
  t.match(JSON.parse(again.stdout.trim().split('\n').at(-1)!), {
    summary: { present: 3, bytes: 0 },
  })
  t.match(await run(...args, '--distro', 'debain'), {
    status: 1,
    stderr: /unknown_kernel: no kernels match --distro debain: did you mean debian/,
  })
  writeFileSync(join(directory, 'none.pub'), generateKeys().publicKey)
  const signed = await run(...args, '--public-key', join(directory, 'none.pub'))
  t.match(signed, { status: 1, stderr: /not_found|invalid_signature|refused/ })
  t.match(await run('mirror', 'ftp://x', '--store', directory), { status: 1 })
})
