// POST /v1/check and /v1/minimize: the results of the commands, for one kernel or all, in threads with limits.
import { once } from 'node:events'
import { connect } from 'node:net'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { Ajv2020 } from 'ajv/dist/2020.js'
import t, { type Test } from 'tap'
import { request, type FormData as UndiciFormData } from 'undici'
import { BtfError, minimizeBtf, openObject, parseBtf, toDialect } from '../../../bpf/index.ts'
import type { ObjectFile } from '../../../service/bundle/member.ts'
import { ServiceError } from '../../../service/error.ts'
import { untilTooComplex } from '../../../service/routes/for-kernels.ts'
import { blobKey, openStore, type Store, sha256Of } from '../../../storage/index.ts'
import { formOf, objectFile, putKernels, rawOf } from '../../helpers/bundles.ts'
import { run, storeOf } from '../../helpers/command.ts'
import { coreObjects } from '../../helpers/core.ts'
import { heavyObject } from '../../helpers/heavy-object.ts'
import { ask, slowly, startTestService } from '../../helpers/test-service.ts'

const [task, exists, ambiguous] = ['task', 'exists', 'ambiguous'].map((name) =>
  objectFile(name),
) as [ObjectFile, ObjectFile, ObjectFile]
const X86 = sha256Of(rawOf('x86_64'))
const home = t.testdir({})
const location = await storeOf(join(home, 'store'), [
  { machine: 'x86_64', release: '6.1.0-1+deb' },
  { machine: 'i686', release: '5.10.0-1' },
  { machine: 's390x', release: '6.1.0-2' },
  { machine: 'x86_64', release: '6.1.0-4', version: '1' },
  { machine: 'i686', arch: 'x86_64', release: '6.1.0-4', version: '2' },
])
const store = await openStore(location)
const testService = await startTestService(t, () => [], { store })

type Objects = readonly ObjectFile[]

async function post(
  path: string,
  objects: Objects,
  { url = testService.url, headers = {} }: { url?: string; headers?: Record<string, string> } = {},
) {
  // not `fetch`, which decodes bodies; the types are undici's
  const body = formOf(...objects) as unknown as UndiciFormData
  const {
    statusCode,
    headers: given,
    body: answer,
  } = await request(`${url}${path}`, {
    ...{ method: 'POST', headers, body },
  })
  return { status: statusCode, headers: given, bytes: Buffer.from(await answer.arrayBuffer()) }
}
const linesOf = (text: string | Buffer) =>
  text
    .toString()
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
const problem = async (path: string, ...objects: Objects) =>
  JSON.parse((await post(path, objects)).bytes.toString())

t.test(
  '/v1/check gives the lines of `btfmill check --json` for all kernels that match',
  async (t) => {
    const files = ['task', 'exists'].map((name) => coreObjects('el').get(name)!)
    for (const filter of [{}, { release: '*-1*', distro: 'debian' }]) {
      const flags = Object.entries(filter).flatMap(([name, value]) => [`--${name}`, value])
      const { stdout } = await run('check', ...files, '--json', '--store', location, ...flags)
      const { status, headers, bytes } = await post(`/v1/check?${new URLSearchParams(filter)}`, [
        task,
        exists,
      ])
      t.equal(status, 200)
      t.equal(headers['content-type'], 'application/x-ndjson')
      const expected = linesOf(stdout).map((line) => ({ ...line, object: basename(line.object) }))
      t.same(linesOf(bytes), expected)
      t.ok(expected.length >= 4)
    }
  },
)

t.test('every line matches its schema in the OpenAPI document', async (t) => {
  const { json } = await ask(`${testService.url}/openapi.json`)
  // biome-ignore lint/suspicious/noExplicitAny: a document of somebody's
  const { paths } = json as any
  for (const route of ['check', 'minimize'] as const) {
    const { content } = paths[`/v1/${route}`].post.responses[200]
    const { contentSchema } = content['application/x-ndjson'].schema
    const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(contentSchema)
    const sent = { check: [exists], minimize: [ambiguous] }[route]
    const refused = linesOf((await post(`/v1/${route}`, sent)).bytes)
    const lines = [...refused, ...linesOf((await post(`/v1/${route}`, [task])).bytes)]
    t.equal(lines.length, 10)
    t.ok(lines.some((line) => line.error) && lines.some((line) => !line.error))
    for (const line of lines) {
      t.ok(validate(line), JSON.stringify(validate.errors))
      const [result] = contentSchema.anyOf // the other one is that of an answer that is cut
      const known = Object.keys(result.properties)
      t.ok(Object.keys(line).every((key) => known.includes(key)))
    }
  }
})

