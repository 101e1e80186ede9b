// Concurrent work: bounded, in order, and ended before its error is thrown.
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { forEachConcurrent, mapConcurrent, mapOrdered } from '../../storage/concurrency.ts'

/** Work that takes less time the later it starts, and the most calls that ran at once. */
function staggered() {
  let [running, most] = [0, 0]
  const work = async (item: number) => {
    most = Math.max(most, ++running)
    await sleep(20 - item)
    running--
    return item * 10
  }
  return { work, most: () => most, running: () => running }
}

t.test('mapConcurrent and mapOrdered keep the order of the items and the bound', async (t) => {
  const items = [1, 2, 3, 4, 5, 6, 7]
  const wanted = [10, 20, 30, 40, 50, 60, 70]
  const concurrent = staggered()
  t.same(await mapConcurrent(items, 3, concurrent.work), wanted)
  t.equal(concurrent.most(), 3)
  const ordered = staggered()
  t.same(await Array.fromAsync(mapOrdered(items, 3, ordered.work)), wanted)
  t.equal(ordered.most(), 3)
})

t.test('an error stops the start of further work and waits for what runs', async (t) => {
  const started: number[] = []
  let ended = 0
  const work = async (item: number) => {
    started.push(item)
    await sleep(item === 2 ? 1 : 30)
    ended++
    if (item === 2) throw new Error('the second fails')
  }
  await t.rejects(forEachConcurrent([1, 2, 3, 4, 5, 6], 2, work), /the second fails/)
  t.same(started, [1, 2])
  t.equal(ended, 2)
})

t.test('items that fail to come reject with their error once running work has ended', async (t) => {
  let ended = 0
  async function* items() {
    yield 1
    throw new Error('the list breaks off')
  }
  const work = async () => {
    await sleep(10)
    ended++
  }
  await t.rejects(forEachConcurrent(items(), 4, work), /the list breaks off/)
  t.equal(ended, 1)
})
