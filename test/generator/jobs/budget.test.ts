// The budget alone, and the memory and disk space that real jobs with a real pahole use together under it.
import { globSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { GenerateOptions } from '../../../generator/index.ts'
import { Budget, estimateOf, needsOf } from '../../../generator/jobs/budget.ts'
import { jobOfFile } from '../../../generator/jobs/job.ts'
import { findPahole, PAHOLE_LIMITS } from '../../../generator/jobs/pahole.ts'
import { runJob } from '../../../generator/jobs/pipeline.ts'
import { recordKey } from '../../../storage/index.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { makeVmlinux, manyBlocks } from '../../helpers/vmlinux.ts'

const MIB = 1024 ** 2

t.test(
  'leases are granted in the order of requests, and a small one never overtakes a large one',
  async (t) => {
    const budget = new Budget({ memory: 10, disk: 10 })
    const served: string[] = []
    const ask = async (name: string, memory: number, first = false) => {
      const lease = await budget.lease({ memory, disk: 1 }, { first })
      served.push(name)
      return lease
    }
    const [a, b] = await Promise.all([ask('a', 6), ask('b', 4)])
    const waiting = [ask('large', 9), ask('small', 1), ask('first', 6, true)]
    await settled()
    t.same(served, ['a', 'b'])
    a.release()
    await settled()
    t.same(served, ['a', 'b', 'first'])
    b.release()
    await settled()
    t.same(served, ['a', 'b', 'first'], 'the small request waits behind the large one')
    ;(await waiting[2])?.release()
    await settled()
    t.same(served, ['a', 'b', 'first', 'large', 'small'])
  },
)

t.test(
  'a job whose estimate exceeds the whole budget leases all of it, and fails if it needs more',
  async (t) => {
    const budget = new Budget({ memory: 10, disk: 10 })
    const small = await budget.lease({ memory: 1, disk: 1 })
    let granted = false
    const waiting = budget.lease({ memory: 100, disk: 100 }).then((lease) => {
      granted = true
      return lease
    })
    await settled()
    t.notOk(granted)
    small.release()
    const large = await waiting
    const memory = large.grow({ memory: 11 })
    t.match(memory?.error, { code: 'pahole_out_of_memory' })
    t.equal(memory?.want, undefined, 'waiting does not help')
    const disk = large.grow({ disk: 11 })
    t.match(disk?.error, { code: 'no_space' })
    t.equal(disk?.want, undefined, 'waiting does not help')
  },
)

t.test(
  'a lease grows while the budget has room, and otherwise tells what to wait for',
  async (t) => {
    const budget = new Budget({ memory: 100, disk: 100 })
    const [a, b] = await Promise.all([
      budget.lease({ memory: 40, disk: 10 }),
      budget.lease({ memory: 40, disk: 10 }),
    ])
    t.equal(a.grow({ memory: 60 }), undefined)
    t.equal(a.grow({ memory: 50 }), undefined, 'less than it holds')
    t.match(b.grow({ memory: 41 })?.want, { memory: 80, disk: 10 })
    b.release()
    t.equal(a.grow({ memory: 100 }), undefined)
    a.shrink({ memory: 10, disk: 100 })
    t.ok(await budget.lease({ memory: 90, disk: 90 }), 'others get what it gave back')
  },
)

t.test('a request that is aborted leaves the line, and the next one is served', async (t) => {
  const budget = new Budget({ memory: 10, disk: 10 })
  const all = await budget.lease({ memory: 10, disk: 10 })
  const leave = new AbortController()
  const waiting = budget.lease({ memory: 10, disk: 1 }, { signal: leave.signal })
  const next = budget.lease({ memory: 10, disk: 1 })
  leave.abort(new Error('enough'))
  await t.rejects(waiting, { message: 'enough' })
  await t.rejects(budget.lease({ memory: 1, disk: 1 }, { signal: leave.signal }), /enough/)
  all.release()
  t.ok(await next)
})

t.test('files in a tmpfs count as memory, too', async (t) => {
  const budget = new Budget({ memory: 100, disk: 80 }, true)
  const lease = await budget.lease({ memory: 30, disk: 60 })
  t.ok(lease.grow({ memory: 41 }), 'denied')
  t.equal(lease.grow({ memory: 40 }), undefined)
  lease.release()
  t.ok(
    await budget.lease({ memory: 100, disk: 80 }),
    'a request is limited to the memory that the files leave',
  )
})

t.test('the budget is a share of the machine, unless the options set it', async (t) => {
  const { total } = await Budget.open(join(t.testdir(), 'made'))
  t.ok(total.memory > 0 && total.disk > 0)
  t.same((await Budget.open(t.testdir(), { memory: 5, disk: 6 })).total, { memory: 5, disk: 6 })
})

t.test("a job's needs are estimated from the size of its package", (t) => {
  const job = jobOfFile('linux-image-6.1.0-9-test-dbg_1_i386.deb', {})
  const of = (size?: number) =>
    estimateOf({ ...job, package: { ...job.package, ...(size && { size }) } }, 0)
  t.same(of(765e6), of(), 'an unknown size counts as that of a distribution')
  t.same(of(1e6), needsOf(8e6, 0))
  t.ok(of().memory > 500 * MIB && of().memory < 1024 * MIB)
  t.end()
})

/** The most that jobs used at any moment, in bytes. */
interface Peak {
  memory: number
  disk: number
  paholes: number
}

/** Measures this process's pahole children and the scratch directory while `work` runs. */
async function watch<T>(scratch: string, work: () => Promise<T>): Promise<[T, Peak]> {
  const peak: Peak = { memory: 0, disk: 0, paholes: 0 }
  const look = () => {
    const sizes = paholes()
    const files = globSync(join(scratch, '*/*')).map(sizeOf)
    const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0)
    peak.memory = Math.max(peak.memory, sum(sizes))
    peak.disk = Math.max(peak.disk, sum(files))
    peak.paholes = Math.max(peak.paholes, sizes.filter((size) => size > MIB).length)
  }
  const timer = setInterval(look, 5)
  try {
    return [await work(), peak]
  } finally {
    clearInterval(timer)
  }
}

