// Thirty jobs and three workers. Every two seconds one worker is killed, and Redis is restarted halfway. All jobs end, and
// each is in the catalog exactly once.
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Catalog } from '../../storage/index.ts'
import { startRedis } from '../helpers/redis.ts'
import { manyStructs } from '../helpers/vmlinux.ts'
import { makeDeployment, type Process, summaryOf } from '../helpers/workers.ts'

const JOBS = 30
const WORKERS = 3
/** Milliseconds between two kills. */
const PAUSE = 2000
/** Jobs that have ended when Redis is restarted. */
const HALF = JOBS / 2

t.test('killed workers and a restarted Redis lose no job', { timeout: 900_000 }, async (t) => {
  const redis = await startRedis(t)
  const shop = await makeDeployment(t, JOBS, manyStructs(200_000))
  const args = ['--queue', redis.url, '--lease', '2']
  const workers: Process[] = Array.from({ length: WORKERS }, () => shop.worker(...args))
  const run = shop.generate('--queue', redis.url)
  let over = false
  let kills = 0
  let busy = 0
  const killing = (async () => {
    for (let victim = 0; !over; victim = (victim + 1) % WORKERS) {
      await sleep(PAUSE)
      const { child, lines } = workers[victim]!
      if (/^(stage|progress|started)$/.test(lines.at(-1)?.event ?? '')) busy++
      child.kill('SIGKILL')
      kills++
      workers[victim] = shop.worker(...args)
    }
  })()
  const published = () => run.lines.filter(({ event }) => event === 'published').length
  await run.line(() => published() >= HALF)
  await redis.stop()
  await sleep(PAUSE)
  await redis.start()

  t.match(await summaryOf(run), { published: JOBS, failed: {}, left: 0 })
  over = true
  await killing
  for (const worker of workers) worker.child.kill('SIGINT')
  for (const { ended } of workers) await ended
  t.comment(`${kills} workers killed, ${busy} of them during a job; ${shop.asked()} downloads`)
  t.ok(busy >= 3, 'workers were killed during their jobs')

  const records = await shop.records()
  t.equal(records.length, JOBS)
  t.equal(new Set(records.map(({ kernel: { release } }) => release)).size, JOBS)
  t.ok(records.every(({ btf, failure }) => btf && !failure))
  t.equal((await Catalog.openSnapshot(shop.store)).size, JOBS, 'the catalog has all kernels')
  await shop.verify()
  t.match(await summaryOf(shop.generate('--queue', redis.url)), { published: 0, skipped: JOBS })
})
