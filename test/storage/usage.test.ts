// The kernels that clients got, by month.
import t from 'tap'
import { addUsage, kernelPrefix, openStore, recentUsage } from '../../storage/index.ts'

const kernel = (release: string) => ({ distro: 'debian', version: '12', arch: 'x86_64', release })
const prefixes = (...releases: string[]) =>
  new Set(releases.map((release) => kernelPrefix(kernel(release))))
const now = new Date('2026-02-28T23:00:00Z')

t.test('a kernel counts as used in this month and in those before it', async (t) => {
  const store = await openStore('memory:')
  t.equal((await recentUsage(store, 3, now)).since, undefined)
  await addUsage(store, '2025-11', prefixes('old'))
  await addUsage(store, '2025-12', prefixes('first', 'both'))
  await addUsage(store, '2026-02', prefixes('last', 'both'))
  const { since, has } = await recentUsage(store, 3, now)
  t.equal(since, '2025-11')
  t.same(
    ['old', 'first', 'both', 'last', 'never'].map((release) => has(kernel(release))),
    [false, true, true, true, false],
  )
})

t.test('services that count at the same time lose nothing', async (t) => {
  const store = await openStore('memory:')
  const names = Array.from({ length: 8 }, (_, i) => `6.1.0-${i}`)
  await Promise.all(names.map((name) => addUsage(store, '2026-02', prefixes(name))))
  const { has } = await recentUsage(store, 1, now)
  t.ok(names.every((name) => has(kernel(name))))
  const before = await store.head('usage/2026-02.json')
  await addUsage(store, '2026-02', prefixes('6.1.0-3'))
  t.same(await store.head('usage/2026-02.json'), before, 'what is known is not written again')
})

t.test('documents that are no usage count for nothing, and are replaced', async (t) => {
  for (const text of ['', '{', '[]', '{"schema":1}', '{"schema":2,"kernels":[]}', '\0']) {
    const store = await openStore('memory:')
    await store.put('usage/2026-02.json', Buffer.from(text))
    await store.put('usage/other', Buffer.from(text))
    t.notOk((await recentUsage(store, 1, now)).has(kernel('a')), JSON.stringify(text))
    await addUsage(store, '2026-02', prefixes('a'))
    t.ok((await recentUsage(store, 1, now)).has(kernel('a')))
  }
})
