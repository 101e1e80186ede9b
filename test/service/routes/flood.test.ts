// Objects with answers that are far larger than they are: what a request may say is bounded, and a slow reader costs little.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Ajv2020 } from 'ajv/dist/2020.js'
import t, { type Test } from 'tap'
import { Agent, request, type FormData as UndiciFormData } from 'undici'
import { decodeManifest } from '../../../service/bundle/manifest.ts'
import type { ObjectFile } from '../../../service/bundle/member.ts'
import { openStore, sha256Of } from '../../../storage/index.ts'
import { bundlesOfKernels, formOf, objectFile, putKernels, rawOf } from '../../helpers/bundles.ts'
import { storeOf } from '../../helpers/command.ts'
import { floodObject } from '../../helpers/flood-object.ts'
import { serve } from '../../helpers/serve-process.ts'
import { ask, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

const MIB = 1024 * 1024
const KERNELS = 6
const OBJECTS = 32
/** Half seconds without progress after which nothing is to come. */
const SETTLED = 4
const X86 = sha256Of(rawOf('x86_64'))
const task = objectFile('task')

/** Objects whose answers have 1800 characters for each of their relocations, up to the 4 MiB of a result. */
const flood = (relocations: number, count = OBJECTS): ObjectFile[] =>
  Array.from({ length: count }, (_, n) => ({
    name: `flood-${n}.o`,
    bytes: floodObject(400, relocations, `${n}`),
  }))

const kernels = Array.from({ length: KERNELS }, (_, n) => ({
  machine: 'x86_64',
  release: `4.1-${n}`,
}))

async function post(url: string, path: string, objects: readonly ObjectFile[]) {
  const body = formOf(...objects) as unknown as UndiciFormData
  const answer = await request(`${url}${path}`, { method: 'POST', body })
  const text = await answer.body.text()
  return { status: answer.statusCode, text, lines: text.trimEnd().split('\n') }
}

/** Objects as a multipart form. */
async function encode(objects: readonly ObjectFile[]) {
  const encoded = new Response(formOf(...objects))
  const type = encoded.headers.get('content-type')!
  return { headers: { 'content-type': type }, body: Buffer.from(await encoded.arrayBuffer()) }
}

/** Sends objects to /v1/check, for all kernels by default, and reads nothing. */
async function sendAndWait(
  url: string,
  objects: readonly ObjectFile[],
  { path = '/v1/check', from = '192.0.2.1' } = {},
): Promise<Socket> {
  const { headers, body } = await encode(objects)
  const socket = connect(Number(new URL(url).port), '127.0.0.1').pause()
  await once(socket, 'connect')
  const head = { host: 'x', 'x-forwarded-for': from, ...headers, 'content-length': body.length }
  const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`POST ${path} HTTP/1.1\r\n${lines.join('')}\r\n`)
  socket.write(body)
  return socket
}

/** Connections that end with the test: undici opens new ones for those that a service closed early. */
function agentOf(t: Test): Agent {
  const agent = new Agent()
  t.teardown(() => agent.destroy())
  return agent
}

/** The most memory that a process had so far, in bytes. */
const peakOf = (pid: number): number =>
  Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024

t.test(
  'four slow readers of huge answers cost a bounded amount of memory, and delay nobody',
  async (t) => {
    t.setTimeout(180_000)
    const location = await storeOf(join(t.testdir({}), 'store'), kernels)
    // as docker/Dockerfile sets it
    const env = { ...process.env, MALLOC_MMAP_THRESHOLD_: '1048576' }
    const { url, pid } = await serve(t, ['--store', location, '--task-memory', '96M'], { env })
    const made = async () =>
      Number(
        /btfmill_result_cache_events_total\{result="made"\} (\d+)/.exec(
          (await ask(`${url}/metrics`)).bytes.toString(),
        )?.[1],
      )
    t.equal((await post(url, `/v1/check?digest=${X86}`, [task])).status, 200)
    const sockets = await Promise.all(
      Array.from({ length: 4 }, () => sendAndWait(url, flood(2000))),
    )
    for (let [seen, same] = [0, 0]; seen < 3 || same < SETTLED; ) {
      const { status } = await post(url, `/v1/check?digest=${X86}`, [task])
      t.equal(status, 200, 'others are answered')
      await sleep(500)
      const now = await made()
      same = now === seen ? same + 1 : 0
      seen = now
    }
    const peak = peakOf(pid) / MIB
    t.comment(`${Math.round(peak)} MiB`)
    t.ok(peak < 1000, `${Math.round(peak)} MiB`)
    for (const socket of sockets) socket.destroy()
  },
)