/** Bytes of anonymous memory of each pahole that this process started. */
function paholes(): number[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return []
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'latin1')
      if (!status.startsWith('Name:\tpahole\n')) return []
      if (!new RegExp(`^PPid:\\t${process.pid}$`, 'm').test(status)) return []
      return [Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1] ?? 0) * 1024]
    } catch {
      return [] // it has ended
    }
  })
}

function sizeOf(path: string): number {
  try {
    return statSync(path).size
  } catch {
    return 0
  }
}

/** Packages with a vmlinux of 5 MiB and little BTF, whose pahole uses 390 MiB: much more than the estimate. */
function greedyPackages({ directory }: Pick<RunDirectory, 'directory'>, count: number): string[] {
  const image = join(directory, 'vmlinux')
  return Array.from({ length: count }, (_, i) => {
    const release = `6.1.0-${i}-test`
    makeVmlinux(image, { release, more: manyBlocks(2_500_000) })
    return makePackage(directory, image, { release, compression: 'gzip' })
  })
}

async function runGreedy(t: Test, count: number, options: Partial<GenerateOptions>) {
  const env = await makeRunDirectory(t)
  const files = greedyPackages(env, count)
  const [summary, peak] = await watch(env.scratch, () =>
    env.run(files, { jobs: count, ...options }),
  )
  t.comment(`${Math.round(peak.memory / MIB)} MiB by ${peak.paholes} paholes at once`)
  return { env, summary, peak }
}

t.test('parallel jobs stay within the memory budget, and all of them are published', async (t) => {
  const memory = 900 * MIB
  const { env, summary, peak } = await runGreedy(t, 4, { budget: { memory } })
  t.match(summary, { published: 4, failed: {} })
  t.ok(peak.memory > 300 * MIB && peak.memory <= memory, `${peak.memory} of ${memory} bytes`)
  t.ok(peak.paholes <= 2)
  t.ok((await env.leftovers()).every((path) => path.startsWith('store/blobs/')))
})

t.test(
  'a job that needs more memory or disk space than the whole budget fails, and tells the limit',
  async (t) => {
    const memory = 400 * MIB
    const { env, summary, peak } = await runGreedy(t, 1, { budget: { memory } })
    t.match(summary, { published: 0, failed: { pahole_out_of_memory: 1 } })
    t.match(await env.records(), [
      { failure: { message: /limit for all jobs together is 400 MiB/ } },
    ])
    t.ok(peak.memory <= memory)
    t.same(await env.leftovers(), [])

    const disk = { budget: { disk: 3 * MIB }, pahole: { ...PAHOLE_LIMITS, output: MIB } }
    const small = await runGreedy(t, 1, disk)
    t.match(small.summary, { failed: { no_space: 1 } })
    t.match(await small.env.records(), [{ failure: { message: /needs \d+ MiB of disk space/ } }])
    t.ok(small.peak.disk <= 3 * MIB)
    t.same(await small.env.leftovers(), [])
  },
)

t.test('jobs wait for disk space that other jobs hold', async (t) => {
  const disk = 9 * MIB // enough for one job
  const options = { budget: { disk }, pahole: { ...PAHOLE_LIMITS, output: MIB } }
  const { summary, peak } = await runGreedy(t, 3, options)
  t.match(summary, { published: 3, failed: {} })
  t.ok(peak.disk > 4 * MIB && peak.disk <= disk, `${peak.disk} of ${disk} bytes`)
  t.equal(peak.paholes, 1)
})

t.test(
  'a job that needs what other jobs hold is deferred without a trace, and succeeds when it is free',
  async (t) => {
    const env = await makeRunDirectory(t)
    const { store, scratch, leftovers, records } = env
    const [file] = greedyPackages(env, 1)
    const named = jobOfFile(file!, {})
    const job = { ...named, package: { ...named.package, size: statSync(file!).size } }
    const pahole = { ...PAHOLE_LIMITS, output: MIB }
    const options = { store, scratch, pahole, tool: await findPahole() }
    const budget = new Budget({ memory: 600 * MIB, disk: 20 * MIB })
    for (const [others, what] of [
      [{ memory: 200 * MIB, disk: 0 }, 'pahole'],
      [{ memory: 0, disk: 17 * MIB }, 'vmlinux'],
    ] as const) {
      const theirs = await budget.lease(others)
      const lease = await budget.lease(estimateOf(job, MIB))
      const deferred = await runJob(job, lease, options)
      if (deferred.state !== 'deferred')
        throw new Error(`${deferred.state}, without room for ${what}`)
      lease.release()
      t.same(await leftovers(), [], `no room for ${what}: no file is left`)
      t.same(await records(), [], 'and nothing is recorded')
      theirs.release()
      const enough = await budget.lease(deferred.want)
      t.match(await runJob(job, enough, options), { state: 'published' })
      enough.release()
      await store.delete(recordKey((await records())[0]!.kernel, '6.1.9-1'))
      for await (const { key } of store.list('blobs/')) await store.delete(key)
    }
  },
)

/** Waits until all pending promises have settled. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
