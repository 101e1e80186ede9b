/*
 * Jobs in a real Redis: queued once for any number of clients, taken by workers that are killed or asked to end, with
 * invalid data in the queue, and with a Redis that is restarted.
 */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Queue as RedisJobs } from 'bullmq'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { generate, generateFiles, OnDemandGenerator, work } from '../../../generator/index.ts'
import { findPahole } from '../../../generator/jobs/pahole.ts'
import { PREFIX, queueNameOf } from '../../../generator/jobs/redis.ts'
import { Catalog } from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { startRedis } from '../../helpers/redis.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'
import { ask } from '../../helpers/test-service.ts'
import { makeVmlinux, manyStructs, RELEASE } from '../../helpers/vmlinux.ts'
import { ready, until } from '../../helpers/wait-until.ts'
import { makeDeployment, type Process, start, summaryOf } from '../../helpers/workers.ts'

const redis = await startRedis(t)
const { fingerprint } = await findPahole()
const queue = ['--queue', redis.url]
/** Flags of a worker that counts as lost after a second. */
const shortLease = [...queue, '--lease', '1']

/** Direct access to the jobs in Redis, as an attacker has it. */
function openJobs(t: Test): RedisJobs {
  const connection = new Redis(redis.url, { maxRetriesPerRequest: null })
  connection.on('error', () => {})
  const jobs = new RedisJobs(queueNameOf(fingerprint), { connection, prefix: PREFIX })
  t.teardown(() => connection.disconnect())
  return jobs
}

const states = async (jobs: RedisJobs) => {
  const { waiting, active, completed, failed } = await jobs.getJobCounts()
  return { waiting, active, completed, failed }
}

const ending = ({ child }: Process, signal: NodeJS.Signals = 'SIGINT') => child.kill(signal)

t.beforeEach(async () => {
  const client = new Redis(redis.url)
  await client.flushall()
  client.disconnect()
})

t.test(
  'a worker runs the jobs that a run queues, and the run reports their events and results',
  async (t) => {
    const deployment = await makeDeployment(t, 3)
    const worker = deployment.worker(...queue)
    const run = deployment.generate(...queue)
    t.match(await summaryOf(run), { published: 3, failed: {} })
    const events = (name: string) => run.lines.filter(({ event }) => event === name)
    t.equal(events('started').length, 3)
    t.equal(events('published').length, 3)
    t.ok(events('stage').length >= 3)
    t.equal((await deployment.records()).length, 3)
    await deployment.verify()

    t.match(await summaryOf(deployment.generate(...queue)), { published: 0, skipped: 3 })
    ending(worker)
    t.match(await summaryOf(worker), { published: 3, failed: 0, left: 0 })
    t.same(deployment.asked(), [1, 1, 1])
    const catalog = await Catalog.openSnapshot(deployment.store)
    t.equal(catalog.size, 3)
  },
)

t.test('two runs that want the same packages share the jobs', async (t) => {
  const deployment = await makeDeployment(t, 4)
  const runs = [deployment.generate(...queue), deployment.generate(...queue)]
  for (const run of runs) await run.line(({ event }) => event === 'planned')
  deployment.worker(...queue)
  for (const run of runs) t.match(await summaryOf(run), { published: 4 })
  t.same(deployment.asked(), [1, 1, 1, 1])
})

t.test(
  'a detached run only queues its jobs, and the worker publishes the results and the catalog',
  async (t) => {
    const deployment = await makeDeployment(t, 2)
    t.match(await summaryOf(deployment.generate(...queue, '--detach')), { published: 0, queued: 2 })
    t.match(await states(openJobs(t)), { waiting: 2 })
    const worker = deployment.worker(...queue, '--jobs', '2')
    for (const release of ['6.1.0-0-test', '6.1.0-1-test'])
      await worker.line((line) => line.event === 'published' && line.kernel.release === release)
    ending(worker)
    await summaryOf(worker)
    t.equal((await deployment.records()).length, 2)
    t.equal(
      (await Catalog.openSnapshot(deployment.store)).size,
      2,
      'the worker publishes the catalog',
    )
  },
)