t.test('a long answer is cut at its limit, and its last line tells what is missing', async (t) => {
  const store = await openStore('memory:')
  await putKernels(store, kernels)
  const settings = { answerLimit: 64 * 1024 }
  const { url } = await startTestService(t, () => [], { store, settings })
  const { json } = await ask(`${url}/openapi.json`)
  // biome-ignore lint/suspicious/noExplicitAny: a document of somebody's
  const { paths } = json as any
  for (const [route, objects] of [
    ['check', flood(16, 2)],
    ['minimize', [task]],
  ] as const) {
    const whole = route === 'minimize' // its lines are short
    const { lines, text } = await post(url, `/v1/${route}`, objects)
    t.ok(text.length <= settings.answerLimit + 1024, route)
    const last = JSON.parse(lines.at(-1)!)
    if (whole) t.equal(lines.length, KERNELS)
    else {
      const missing = KERNELS * 2 - lines.length + 1
      t.ok(lines.length > 1)
      const message = `the answer is cut at its limit of 64K: ${missing} results are missing; ask for fewer kernels or objects at once`
      t.same(last, { error: { code: 'too_large', message }, missing })
    }
    const { content } = paths[`/v1/${route}`].post.responses[200]
    const { contentSchema } = content['application/x-ndjson'].schema
    const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(contentSchema)
    for (const line of lines) t.ok(validate(JSON.parse(line)), JSON.stringify(validate.errors))
  }
})

t.test(
  'an answer for one kernel has a limit, and a client has a share of all answers',
  async (t) => {
    const store = await openStore('memory:')
    await putKernels(store, kernels.slice(0, 1))
    const { url } = await startTestService(t, () => [], {
      store,
      settings: { answerMemory: 16 * MIB },
    })
    const path = `/v1/check?digest=${X86}`
    const { status, lines, text } = await post(url, path, flood(2000, 8))
    t.equal(status, 200)
    t.ok(text.length < 16 * MIB)
    t.match(JSON.parse(lines.at(-1)!), {
      error: { code: 'too_large' },
      missing: 8 - lines.length + 1,
    })
    const one = await post(url, path, flood(3000, 1))
    t.match(JSON.parse(one.text), { object: 'flood-0.o', error: { code: 'too_large' } })

    const unread = await sendAndWait(url, flood(2000, 8), { path })
    const again = async () => await post(url, path, flood(2000, 8))
    const refused = await until(again, (answer) => answer.status !== 200)
    t.equal(refused.status, 503)
    t.match(JSON.parse(refused.text), { code: 'busy' })
    unread.destroy()
    t.equal((await until(again, (answer) => answer.status !== 503)).status, 200)
  },
)

t.test('a client that asks for very much does not keep others waiting', async (t) => {
  const store = await openStore('memory:')
  await putKernels(store, kernels.slice(0, 1))
  const settings = { threads: 1, trustProxy: ['127.0.0.1'] }
  const { url } = await startTestService(t, () => [], { store, settings })
  const dispatcher = agentOf(t)
  const check = async (from: string, object: ObjectFile) => {
    const { body, headers: type } = await encode([object])
    const headers = { 'x-forwarded-for': from, ...type }
    const answer = await request(`${url}/v1/check?digest=${X86}`, {
      method: 'POST',
      body,
      headers,
      dispatcher,
    })
    await answer.body.dump()
    return answer.statusCode
  }
  let answered = 0
  const many = flood(200, 150).map((object) => check('192.0.2.1', object).finally(() => answered++))
  await until(
    async () => answered,
    (count) => count > 0,
  )
  const before = answered
  t.equal(await check('192.0.2.2', task), 200)
  t.ok(answered - before < 50, `${answered - before} of 150 were answered first`)
  const statuses = new Set(await Promise.all(many))
  statuses.delete(503) // beyond its share of the queue
  t.same([...statuses], [200])
})

