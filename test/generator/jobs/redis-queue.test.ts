/*
 * Jobs by way of a real Redis: put there once however many want them, taken by workers that may be killed, asked to end,
 * or lied to, over a Redis that goes and comes back.
 */
import { join } from 'node:path'
import { Queue as RedisJobs } from 'bullmq'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { generateFiles, OnDemandGenerator, work } from '../../../generator/index.ts'
import { findPahole } from '../../../generator/jobs/pahole.ts'
import { PREFIX, queueNameOf } from '../../../generator/jobs/redis.ts'
import { Catalog } from '../../../storage/index.ts'
import { startRedis } from '../../helpers/redis.ts'
import { makeMill } from '../../helpers/run-directory.ts'
import { ask } from '../../helpers/test-service.ts'
import { manyStructs } from '../../helpers/vmlinux.ts'
import { ready, until } from '../../helpers/wait-until.ts'
import { makeShop, type Process, start, summaryOf } from '../../helpers/workers.ts'

const redis = await startRedis(t)
const { fingerprint } = await findPahole()
const queue = ['--queue', redis.url]
/** Workers are given up after a second. */
const hasty = [...queue, '--lease', '1']

/** The jobs in Redis, as somebody sees them who means no good. */
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

t.test('what one queues another does, and the first tells of it as if it were here', async (t) => {
  const shop = await makeShop(t, 3)
  const worker = shop.worker(...queue)
  const run = shop.generate(...queue)
  t.match(await summaryOf(run), { published: 3, failed: {} })
  const events = (name: string) => run.lines.filter(({ event }) => event === name)
  t.equal(events('started').length, 3)
  t.equal(events('published').length, 3)
  t.ok(events('stage').length >= 3)
  t.equal((await shop.records()).length, 3)
  await shop.verify()

  t.match(await summaryOf(shop.generate(...queue)), { published: 0, skipped: 3 })
  ending(worker)
  t.match(await summaryOf(worker), { published: 3, failed: 0, left: 0 })
  t.same(shop.asked(), [1, 1, 1])
  const catalog = await Catalog.openSnapshot(shop.store)
  t.equal(catalog.size, 3)
})

t.test('two who want the same have it done once', async (t) => {
  const shop = await makeShop(t, 4)
  const runs = [shop.generate(...queue), shop.generate(...queue)]
  for (const run of runs) await run.line(({ event }) => event === 'planned')
  shop.worker(...queue)
  for (const run of runs) t.match(await summaryOf(run), { published: 4 })
  t.same(shop.asked(), [1, 1, 1, 1])
})

t.test('left to workers, with nobody who waits', async (t) => {
  const shop = await makeShop(t, 2)
  t.match(await summaryOf(shop.generate(...queue, '--detach')), { published: 0, queued: 2 })
  t.match(await states(openJobs(t)), { waiting: 2 })
  const worker = shop.worker(...queue, '--jobs', '2')
  for (const release of ['6.1.0-0-test', '6.1.0-1-test'])
    await worker.line((line) => line.event === 'published' && line.kernel.release === release)
  ending(worker)
  await summaryOf(worker)
  t.equal((await shop.records()).length, 2)
  t.equal((await Catalog.openSnapshot(shop.store)).size, 2, 'the worker publishes the catalog')
})

t.test('a worker that is killed loses nothing', async (t) => {
  const shop = await makeShop(t, 3, manyStructs(50_000))
  const run = shop.generate(...queue)
  const victim = shop.worker(...hasty)
  await victim.line(({ event }) => event === 'stage')
  ending(victim, 'SIGKILL')
  const heir = shop.worker(...hasty)
  t.match(await summaryOf(run), { published: 3, failed: {} })
  ending(heir)
  t.match(await summaryOf(heir), { failed: 0 })
  t.equal((await shop.records()).length, 3)
  await shop.verify()
})

