// The budget by itself, and what real jobs with real pahole take of memory and disk together under one.
import { globSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { GenerateOptions } from '../../../generator/index.ts'
import { type Amount, Budget, estimateOf, needsOf } from '../../../generator/jobs/budget.ts'
import { jobOfFile } from '../../../generator/jobs/job.ts'
import { findPahole, PAHOLE_LIMITS } from '../../../generator/jobs/pahole.ts'
import { NoRoom, runJob } from '../../../generator/jobs/pipeline.ts'
import { recordKey } from '../../../storage/index.ts'
import { makePackage } from '../../helpers/package.ts'
import { type Mill, makeMill } from '../../helpers/run-directory.ts'
import { makeVmlinux, manyBlocks } from '../../helpers/vmlinux.ts'

const MIB = 1024 ** 2

t.test('who comes first is served first, and nobody overtakes', async (t) => {
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
  t.same(served, ['a', 'b', 'first'], 'the small one waits behind the large one')
  ;(await waiting[2])?.release()
  await settled()
  t.same(served, ['a', 'b', 'first', 'large', 'small'])
})

t.test('one that is larger than all there is has it alone', async (t) => {
  const budget = new Budget({ memory: 10, disk: 10 })
  const small = await budget.lease({ memory: 1, disk: 1 })
  let begun = false
  const waiting = budget.lease({ memory: 100, disk: 100 }).then((lease) => {
    begun = true
    return lease
  })
  await settled()
  t.notOk(begun)
  small.release()
  const large = await waiting
  t.notOk(large.may({ memory: 11 }))
  t.equal(large.short, undefined, 'no waiting helps')
  t.match(large.refusal, { code: 'pahole_out_of_memory' })
  t.notOk(large.may({ disk: 11 }))
  t.match(large.refusal, { code: 'no_space' })
})

t.test(
  'more is had where there is room, and is to be waited for where there is none',
  async (t) => {
    const budget = new Budget({ memory: 100, disk: 100 })
    const [a, b] = await Promise.all([
      budget.lease({ memory: 40, disk: 10 }),
      budget.lease({ memory: 40, disk: 10 }),
    ])
    t.ok(a.may({ memory: 60 }))
    t.ok(a.may({ memory: 50 }), 'less than it holds')
    t.notOk(b.may({ memory: 41 }))
    t.match(b.short, { memory: 80, disk: 10 })
    b.release()
    t.ok(a.may({ memory: 100 }))
    a.keep({ memory: 10, disk: 100 })
    t.ok((await budget.lease({ memory: 90, disk: 90 })) && true, 'what is not kept others have')
  },
)

t.test('who does not want to wait any more is forgotten', async (t) => {
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

t.test('a disk that is memory counts as both', async (t) => {
  const budget = new Budget({ memory: 100, disk: 80 }, true)
  const lease = await budget.lease({ memory: 30, disk: 60 })
  t.notOk(lease.may({ memory: 41 }))
  t.ok(lease.may({ memory: 40 }))
  lease.release()
  t.ok(await budget.lease({ memory: 100, disk: 80 }), 'as much memory as the disk leaves')
})

t.test('what the machine has, unless it is said', async (t) => {
  const { total } = await Budget.open(join(t.testdir(), 'made'))
  t.ok(total.memory > 0 && total.disk > 0)
  t.same((await Budget.open(t.testdir(), { memory: 5, disk: 6 })).total, { memory: 5, disk: 6 })
})

t.test('an estimate', (t) => {
  const job = jobOfFile('linux-image-6.1.0-9-test-dbg_1_i386.deb', {})
  const of = (size?: number) =>
    estimateOf({ ...job, package: { ...job.package, ...(size && { size }) } }, 0)
  t.same(of(765e6), of(), 'of a distribution, or nobody knows')
  t.same(of(1e6), needsOf(8e6, 0))
  t.ok(of().memory > 500 * MIB && of().memory < 1024 * MIB)
  t.end()
})

/** What jobs took at most at one moment, in bytes. */
interface Peak {
  memory: number
  disk: number
  paholes: number
}

/** Looks at this process's pahole children and at the scratch directory while `work` runs. */
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

/** Bytes of anonymous memory of each pahole that this process has started. */
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

/** Packages whose vmlinux have 5 MiB, whose BTF is small, and whose pahole takes 390 MiB: more than one would think. */
function greedyPackages({ directory }: Pick<Mill, 'directory'>, count: number): string[] {
  const image = join(directory, 'vmlinux')
  return Array.from({ length: count }, (_, i) => {
    const release = `6.1.0-${i}-test`
    makeVmlinux(image, { release, more: manyBlocks(2_500_000) })
    return makePackage(directory, image, { release, compression: 'gzip' })
  })
}

async function runGreedy(t: Test, count: number, options: Partial<GenerateOptions>) {
  const mill = await makeMill(t)
  const files = greedyPackages(mill, count)
  const [summary, peak] = await watch(mill.scratch, () =>
    mill.run(files, { jobs: count, ...options }),
  )
  t.comment(`${Math.round(peak.memory / MIB)} MiB by ${peak.paholes} paholes at once`)
  return { mill, summary, peak }
}

t.test('what jobs take together stays within the budget, and all get done', async (t) => {
  const memory = 900 * MIB
  const { mill, summary, peak } = await runGreedy(t, 4, { budget: { memory } })
  t.match(summary, { published: 4, failed: {} })
  t.ok(peak.memory > 300 * MIB && peak.memory <= memory, `${peak.memory} of ${memory} bytes`)
  t.ok(peak.paholes <= 2)
  t.ok((await mill.leftovers()).every((path) => path.startsWith('store/blobs/')))
})

t.test('a job that needs more than all there is fails', async (t) => {
  const memory = 400 * MIB
  const { mill, summary, peak } = await runGreedy(t, 1, { budget: { memory } })
  t.match(summary, { published: 0, failed: { pahole_out_of_memory: 1 } })
  t.match(await mill.records(), [{ failure: { message: /all jobs together may have 400 MiB/ } }])
  t.ok(peak.memory <= memory)
  t.same(await mill.leftovers(), [])

  const disk = { budget: { disk: 3 * MIB }, pahole: { ...PAHOLE_LIMITS, output: MIB } }
  const small = await runGreedy(t, 1, disk)
  t.match(small.summary, { failed: { no_space: 1 } })
  t.match(await small.mill.records(), [{ failure: { message: /needs \d+ MiB of disk/ } }])
  t.ok(small.peak.disk <= 3 * MIB)
  t.same(await small.mill.leftovers(), [])
})

t.test('jobs wait for disk', async (t) => {
  const disk = 9 * MIB // there is room for one
  const options = { budget: { disk }, pahole: { ...PAHOLE_LIMITS, output: MIB } }
  const { summary, peak } = await runGreedy(t, 3, options)
  t.match(summary, { published: 3, failed: {} })
  t.ok(peak.disk > 4 * MIB && peak.disk <= disk, `${peak.disk} of ${disk} bytes`)
  t.equal(peak.paholes, 1)
})

t.test('a job that others leave too little is begun anew, when they have ended', async (t) => {
  const mill = await makeMill(t)
  const { store, scratch, leftovers, records } = mill
  const [file] = greedyPackages(mill, 1)
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
    const want = await runJob(job, lease, options).then(
      () => t.fail('it has no room'),
      (error) => error instanceof NoRoom && error.want,
    )
    lease.release()
    t.same(await leftovers(), [], `no room for ${what}: nothing is left`)
    t.same(await records(), [], 'nor recorded')
    theirs.release()
    const enough = await budget.lease(want as Amount)
    t.match(await runJob(job, enough, options), { state: 'published' })
    enough.release()
    await store.delete(recordKey((await records())[0]!.kernel, '6.1.9-1'))
    for await (const { key } of store.list('blobs/')) await store.delete(key)
  }
})

/** Lets everything happen that can. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