t.test('the jobs of a killed worker are run by another one', async (t) => {
  const deployment = await makeDeployment(t, 3, manyStructs(50_000))
  const run = deployment.generate(...queue)
  const victim = deployment.worker(...shortLease)
  await victim.line(({ event }) => event === 'stage')
  ending(victim, 'SIGKILL')
  const successor = deployment.worker(...shortLease)
  t.match(await summaryOf(run), { published: 3, failed: {} })
  ending(successor)
  t.match(await summaryOf(successor), { failed: 0 })
  t.equal((await deployment.records()).length, 3)
  await deployment.verify()
})

t.test(
  'a worker finishes its jobs on SIGINT, and returns them to the queue on SIGTERM',
  async (t) => {
    const deployment = await makeDeployment(t, 6, manyStructs(50_000))
    const run = deployment.generate(...queue)
    const [patient, hurried] = [deployment.worker(...queue), deployment.worker(...queue)]
    await Promise.all([patient, hurried].map((one) => one.line(({ event }) => event === 'stage')))
    ending(patient)
    ending(hurried, 'SIGTERM')
    // how many jobs each of them ran depends on timing
    const summaries = [await summaryOf(patient), await summaryOf(hurried)]
    t.match(summaries, [{ left: 0 }, { left: 1 }])
    const [first, second] = summaries as unknown as { published: number }[]
    t.ok(first!.published >= 1, 'it finished its jobs')
    t.match(await states(openJobs(t)), {
      waiting: 6 - first!.published - second!.published,
      active: 0,
    })
    deployment.worker(...queue)
    t.match(await summaryOf(run), { published: 6, failed: {} })
  },
)

t.test('a run that is interrupted removes its queued jobs that no worker has taken', async (t) => {
  const deployment = await makeDeployment(t, 4, manyStructs(50_000))
  const run = deployment.generate(...queue)
  const worker = deployment.worker(...queue)
  await run.line(({ event }) => event === 'stage')
  ending(run)
  const summary = await summaryOf(run)
  t.match(summary, { failed: {} })
  const { published, left } = summary as unknown as { published: number; left: number }
  t.ok(published >= 1 && left >= 1, `${published} published, ${left} left`)
  t.equal(published + left, 4)
  t.equal((await run.ended).status, 1)
  ending(worker)
  t.match(await summaryOf(worker), { published })
  t.match(await states(openJobs(t)), { waiting: 0, active: 0 })
})

t.test('runs and workers survive a restart of Redis, and report it', async (t) => {
  const deployment = await makeDeployment(t, 3, manyStructs(50_000))
  const run = deployment.generate(...queue)
  const worker = deployment.worker(...shortLease)
  await run.line(({ event }) => event === 'stage')
  await redis.stop()
  const isQueueEvent = (state: string) => (line: { event: string; state?: string }) =>
    line.event === 'queue' && line.state === state
  await Promise.all([run.line(isQueueEvent('lost')), worker.line(isQueueEvent('lost'))])
  await redis.start()
  await Promise.all([run.line(isQueueEvent('back')), worker.line(isQueueEvent('back'))])
  t.match(await summaryOf(run), { published: 3, failed: {} })
  ending(worker)
  t.equal((await worker.ended).status, 0)
  t.equal((await deployment.records()).length, 3)
})

t.test('jobs that Redis has lost are queued again by the run that waits for them', async (t) => {
  const deployment = await makeDeployment(t, 2)
  const run = deployment.generate(...queue)
  await run.line(({ event }) => event === 'planned')
  await run.line((line) => line.event === 'queue' && line.state === 'unattended')
  await openJobs(t).obliterate({ force: true })
  deployment.worker(...queue)
  t.match(await summaryOf(run), { published: 2, failed: {} })
})