t.test('one kernel is selected by any of its names or by digest', async (t) => {
  const of = async (query: string) => linesOf((await post(`/v1/check?${query}`, [task])).bytes)
  const [byName] = await of('kernel=Debian/12.5/amd64/6.1.0-1%2Bdeb')
  t.match(byName, { kernel: 'debian/12/x86_64/6.1.0-1+deb', object: 'task.el.o', loads: 'yes' })
  const [byDigest] = await of(`digest=${X86}`)
  t.match(byDigest, { kernel: X86, programs: byName.programs })
  const newest = await of('kernel=debian/12/x86_64/6.1.0-4&ambiguous=newest')
  t.equal(newest.length, 1)
  const foreign = await of('kernel=debian/12/s390x/6.1.0-2')
  t.match(foreign, [{ error: { code: 'unsupported' } }])
})

const least = Buffer.from(
  minimizeBtf(parseBtf(rawOf('x86_64')), [openObject(task.bytes), openObject(exists.bytes)]),
)

t.test('/v1/minimize for one kernel gives BTF in the requested encoding', async (t) => {
  const of = (encoding: string) =>
    post(`/v1/minimize?digest=${X86}`, [task, exists], { headers: { 'accept-encoding': encoding } })
  const [plain, gz, zstd] = await Promise.all(['identity', 'gzip', 'zstd'].map(of))
  t.ok(plain!.bytes.equals(least))
  t.match(plain!.headers, { etag: `"${sha256Of(least)}"`, 'cache-control': 'no-store' })
  t.equal(plain!.headers['content-type'], 'application/octet-stream')
  t.ok(gunzipSync(gz!.bytes).equals(least))
  t.match(gz!.headers, { 'content-encoding': 'gzip', etag: `"${sha256Of(least)}-gzip"` })
  t.ok(zstdDecompressSync(zstd!.bytes).equals(least))
})

t.test('/v1/minimize for many kernels gives a line with BTF for each', async (t) => {
  const { headers, bytes } = await post('/v1/minimize?release=6.1.0-[14]*', [task, exists])
  t.equal(headers['content-type'], 'application/x-ndjson')
  const lines = linesOf(bytes)
  t.match(lines, [
    { kernel: 'debian/12/x86_64/6.1.0-1+deb', sha256: sha256Of(least), size: least.length },
    { kernel: 'debian/12/x86_64/6.1.0-4', build: '1', of: rawOf('x86_64').length },
    { kernel: 'debian/12/x86_64/6.1.0-4', build: '2', of: rawOf('i686').length },
  ])
  t.ok(Buffer.from(lines[0].btf, 'base64').equals(least))
  t.equal(Buffer.from(lines[2].btf, 'base64').length, lines[2].size)
  const [refused] = linesOf((await post('/v1/minimize?arch=i686', [task, ambiguous])).bytes)
  t.match(refused, { kernel: 'debian/12/i686/5.10.0-1', error: { code: 'invalid_relocation' } })
})

t.test('/v1/minimize gives BTF in the dialect that the request asks for', async (t) => {
  const sorted = Buffer.from(toDialect(parseBtf(least), 'libbpf-1.7'))
  t.notOk(sorted.equals(least))
  const query = 'dialect=libbpf-1.7'
  const one = await post(`/v1/minimize?digest=${X86}&${query}`, [task, exists])
  t.ok(one.bytes.equals(sorted))
  t.equal(one.headers.etag, `"${sha256Of(sorted)}"`)
  const [line] = linesOf(
    (await post(`/v1/minimize?release=6.1.0-1*&${query}`, [task, exists])).bytes,
  )
  t.match(line, { sha256: sha256Of(sorted), btf: sorted.toString('base64') })
  const plain = await post(`/v1/minimize?digest=${X86}`, [task, exists])
  t.ok(plain.bytes.equals(least), 'another request still gets it as it is')
  t.match(await problem('/v1/check?dialect=libbpf-1.7', task), { code: 'invalid_request' })
})