t.test('a worker that is to end finishes what it has, or gives it back at once', async (t) => {
  const shop = await makeShop(t, 6, manyStructs(50_000))
  const run = shop.generate(...queue)
  const [patient, hurried] = [shop.worker(...queue), shop.worker(...queue)]
  await Promise.all([patient, hurried].map((one) => one.line(({ event }) => event === 'stage')))
  ending(patient)
  ending(hurried, 'SIGTERM')
  // which of the two was there first, and how much of it, is the machine's affair
  const summaries = [await summaryOf(patient), await summaryOf(hurried)]
  t.match(summaries, [{ left: 0 }, { left: 1 }])
  const [first, second] = summaries as unknown as { published: number }[]
  t.ok(first!.published >= 1, 'it finishes what it has')
  t.match(await states(openJobs(t)), {
    waiting: 6 - first!.published - second!.published,
    active: 0,
  })
  shop.worker(...queue)
  t.match(await summaryOf(run), { published: 6, failed: {} })
})

t.test('who waits and is to end takes back what nobody has begun', async (t) => {
  const shop = await makeShop(t, 4, manyStructs(50_000))
  const run = shop.generate(...queue)
  const worker = shop.worker(...queue)
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

t.test('a Redis that goes and comes back', async (t) => {
  const shop = await makeShop(t, 3, manyStructs(50_000))
  const run = shop.generate(...queue)
  const worker = shop.worker(...hasty)
  await run.line(({ event }) => event === 'stage')
  await redis.stop()
  const lost = (state: string) => (line: { event: string; state?: string }) =>
    line.event === 'queue' && line.state === state
  await Promise.all([run.line(lost('lost')), worker.line(lost('lost'))])
  await redis.start()
  await Promise.all([run.line(lost('back')), worker.line(lost('back'))])
  t.match(await summaryOf(run), { published: 3, failed: {} })
  ending(worker)
  t.equal((await worker.ended).status, 0)
  t.equal((await shop.records()).length, 3)
})

t.test('a Redis that forgets: what is waited for is queued again', async (t) => {
  const shop = await makeShop(t, 2)
  const run = shop.generate(...queue)
  await run.line(({ event }) => event === 'planned')
  await run.line((line) => line.event === 'queue' && line.state === 'unattended')
  await openJobs(t).obliterate({ force: true })
  shop.worker(...queue)
  t.match(await summaryOf(run), { published: 2, failed: {} })
})

t.test('no Redis: it is said, without the password', async (t) => {
  const url = 'redis://user:secret@127.0.0.1:1'
  const shop = await makeShop(t, 1)
  for (const process of [shop.generate('--queue', url), shop.worker('--queue', url)]) {
    const { status, stderr } = await process.ended
    t.equal(status, 1)
    t.match(stderr, /queue_failed: redis:\/\/127\.0\.0\.1:1: .*ECONNREFUSED/)
    t.notMatch(stderr, /secret/)
  }
  for (const wrong of ['http://127.0.0.1', 'nonsense', 'redis://']) {
    const { status, stderr } = await shop.worker('--queue', wrong).ended
    t.equal(status, 1)
    t.match(stderr, /queue_failed: a queue is redis:\/\/HOST:PORT/, wrong)
  }
})

t.test('what only this machine has is no job for workers', async (t) => {
  const { status, stderr } = await start(t, ['generate', ...queue, '/boot/vmlinux']).ended
  t.equal(status, 1)
  t.match(stderr, /queue_failed: workers take packages from servers, not from \/boot\/vmlinux/)
  t.match(await states(openJobs(t)), { waiting: 0 })
})

t.test('what is queued is not believed', async (t) => {
  const shop = await makeShop(t, 1)
  const jobs = openJobs(t)
  await shop.generate(...queue, '--detach').ended
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
  const worker = shop.worker(...queue)
  await worker.line(({ event }) => event === 'published')
  ending(worker)
  t.match(await summaryOf(worker), { published: 1, failed: 0 })
  t.match(await states(jobs), { failed: bad.length + 1, waiting: 0 })
  t.equal((await shop.records()).length, 1)
})

t.test('what a worker says is not believed', async (t) => {
  const { store } = await makeMill(t)
  const liar = openJobs(t)
  const claims: [unknown, RegExp][] = [
    [
      { state: 'published', key: 'kernels/a/b/c/d/e.json', read: 1, seconds: 1 },
      /not in this store/,
    ],
    [{ state: 'published', key: '../../x', read: 1, seconds: 1 }, /not in this store/],
    [{ state: 'great' }, /no receipt/],
    [null, /no receipt/],
  ]
  const { Worker } = await import('bullmq')
  for (const [claim, message] of claims) {
    const connection = new Redis(redis.url, { maxRetriesPerRequest: null })
    const worker = new Worker(
      liar.name,
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
      {
        ...{ store, queue: redis.url },
        onEvent: (event) => void told.push(event.event),
      },
    )
    t.match(summary, { published: 0, failed: { queue_failed: 1 } })
    t.same(told, ['failed'])
    const [entry] = (await Catalog.open(store)).list()
    t.match(entry?.record.failure, { code: 'queue_failed', message })
    await worker.close()
    connection.disconnect()
  }
})

t.test('a job over which worker after worker is lost is given up', async (t) => {
  const shop = await makeShop(t, 1)
  const run = shop.generate(...queue)
  await run.line(({ event }) => event === 'planned')
  const jobs = openJobs(t)
  const { Worker } = await import('bullmq')
  // one that takes it and is never heard of again, as often as may be
  const connection = new Redis(redis.url, { maxRetriesPerRequest: null })
  const lost = new Worker(jobs.name, () => new Promise(() => {}), {
    ...{ connection, prefix: PREFIX, concurrency: 100, skipLockRenewal: true },
    ...{ lockDuration: 50, stalledInterval: 60, maxStalledCount: 2 },
  })
  lost.on('error', () => {})
  t.match(await summaryOf(run), { failed: { worker_lost: 1 } })
  t.match(await shop.records(), [{ failure: { code: 'worker_lost', retryAt: String } }])
  await lost.close(true)
  connection.disconnect()
})

t.test('on demand, workers do it, too: once, whichever service is asked', async (t) => {
  const { store, offer, directory, asked, ...shop } = await makeShop(t, 1)
  const cache = join(directory, 'cache')
  const open = () => OnDemandGenerator.open({ store, ...offer, cache, queue: redis.url })
  const mills = await Promise.all([open(), open()])
  const kernel = { distro: 'debian', version: '12', arch: 'i686', release: '6.1.0-0-test' }
  const ids = mills.map((mill) => mill.submit(kernel)!.id)
  t.equal(ids[0], ids[1])
  shop.worker(...queue)
  for (const mill of mills) t.match(await mill.done(ids[0]!), { state: 'published' })
  t.same(asked(), [1])
  await Promise.all(mills.map((mill) => mill.close()))
})

t.test('a service has workers make what it is asked for', async (t) => {
  const shop = await makeShop(t, 1)
  const service = shop.serve(...queue, '--job-memory', '1G')
  const listening = (line: object) => 'msg' in line && /listening at/.test(String(line.msg))
  const { msg } = (await service.line(listening)) as unknown as { msg: string }
  const [url] = /http:\S+/.exec(msg)!
  await ready(url)
  const path = '/v1/btf/debian/12/i686/6.1.0-0-test'
  const statusOf = async () => (await ask(url + path)).status
  t.equal(await statusOf(), 202)
  const worker = shop.worker(...queue)
  await worker.line(({ event }) => event === 'published')
  await until(statusOf, (status) => status === 200)
  t.same(shop.asked(), [1])
})

t.test('a worker in this process ends with its signals', async (t) => {
  const { store, scratch } = await makeMill(t)
  const drain = new AbortController()
  const working = work({ store, scratch, queue: redis.url, drain: drain.signal })
  drain.abort()
  t.same(await working, { published: 0, failed: 0, left: 0 })
})
