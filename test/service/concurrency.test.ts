// Sharing and bounding of work: shared work ends with its last caller, queues are bounded, and clients take turns in them.
import t from 'tap'
import { client, Quota, Semaphore, SingleFlight } from '../../service/concurrency.ts'

t.test(
  'work is aborted when all its callers have aborted, and started again for the next one',
  async (t) => {
    const flights = new SingleFlight<number>()
    const aborted: unknown[] = []
    let started = 0
    const work = (abandoned: AbortSignal) => {
      const n = ++started
      return new Promise<number>((resolve, reject) => {
        abandoned.addEventListener('abort', () => {
          aborted.push(n)
          reject(abandoned.reason)
        })
        if (n > 1) setImmediate(() => resolve(n))
      })
    }
    const clients = [0, 1].map(() => new AbortController())
    const waiting = clients.map(({ signal }) => flights.run('x', work, signal))
    clients[0]!.abort(new Error('the first'))
    await t.rejects(waiting[0]!, { message: 'the first' })
    t.same(aborted, [], 'another caller waits')
    clients[1]!.abort(new Error('the second'))
    const next = flights.run('x', work, new AbortController().signal)
    await t.rejects(waiting[1]!, { message: 'the second' })
    t.same(aborted, [1])
    t.equal(await next, 2)
    await t.rejects(flights.run('x', work, AbortSignal.abort(new Error('aborted before'))), {
      message: 'aborted before',
    })
    t.same(aborted, [1, 3])
  },
)

t.test(
  'a semaphore runs callers in order up to its width, and refuses those over its queue',
  async (t) => {
    const semaphore = new Semaphore(2, 3)
    let [running, most] = [0, 0]
    const done: number[] = []
    const work = (n: number) => async () => {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setImmediate(resolve))
      running--
      done.push(n)
      if (n === 1) throw new Error('failed')
    }
    const all = await Promise.allSettled([0, 1, 2, 3, 4, 5, 6].map((n) => semaphore.run(work(n))))
    t.equal(most, 2)
    t.same(done, [0, 1, 2, 3, 4])
    t.same(
      all.map((each) => (each.status === 'rejected' ? (each.reason.code ?? 'own') : 'done')),
      ['done', 'own', 'done', 'done', 'done', 'busy', 'busy'],
    )
    await semaphore.run(work(7))
    t.same(done.at(-1), 7, 'it runs new callers afterwards')
  },
)

t.test('clients take turns in a queue, however much each of them asks for', async (t) => {
  const semaphore = new Semaphore(1, 100)
  const done: string[] = []
  const work = async (name: string) => {
    await new Promise((resolve) => setImmediate(resolve))
    done.push(name)
  }
  const ask = (holder: string, count: number) =>
    Array.from({ length: count }, (_, n) =>
      client.run(holder, () => semaphore.run(() => work(`${holder}${n}`))),
    )
  const many = ask('a', 20)
  await Promise.all([...many, ...ask('b', 2), ...ask('c', 1)])
  t.same(done.slice(0, 7), ['a0', 'a1', 'b0', 'c0', 'a2', 'b1', 'a3'])
  t.equal(done.length, 23)
})

t.test('a client has a share of a queue, and what has left it counts no more', async (t) => {
  const semaphore = new Semaphore(1, 4, 2)
  const gate = Promise.withResolvers<void>()
  const running = semaphore.run(() => gate.promise)
  const leaving = new AbortController()
  const ask = (holder: string, signal?: AbortSignal) =>
    client.run(holder, () => semaphore.run(async () => holder, signal))
  const first = ask('a', leaving.signal)
  const second = ask('a')
  await t.rejects(ask('a'), {
    code: 'busy',
    message: 'too many requests of one client: 2 are waiting already',
  })
  const others = [ask('b'), ask('c')]
  await t.rejects(ask('d'), { code: 'busy', message: 'too many requests: 4 are waiting already' })
  leaving.abort(new Error('it left'))
  await t.rejects(first, { message: 'it left' })
  const again = ask('a')
  gate.resolve()
  await running
  t.same(await Promise.all([second, ...others, again]), ['a', 'b', 'c', 'a'])
})

t.test('one holder can take a share of a quota, and others the rest', async (t) => {
  const quota = new Quota(4, 'all are taken', 2)
  const giveBack = quota.take('a')
  quota.take('a')
  t.throws(() => quota.take('a'), { code: 'busy', message: 'all are taken' })
  quota.take('b')
  quota.take('b')
  t.throws(() => quota.take('c'), { code: 'busy' })
  giveBack()
  quota.take('c')
})