t.test(
  'an unreachable or invalid queue URL is an error that does not show the password',
  async (t) => {
    const url = 'redis://user:secret@127.0.0.1:1'
    const deployment = await makeDeployment(t, 1)
    for (const process of [
      deployment.generate('--queue', url),
      deployment.worker('--queue', url),
    ]) {
      const { status, stderr } = await process.ended
      t.equal(status, 1)
      t.match(stderr, /queue_failed: redis:\/\/127\.0\.0\.1:1: .*ECONNREFUSED/)
      t.notMatch(stderr, /secret/)
    }
    for (const wrong of ['http://127.0.0.1', 'nonsense', 'redis://']) {
      const { status, stderr } = await deployment.worker('--queue', wrong).ended
      t.equal(status, 1)
      t.match(stderr, /queue_failed: invalid queue URL: expected redis:\/\/HOST:PORT/, wrong)
    }
  },
)

t.test('a local file cannot be queued for workers', async (t) => {
  const file = join(t.testdir({ vmlinux: '' }), 'vmlinux')
  const { status, stderr } = await start(t, ['generate', ...queue, file]).ended
  t.equal(status, 1)
  t.match(stderr, /queue_failed: workers need an http or https URL, not vmlinux/)
  t.match(await states(openJobs(t)), { waiting: 0 })
})

t.test('a worker rejects invalid jobs in the queue, and runs the valid one', async (t) => {
  const deployment = await makeDeployment(t, 1)
  const jobs = openJobs(t)
  await deployment.generate(...queue, '--detach').ended
  const [good] = await jobs.getWaiting()
  const { data } = good!
  const bad = [
    ...[null, 7, [], {}, { ...data, more: 1 }, { ...data, vmlinux: Array(1000).fill('*') }],
    { ...data, package: { ...data.package, url: 'file:///etc/shadow' } },
    { ...data, package: { ...data.package, url: '/etc/shadow' } },
    { ...data, kernel: { ...data.kernel, release: 'x'.repeat(10_000) } },
    { ...data, kernel: { ...data.kernel, release: '../../../etc' } },
  ]
  for (const [i, of] of bad.entries())
    await jobs.add('package', of, { jobId: `bad-${i}`, lifo: true })
  await jobs.add('package', data, { jobId: 'under-another-id', lifo: true })
  const worker = deployment.worker(...queue)
  await worker.line(({ event }) => event === 'published')
  ending(worker)
  t.match(await summaryOf(worker), { published: 1, failed: 0 })
  t.match(await states(jobs), { failed: bad.length + 1, waiting: 0 })
  t.equal((await deployment.records()).length, 1)
})

t.test('a run rejects what a worker reports unless the store confirms it', async (t) => {
  const { store } = await makeRunDirectory(t)
  const jobs = openJobs(t)
  const claims: [unknown, RegExp][] = [
    [
      { state: 'published', key: 'kernels/a/b/c/d/e.json', read: 1, seconds: 1 },
      /not in this store/,
    ],
    [{ state: 'published', key: '../../x', read: 1, seconds: 1 }, /not in this store/],
    [{ state: 'great' }, /invalid result/],
    [null, /invalid result/],
  ]
  const { Worker } = await import('bullmq')
  for (const [claim, message] of claims) {
    const connection = new Redis(redis.url, { maxRetriesPerRequest: null })
    const worker = new Worker(
      jobs.name,
      async (job) => {
        await job.updateProgress({ event: 'stage', stage: 'x', kernel: 7 })
        await job.updateProgress('nonsense')
        return claim
      },
      { connection, prefix: PREFIX },
    )
    const told: string[] = []
    const summary = await generateFiles(
      ['http://127.0.0.1:1/vmlinux'],
      {},
      { store, queue: redis.url, onEvent: (event) => void told.push(event.event) },
    )
    t.match(summary, { published: 0, failed: { queue_failed: 1 } })
    t.same(told, ['failed'])
    const [entry] = (await Catalog.open(store)).list()
    t.match(entry?.record.failure, { code: 'queue_failed', message })
    await worker.close()
    connection.disconnect()
  }
})