t.test('a refused request gets a problem document', async (t) => {
  for (const route of ['/v1/check', '/v1/minimize']) {
    const of = (query: string, ...objects: Objects) => problem(`${route}?${query}`, ...objects)
    t.match(await of('arch=riscv64', task), { status: 404, code: 'unknown_kernel' })
    t.match(await of('kernel=debian/12/x86_64/nobody', task), { code: 'unknown_kernel' })
    t.match(await of('kernel=debian/12/x86_64/6.1.0-4', task), { code: 'ambiguous' })
    t.match(await of('kernel=debian', task), { status: 400, code: 'invalid_name' })
    t.match(await of(`digest=${'0'.repeat(64)}`, task), { status: 404, code: 'unknown_blob' })
    t.match(await of(`digest=${X86}&distro=debian`, task), { status: 400, code: 'invalid_request' })
    t.match(await of('ambiguous=newest', task), { status: 400, code: 'invalid_request' })
    t.match(await of('kernels=x', task), { status: 400, code: 'invalid_request' })
    t.match(await of(''), { status: 400, code: 'invalid_request' })
    t.match(await of('', task, { name: 'x', bytes: rawOf('x86_64') }), {
      ...{ status: 422, code: 'invalid_object', reason: 'invalid_elf', detail: /^object 2: / },
    })
  }
  t.match(await problem(`/v1/minimize?digest=${X86}`, ambiguous), {
    ...{ status: 422, code: 'invalid_object', reason: 'invalid_relocation' },
  })
  const { misses } = (await ask(`${testService.url}/v1/misses`)).json as { misses: object[] }
  t.match(misses, [{ kernel: { release: 'nobody' }, count: 2 }])
})

t.test('results are cached by object and BTF', async (t) => {
  const { url } = await startTestService(t, () => [], { store })
  const counted = async () =>
    /btfmill_result_cache_events_total\{result="made"\} (\d+)/.exec(
      (await ask(`${url}/metrics`)).bytes.toString(),
    )?.[1]
  await Promise.all(Array.from({ length: 20 }, () => post('/v1/check', [task], { url })))
  // three different BTFs, and one check that the object opens
  t.equal(await counted(), '4')
  await post('/v1/check?release=6.1.0-4', [{ ...task, name: 'renamed' }], { url })
  t.equal(await counted(), '4')
  await post(`/v1/check?digest=${X86}`, [task], { url })
  t.equal(await counted(), '4')
  await Promise.all(
    Array.from({ length: 20 }, () => post(`/v1/minimize?digest=${X86}`, [task], { url })),
  )
  t.equal(await counted(), '5')
})

/** A store with many kernels that share one BTF. */
async function many(kernels: number): Promise<Store> {
  const store = await openStore('memory:')
  const releases = Array.from({ length: kernels }, (_, n) => ({ release: `4.1-${n}` }))
  await putKernels(store, releases)
  return store
}

const OBJECTS = 10

/** A connection that requests all kernels for many copies of an object, and does not read the response. */
async function askAll(url: string): Promise<ReturnType<typeof connect>> {
  const { port } = new URL(url)
  const socket = connect(Number(port), '127.0.0.1').pause()
  const file = 'content-disposition: form-data; name="object"; filename="o"'
  const part = [`--x\r\n${file}\r\n\r\n`, task.bytes, '\r\n']
  const form = [...Array.from({ length: OBJECTS }, () => part).flat(), '--x--\r\n']
  const body = Buffer.concat(form.map((piece) => Buffer.from(piece as Uint8Array)))
  const type = 'content-type: multipart/form-data; boundary=x'
  socket.write(
    `POST /v1/check HTTP/1.1\r\nhost: x\r\n${type}\r\ncontent-length: ${body.length}\r\n\r\n`,
  )
  socket.write(body)
  return socket
}

t.test('a slow reader pauses the work, and a client that disconnects ends it', async (t) => {
  const KERNELS = 1000
  const store = await many(KERNELS)
  const testService = await startTestService(t, () => [], { store, settings: { bulkRequests: 1 } })
  const found = async () =>
    Number(
      /btfmill_result_cache_events_total\{result="found"\} (\d+)/.exec(
        (await ask(`${testService.url}/metrics`)).bytes.toString(),
      )?.[1],
    )
  const socket = await askAll(testService.url)
  let seen = -1
  for (let now = await found(); now !== seen || now === 0; now = await found()) {
    seen = now
    await sleep(300)
  }
  t.ok(seen < KERNELS * (OBJECTS - 1), `${seen} of ${KERNELS * OBJECTS} done, and then no more`)
  const busy = await post('/v1/check', [task], { url: testService.url })
  t.match(JSON.parse(busy.bytes.toString()), { status: 503, code: 'busy' })
  socket.destroy()
  await once(socket, 'close')
  const path = '/v1/check?release=4.1-1'
  while ((await post(path, [task], { url: testService.url })).status === 503) await sleep(20)
  t.ok((await found()) < seen + 10 * OBJECTS)
})