t.test(
  'one client can have half of what the service does for many kernels at a time',
  async (t) => {
    const store = await openStore('memory:')
    await putKernels(store, kernels)
    const settings = { bulkRequests: 4, bundles: 2, trustProxy: ['127.0.0.1'] }
    const { url } = await startTestService(t, () => [], { store, settings })
    const dispatcher = agentOf(t)
    const statusOf = async (from: string, path: string) => {
      const { body, headers: type } = await encode(flood(2000, 8))
      const headers = { 'x-forwarded-for': from, ...type }
      const answer = await request(`${url}${path}`, { method: 'POST', body, headers, dispatcher })
      answer.body.on('error', () => {}).destroy()
      return answer.statusCode
    }
    for (let n = 0; n < 2; n++) {
      const socket = await sendAndWait(url, flood(2000, 8))
      t.teardown(() => socket.destroy())
    }
    await until(
      () => statusOf('192.0.2.1', '/v1/minimize'),
      (status) => status === 503,
    )
    const { body, headers: type } = await encode([task])
    const headers = { 'x-forwarded-for': '192.0.2.1' }
    const dropped = await request(`${url}/check`, {
      ...{ method: 'POST', body, headers: { ...headers, ...type }, dispatcher },
    })
    await dropped.body.dump()
    const page = await ask(`${url}${dropped.headers.location}`, headers)
    t.match(page, { status: 200, headers: { refresh: '2' } }, 'a page waits for its turn')
    t.match(page.bytes.toString(), /It waits for its turn/)
    t.equal(await statusOf('192.0.2.2', '/v1/minimize'), 200)
    t.equal(await statusOf('192.0.2.2', '/v1/check'), 200)
  },
)

t.test(
  'the page of a hostile object costs a bounded amount of memory, and lists a bounded amount',
  async (t) => {
    t.setTimeout(180_000)
    const many = Array.from({ length: 100 }, (_, n) => ({
      machine: 'x86_64',
      release: `4.1-${n}`,
    }))
    const location = await storeOf(join(t.testdir({}), 'store'), many)
    const env = { ...process.env, MALLOC_MMAP_THRESHOLD_: '1048576' }
    const { url, pid, kill } = await serve(t, ['--store', location, '--task-memory', '96M'], {
      env,
    })
    try {
      const lengths = await Promise.all(
        flood(2000, 6).map(async (object) => {
          const { headers } = await request(`${url}/check`, {
            method: 'POST',
            body: formOf(object) as unknown as UndiciFormData,
          })
          const path = `${url}${headers.location}`
          const page = await until(
            () => ask(path),
            ({ headers }) => headers.refresh === undefined,
          )
          t.equal(page.status, 200)
          return page.bytes.length
        }),
      )
      t.ok(Math.max(...lengths) < MIB, `${lengths}`)
      const peak = peakOf(pid) / MIB
      t.ok(peak < 1000, `${Math.round(peak)} MiB`)
    } finally {
      await kill() // before its directory is removed
    }
  },
)

t.test('a bundle keeps a bounded amount of findings, and counts the others', async (t) => {
  const bundles = await bundlesOfKernels(
    Array.from({ length: 400 }, (_, n) => ({ release: `4.1-${n}` })),
  )
  const { findings, findingsOmitted, leftOut, manifest } = await bundles.pack({
    objects: flood(1),
  })
  t.equal(findings.length + findingsOmitted, 400 * OBJECTS)
  t.ok(findings.length > 1000 && findingsOmitted > 1000)
  t.equal(leftOut, 400)
  t.ok(manifest.length < 8 * MIB, `${manifest.length}`)
  t.equal(decodeManifest(manifest).findingsOmitted, findingsOmitted)
})
