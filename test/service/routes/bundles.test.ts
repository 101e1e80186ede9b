// POST /v1/bundles: the archive of `btfmill export`, as a stream that a client may abort.
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { request } from 'undici'
import { decodeManifest } from '../../../service/bundle/manifest.ts'
import { blobKey, openStore, sha256Of } from '../../../storage/index.ts'
import {
  bundlesOf,
  DECOMPRESSORS,
  formOf,
  KERNELS,
  membersOf,
  objectFile,
  putKernels,
  rawOf,
} from '../../helpers/bundles.ts'
import { slowly, startTestService } from '../../helpers/test-service.ts'

const store = await openStore('memory:')
await putKernels(store, KERNELS)
const testService = await startTestService(t, () => [], { store, settings: { bundles: 1 } })
const bundles = await bundlesOf(store)
const task = objectFile('task')

async function post(query: string, form?: FormData) {
  const answer = await fetch(`${testService.url}/v1/bundles?${query}`, {
    method: 'POST',
    ...(form && { body: form }),
  })
  return {
    status: answer.status,
    headers: answer.headers,
    bytes: Buffer.from(await answer.arrayBuffer()),
  }
}
const problemOf = ({ bytes }: { bytes: Buffer }) => JSON.parse(bytes.toString())

t.test(
  'the archive has the same bytes as that of the command, with and without objects',
  async (t) => {
    const whole = await post('profile=bcc')
    t.equal(whole.status, 200)
    t.equal(whole.headers.get('content-type'), 'application/gzip')
    t.equal(whole.headers.get('content-disposition'), 'attachment; filename="min_core_btfs.tar.gz"')
    t.equal(whole.headers.get('cache-control'), 'no-store')
    t.ok(whole.bytes.equals((await bundles.pack({ profile: 'bcc' })).archive))

    const objects = [task, objectFile('bitfield')]
    const least = await post(
      'profile=tree&zstd=true&distro=debian&version=12&release=*-9-*',
      formOf(...objects),
    )
    const filter = { distro: 'debian', version: '12', release: '*-9-*' }
    const same = await bundles.pack({ zstd: true, objects, filter })
    t.equal(least.headers.get('content-type'), 'application/zstd')
    t.ok(least.bytes.equals(same.archive))
    t.equal((await membersOf(DECOMPRESSORS.zstd!(least.bytes))).length, 2)
  },
)

t.test('the manifest alone is available for profiles whose archive has none', async (t) => {
  const { headers, bytes } = await post('profile=datadog&arch=amd64&part=manifest', formOf(task))
  t.equal(headers.get('content-type'), 'application/json')
  const { manifest } = await bundles.pack({
    profile: 'datadog',
    filter: { arch: 'amd64' },
    objects: [task],
  })
  t.ok(bytes.equals(manifest))
  t.match(decodeManifest(bytes), { objects: [{ name: 'task.el.o' }] })
})

t.test(
  'a refused request gets a problem document before the first byte of an archive',
  async (t) => {
    const problem = async (query: string, form?: FormData) => problemOf(await post(query, form))
    t.match(await problem('profile=rpm'), { status: 400, code: 'invalid_request' })
    t.match(await problem('profile=tree&releases=x'), { status: 400, code: 'invalid_request' })
    t.match(await problem('profile=tree&arch=riscv64'), { status: 404, code: 'unknown_kernel' })
    t.match(await problem('profile=bcc&zstd=true'), { status: 400, code: 'invalid_request' })
    const raw = { name: 'x', bytes: rawOf('x86_64') }
    t.match(await problem('profile=tree', formOf(task, raw)), {
      status: 422,
      code: 'invalid_object',
      reason: 'invalid_elf',
      detail: /^object 2: /,
    })
    const big = formOf(objectFile('task', 'eb'))
    t.match(await problem('profile=tree&unsupported=fail&distro=ubuntu', big), {
      status: 422,
      code: 'unsupported',
      findings: [{ kernel: { distro: 'ubuntu' }, object: 'task.eb.o', included: false }],
    })
    const many = formOf(...Array.from({ length: 33 }, () => task))
    t.match(await problem('profile=tree', many), { status: 413, code: 'too_large' })
    const text = await request(`${testService.url}/v1/bundles?profile=tree`, {
      method: 'POST',
      headers: { 'content-type': 'text/plain' },
      body: 'x',
    })
    t.equal(text.statusCode, 415)
    t.equal((await post('profile=tree')).status, 200, 'the last one was let go')
  },
)

t.test(
  'headers and a first chunk come before BTF is read, and concurrent bundles are limited',
  async (t) => {
    const reading = slowly(store)
    const { body, statusCode } = await request(`${testService.url}/v1/bundles?profile=tree`, {
      method: 'POST',
    })
    t.equal(statusCode, 200)
    const pieces = body[Symbol.asyncIterator]()
    const first = await pieces.next()
    t.ok(first.value.length > 0)
    t.equal(reading.counts.ended, 0)
    t.match(problemOf(await post('profile=tree')), { status: 503, code: 'busy' })
    reading.go()
    const all = [first.value]
    for (let next = await pieces.next(); !next.done; next = await pieces.next())
      all.push(next.value)
    t.equal((await membersOf(DECOMPRESSORS.xz!(Buffer.concat(all)))).length, KERNELS.length + 1)
  },
)

t.test('a client that disconnects ends the work and returns its quota', async (t) => {
  await putKernels(
    store,
    Array.from({ length: 30 }, (_, n) => ({
      distro: 'ol',
      version: '7',
      release: `4.1-${n}`,
      btf: n % 2 ? 'i686' : 'x86_64',
    })),
  )
  await testService.catalog.refresh()
  const reading = slowly(store)
  const socket = connect(Number(new URL(testService.url).port), '127.0.0.1')
  socket.write('POST /v1/bundles?profile=bcc&distro=ol HTTP/1.1\r\nhost: x\r\n\r\n')
  while (reading.counts.started === 0) await sleep(5)
  socket.destroy()
  await once(socket, 'close')
  let status = 503
  while (status === 503) status = (await post('profile=tree&arch=riscv64')).status
  t.equal(status, 404)
  reading.go()
  await sleep(100)
  t.ok(reading.counts.ended < 30, `${reading.counts.ended} of 30 read`)
  t.equal(reading.counts.started, reading.counts.ended)
})

t.test('a store that fails midway closes the connection', async (t) => {
  const get = store.get.bind(store)
  t.teardown(() => {
    store.get = get
  })
  const fails = blobKey(sha256Of(rawOf('i686')))
  store.get = async (key, range) => {
    if (key === fails) throw new Error('the disk is on fire')
    return await get(key, range)
  }
  await t.rejects(post('profile=tree'))
  t.equal((await post('profile=tree&distro=debian')).status, 200, 'others go on')
})