t.test('a client that disconnects does not abort the work that others wait for', async (t) => {
  const store = await many(1)
  const testService = await startTestService(t, () => [], { store })
  const reading = slowly(store)
  const socket = await askAll(testService.url)
  while (reading.counts.started === 0) await sleep(5)
  const other = post('/v1/check', [task], { url: testService.url })
  await sleep(100)
  socket.destroy()
  await sleep(100)
  reading.go()
  t.match(linesOf((await other).bytes), [{ loads: 'yes' }])
  t.equal(reading.counts.started, 1)
})

t.test('a store that fails midway closes the connection', async (t) => {
  const store = await many(3)
  await putKernels(store, [{ release: '9', btf: 'i686' }])
  const { url } = await startTestService(t, () => [], { store })
  const get = store.get.bind(store)
  const fails = blobKey(sha256Of(rawOf('i686')))
  store.get = async (key, range) => {
    if (key === fails) throw new Error('the disk is on fire')
    return await get(key, range)
  }
  await t.rejects(post('/v1/check', [task], { url }))
  t.equal((await post('/v1/check?release=4*', [task], { url })).status, 200, 'others go on')
  await store.put(fails, Buffer.from('rotten'))
  store.get = get
  const damaged = linesOf((await post('/v1/check', [task], { url })).bytes)
  t.match(damaged.at(-1), { kernel: /9$/, error: { code: 'digest_mismatch' } })
  await store.delete(fails)
  const lost = linesOf((await post('/v1/check?release=9', [exists], { url })).bytes)
  t.match(lost, [{ error: { code: 'not_found' } }])
})

/** Asserts that other requests are answered while these run. */
async function meanwhile(t: Test, url: string, requests: Promise<unknown>[]): Promise<void> {
  let done = false
  const all = Promise.all(requests).finally(() => {
    done = true
  })
  let answered = 0
  while (!done) {
    const { status } = await ask(`${url}/v1/btf/sha256/${X86}`)
    if (status === 200) answered++
    else t.fail(`${status}`)
    await sleep(20)
  }
  await all
  t.ok(answered > 3, `${answered} answered meanwhile`)
}

t.test('a too complex object is refused while other requests are answered', async (t) => {
  const heavy = { name: 'heavy', bytes: heavyObject(t.testdir({})) }
  const store = await many(1)
  await putKernels(store, [{ release: '5', btf: 'i686' }])
  const { url } = await startTestService(t, () => [], { store, settings: { taskTime: 6 } })
  const surveyed = post('/v1/check', [heavy, task], { url })
  const refused = ['check', 'minimize'].map((route) =>
    post(`/v1/${route}?digest=${X86}`, [heavy], { url }),
  )
  await meanwhile(t, url, [surveyed, ...refused])
  for (const { status, bytes } of await Promise.all(refused)) {
    t.equal(status, 422)
    t.match(JSON.parse(bytes.toString()), { code: 'too_complex', detail: /more than (6 s|256 MB)/ })
  }
  t.match(linesOf((await surveyed).bytes), [
    { object: 'heavy', error: { code: 'too_complex' } },
    { object: 'task.el.o', loads: 'yes' },
    { object: 'heavy', error: { code: 'too_complex' } },
    { object: 'task.el.o', loads: 'yes' },
  ])
  t.equal((await post(`/v1/check?digest=${X86}`, [task], { url })).status, 200)
})

t.test('a key that was too complex once is not tried again, other keys are', async (t) => {
  const attempt = untilTooComplex()
  const tried: string[] = []
  const trying = (what: string) =>
    attempt(what, async () => {
      tried.push(what)
      if (what === 'heavy') throw new ServiceError('too_complex', 'too much')
      throw new BtfError('cycle', 'of this kernel')
    })
  for (const what of ['heavy', 'light', 'heavy', 'light'])
    t.match(await trying(what), /too_complex|cycle/)
  t.same(tried, ['heavy', 'light', 'light'])
  const ours = new TypeError('a defect')
  await t.rejects(
    attempt('light', async () => {
      throw ours
    }),
    ours,
  )
})

t.test(
  'an object that needs too much memory is refused while other requests are answered',
  async (t) => {
    const heavy = { name: 'heavy', bytes: heavyObject(t.testdir({})) }
    const settings = { taskMemory: 64 * 1024 * 1024 }
    const { url } = await startTestService(t, () => [], { store: await many(1), settings })
    const refused = [0, 1].map(() => post(`/v1/check?digest=${X86}`, [heavy], { url }))
    await meanwhile(t, url, refused)
    for (const { bytes } of await Promise.all(refused))
      t.match(JSON.parse(bytes.toString()), { code: 'too_complex', detail: /64 MB/ })
    t.equal((await post(`/v1/check?digest=${X86}`, [task], { url })).status, 200)
  },
)