t.test('a job that loses one worker after another fails with worker_lost', async (t) => {
  const deployment = await makeDeployment(t, 1)
  const run = deployment.generate(...queue)
  await run.line(({ event }) => event === 'planned')
  const jobs = openJobs(t)
  const { Worker } = await import('bullmq')
  // a worker that takes the job and never answers, again and again
  const connection = new Redis(redis.url, { maxRetriesPerRequest: null })
  const lost = new Worker(jobs.name, () => new Promise(() => {}), {
    connection,
    prefix: PREFIX,
    concurrency: 100,
    skipLockRenewal: true,
    lockDuration: 50,
    stalledInterval: 60,
    maxStalledCount: 2,
  })
  lost.on('error', () => {})
  t.match(await summaryOf(run), { failed: { worker_lost: 1 } })
  t.match(await deployment.records(), [{ failure: { code: 'worker_lost', retryAt: String } }])
  await lost.close(true)
  connection.disconnect()
})

t.test('two generators on demand that share a queue generate a kernel once', async (t) => {
  const { store, repository, directory, asked, ...deployment } = await makeDeployment(t, 1)
  const cache = join(directory, 'cache')
  const open = () => OnDemandGenerator.open({ store, ...repository, cache, queue: redis.url })
  const generators = await Promise.all([open(), open()])
  const kernel = { distro: 'debian', version: '12', arch: 'i686', release: '6.1.0-0-test' }
  const ids = generators.map((generator) => generator.submit(kernel)!.id)
  t.equal(ids[0], ids[1])
  deployment.worker(...queue)
  for (const generator of generators) t.match(await generator.done(ids[0]!), { state: 'published' })
  t.same(asked(), [1])
  await Promise.all(generators.map((generator) => generator.close()))
})

t.test('a service queues a requested kernel for workers, and serves the result', async (t) => {
  const deployment = await makeDeployment(t, 1)
  const service = deployment.serve(...queue, '--job-memory', '1G')
  const listening = (line: object) => 'msg' in line && /listening at/.test(String(line.msg))
  const { msg } = (await service.line(listening)) as unknown as { msg: string }
  const [url] = /http:\S+/.exec(msg)!
  await ready(url)
  const path = '/v1/btf/debian/12/i686/6.1.0-0-test'
  const statusOf = async () => (await ask(url + path)).status
  t.equal(await statusOf(), 202)
  const worker = deployment.worker(...queue)
  await worker.line(({ event }) => event === 'published')
  await until(statusOf, (status) => status === 200)
  t.same(deployment.asked(), [1])
})

t.test('a worker tries the fallbacks of a job, and the run counts all bytes read', async (t) => {
  const { directory, store, scratch, records } = await makeRunDirectory(t)
  const image = join(directory, 'vmlinux')
  makeVmlinux(image)
  const packages = [
    makePackage(directory, image),
    makePackage(directory, undefined, { name: `linux-headers-${RELEASE}` }),
    makePackage(directory, undefined, { name: `linux-image-${RELEASE}` }),
  ]
  const { source } = makeRepository(directory, { packages, signer: makeSigner(t) })
  const server = await startServer(t, (request, response) => {
    response.end(readFileSync(join(directory, decodeURIComponent(request.url!))))
  })
  const shared = { store, scratch, queue: redis.url, sources: [source] }
  const mirror = `${server.url}/debian`
  const drain = new AbortController()
  const working = work({ ...shared, mirror, drain: drain.signal })
  const run = () => generate({ ...shared, mirror, cache: join(directory, 'cache') })
  const read = packages.reduce((sum, path) => sum + statSync(path).size, 0)
  t.match(await run(), { published: 1, failed: {}, read })
  t.match(await records(), [{ package: { name: `linux-image-${RELEASE}-dbg` }, origin: 'pahole' }])
  t.match(await run(), { published: 0, skipped: 1, read: 0 })
  drain.abort()
  t.match(await working, { published: 1, failed: 0 })
})

t.test('a worker in this process ends when its drain signal aborts', async (t) => {
  const { store, scratch } = await makeRunDirectory(t)
  const drain = new AbortController()
  const working = work({ store, scratch, queue: redis.url, drain: drain.signal })
  drain.abort()
  t.same(await working, { published: 0, failed: 0, left: 0 })
})
