// Kills a service 30 times at random moments under load. No miss that got a response is lost. Uploads get the right
// response, or none and then the right one from the next service. A kernel that was announced as pending is there in the
// end. The moments follow from a seed that each run prints.

import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { request } from 'undici'
import { minimizeBtf, openObject, parseBtf } from '../../bpf/index.ts'
import { openStore, putRecord, verifyStore } from '../../storage/index.ts'
import { Random } from '../fuzz/random.ts'
import { makeRepository } from '../helpers/apt-repository.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { makePackage } from '../helpers/package.ts'
import { seedOf } from '../helpers/seed.ts'
import { serve } from '../helpers/serve-process.ts'
import { makeSigner } from '../helpers/signer.ts'
import { startServer as startMirror } from '../helpers/test-server.ts'
import { btfOf, recordOf } from '../helpers/test-service.ts'
import { makeVmlinux } from '../helpers/vmlinux.ts'

const KILLS = 30
/** Longest life of a service after it is ready, in milliseconds. */
const LIFE = 2000
const KERNELS = 40
/** Kernels that the mirror offers. */
const OFFERED = 3
const MISSED = 7

const signer = makeSigner(t)
const directory = t.testdir({})
const random = new Random(seedOf(t))

/** Starts a mirror. Returns the flags for a service that generates its kernels. */
async function startOffers(): Promise<{ flags: string[]; releases: string[] }> {
  const releases = Array.from({ length: OFFERED }, (_, n) => `6.1.0-${n}-offered`)
  const packages = releases.map((release, n) => {
    const image = join(directory, 'vmlinux')
    makeVmlinux(image, { release, defines: { STACK: 256 + n } })
    return makePackage(directory, image, { release })
  })
  const { source } = makeRepository(directory, { packages, signer })
  const mirror = await startMirror(t, ({ url }, response) => {
    try {
      response.end(readFileSync(join(directory, decodeURIComponent(url!))))
    } catch {
      response.writeHead(404).end()
    }
  })
  const sources = join(directory, 'sources.json')
  writeFileSync(sources, JSON.stringify([{ ...source, id: 'debian' }]))
  const flags = ['--generate', 'on-miss', '--mirror', `${mirror.url}/debian`, '--sources', sources]
  return { flags, releases }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

const raw = readFileSync(littleKernels().get('x86_64')!)
const object = readFileSync(coreObjects('el').get('task')!)
const least = Buffer.from(minimizeBtf(parseBtf(raw), [openObject(object)]))
const HEAD = '--x\r\ncontent-disposition: form-data; name="object"; filename="o"\r\n\r\n'
const form = Buffer.concat([Buffer.from(HEAD), object, Buffer.from('\r\n--x--\r\n')])

t.test('a service killed under load loses no miss and no promised kernel', async (t) => {
  const { flags, releases } = await startOffers()
  const url = `file:${join(directory, 'store')}`
  const store = await openStore(url)
  const btf = await btfOf(store, raw)
  for (let n = 0; n < KERNELS; n++)
    await putRecord(store, recordOf({ release: `there-${n}` }, { btf }))
  const address = `127.0.0.1:${await freePort()}`
  const base = `http://${address}/v1`
  const start = () => serve(t, ['--store', url, '--listen', address, ...flags])

  let stopping = false
  t.teardown(() => {
    stopping = true
  })
  const count = { misses: 0, minimized: 0, checked: 0, promised: 0, cut: 0 }
  /** Returns a complete response, or undefined if the service was killed meanwhile. */
  const ask = async (path: string, options: Parameters<typeof request>[1] = {}) => {
    try {
      const { statusCode, body } = await request(`${base}${path}`, options)
      return { status: statusCode, bytes: Buffer.from(await body.arrayBuffer()) }
    } catch {
      count.cut++
      await sleep(20)
      return undefined
    }
  }
  const repeat = async (work: (n: number) => Promise<void>) => {
    for (let n = 0; !stopping; n++) await work(n)
  }
  const send = async (path: string) => {
    const headers = { 'content-type': 'multipart/form-data; boundary=x' }
    while (!stopping) {
      const answer = await ask(path, { method: 'POST', headers, body: form })
      if (answer?.status === 503)
        await sleep(20) // the catalog is not loaded yet
      else if (answer) return answer
    }
    return undefined
  }

  const asked = new Map<string, { most: number; least: number }>()
  const missing = (client: number) =>
    repeat(async (n) => {
      const release = `missed-${(client + n) % MISSED}`
      const counted = asked.get(release) ?? { most: 0, least: 0 }
      asked.set(release, counted)
      counted.most++
      // no source offers this distribution
      const answer = await ask(`/btf/nobody/1/x86_64/${release}`)
      if (answer?.status !== 404) return
      counted.least++
      count.misses++
    })
  const minimizing = () =>
    repeat(async () => {
      const answer = await send('/minimize?kernel=debian/12/x86_64/there-1')
      if (!answer) return
      if (!answer.bytes.equals(least)) t.fail(`minimize: ${answer.status}`)
      count.minimized++
    })
  const checking = () =>
    repeat(async () => {
      const answer = await send('/check?release=there-*')
      if (!answer) return
      const lines = answer.bytes.toString().trimEnd().split('\n')
      const right = lines.every((line) => JSON.parse(line).loads === 'yes')
      if (lines.length !== KERNELS || !right) t.fail(`check: ${answer.status}`)
      count.checked++
    })
  const waiting = async (release: string) => {
    while (!stopping) {
      const answer = await ask(`/btf/debian/12/i686/${release}`)
      if (answer?.status === 200) return answer.bytes
      if (answer?.status === 202) count.promised++
      else if (answer && answer.status !== 503) t.fail(`${release}: ${answer.bytes}`)
      await sleep(100)
    }
    return undefined
  }
  const promised = releases.map((release) => waiting(release))
  const clients = [
    ...Array.from({ length: 8 }, (_, client) => missing(client)),
    ...[minimizing(), minimizing(), checking(), checking()],
  ]

  for (let kill = 0; kill < KILLS; kill++) {
    const service = await start()
    await sleep(random.below(LIFE))
    await service.kill()
  }
  await start()
  const made = await Promise.all(promised)
  stopping = true
  await Promise.all(clients)
  t.comment(JSON.stringify(count))
  for (const many of Object.values(count)) t.ok(many > 0, 'each kind of request was answered')

  const { body } = await request(`${base}/misses?limit=1000&distro=nobody`)
  const { misses } = (await body.json()) as {
    misses: { kernel: { release: string }; count: number }[]
  }
  t.equal(misses.length, MISSED)
  for (const { kernel, count } of misses) {
    const { least, most } = asked.get(kernel.release)!
    t.ok(least <= count && count <= most, `${kernel.release}: ${least} ≤ ${count} ≤ ${most}`)
  }
  for (const bytes of made) t.ok(parseBtf(bytes!).typeCount > 0)
  // a service killed before it writes the snapshot leaves it to the next one
  const findings = await Array.fromAsync(verifyStore(store))
  t.same(
    findings.filter(({ behind }) => !behind),
    [],
    'the store verifies',
  )
})
