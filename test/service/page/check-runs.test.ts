// Runs of long checks: shared by those who look, reported on, and aborted when nobody does.
import t from 'tap'
import { CheckRuns, type RunProgress } from '../../../service/page/check-runs.ts'

t.test('those who look while a run is under way share it, and get its result', async (t) => {
  const runs = new CheckRuns<string>()
  const gate = Promise.withResolvers<string>()
  let started = 0
  const work = async (progress: RunProgress) => {
    started++
    Object.assign(progress, { done: 1, total: 3 })
    return await gate.promise
  }
  t.same(await runs.look('a', 1, work), { progress: { done: 1, total: 3 } })
  const second = runs.look('a', 10_000, work)
  gate.resolve('whole')
  t.same(await second, { result: 'whole' })
  t.equal(started, 1)
})

t.test('an error is told to whoever looks next, and the run after that begins again', async (t) => {
  const runs = new CheckRuns<string>()
  const gate = Promise.withResolvers<string>()
  t.same(await runs.look('a', 1, () => gate.promise), { progress: { done: 0, total: 0 } })
  gate.reject(new Error('broken'))
  await t.rejects(
    runs.look('a', 10_000, async () => 'unused'),
    { message: 'broken' },
  )
  t.same(await runs.look('a', 10_000, async () => 'again'), { result: 'again' })
})

t.test('closing aborts all runs', async (t) => {
  const runs = new CheckRuns<string>()
  let aborted = false
  await runs.look('a', 1, (_, signal) => {
    signal.addEventListener('abort', () => {
      aborted = true
    })
    return new Promise(() => {})
  })
  runs.close()
  t.ok(aborted)
})
