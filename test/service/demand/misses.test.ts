// Misses: counts of requested kernels without BTF survive restarts, and made-up names cannot exhaust the memory.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Journal } from '../../../service/cache/journal.ts'
import { MAX_MISSES, Misses } from '../../../service/demand/misses.ts'
import { openStore, putRecord } from '../../../storage/index.ts'
import { serve } from '../../helpers/serve-process.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

interface ListedMiss {
  kernel: { distro: string; version: string; arch: string; release: string }
  count: number
  first: string
  last: string
}

const listed = async (url: string, query = ''): Promise<ListedMiss[]> =>
  (await ask(`${url}/v1/misses${query}`)).json?.misses as ListedMiss[]
const counts = (misses: ListedMiss[]) =>
  Object.fromEntries(misses.map(({ kernel, count }) => [kernel.release, count]))

t.test(
  'every route counts a missing kernel under its canonical name, most requested first',
  async (t) => {
    const service = await startTestService(t, async (store) => [
      recordOf({ release: 'there' }, { btf: await btfOf(store, RAW.little) }),
      recordOf({ release: 'embedded' }, { embedded: true }),
    ])
    const paths = [
      '/v1/btf/debian/12/amd64/wanted',
      '/v1/btf/Debian/12.5/x86_64/wanted',
      '/v1/btf/%22debian%22/12/x64/wanted/sha256',
      '/debian/12/x86_64/wanted.btf.tar.xz',
      '/btfs/debian/12/x86_64/wanted.btf.tar.xz',
      '/api/v1/download?distribution=debian&distribution_version=12&kernel_version=wanted&arch=amd64',
      '/v1/btf?release=alone',
      '/coolbpf/btf/aarch64/vmlinux-alone',
      '/v1/btf/debian/12/amd64/there',
      '/v1/btf/debian/12/amd64/embedded',
      '/v1/btf/rhel/8.4/s390x/once',
    ]
    for (const path of paths) await ask(`${service.url}${path}`)
    await ask(`${service.url}${paths[0]}`, {}, 'HEAD')
    const misses = await listed(service.url)
    t.match(
      misses.map(({ kernel, count }) => [...Object.values(kernel), count].join(' ')),
      [
        'debian 12 x86_64 wanted 7',
        'rhel 8 s390x once 1',
        'any any aarch64 alone 1',
        'any any any alone 1',
      ],
    )
    for (const { first, last } of misses) t.ok(new Date(first) <= new Date(last))
    t.same(counts(await listed(service.url, '?distro=rhel')), { once: 1 })
    t.same(counts(await listed(service.url, '?release=w*&arch=amd64')), { wanted: 7 })
    t.same(counts(await listed(service.url, '?limit=1')), { wanted: 7 })
    t.equal((await ask(`${service.url}/v1/misses?limit=0`)).status, 400)

    await putRecord(
      service.store,
      recordOf({ release: 'wanted' }, { btf: await btfOf(service.store, RAW.big) }),
    )
    await service.catalog.refresh()
    t.same(
      Object.keys(counts(await listed(service.url, '?distro=debian'))),
      [],
      'a kernel with BTF is no longer a miss',
    )
  },
)

t.test('made-up names evict each other, and not the kernels of a fleet', async (t) => {
  const misses = await Misses.open(undefined, () => {})
  const kernel = (release: string) => ({ distro: 'debian', version: '12', arch: 'x86_64', release })
  for (const release of ['fleet', 'fleet', 'pair', 'pair']) await misses.count(kernel(release))
  for (let i = 0; i < 3 * MAX_MISSES; i++) {
    await misses.count(kernel(`made-up-${i}`))
    if (misses.size > MAX_MISSES) t.fail(`${misses.size} kernels`)
  }
  t.same(
    misses
      .list()
      .slice(0, 3)
      .map((miss) => miss.kernel.release),
    ['pair', 'fleet', `made-up-${3 * MAX_MISSES - 1}`],
  )
  t.equal(misses.counts.counted, 3 * MAX_MISSES + 4)
  t.equal(misses.counts.forgotten, misses.counts.counted - 2 - misses.size)
})

t.test('a killed server loses no count of a request that it had answered', async (t) => {
  const directory = t.testdir({})
  const store = `file:${join(directory, 'store')}`
  await openStore(store)
  const wanted: Record<string, number> = {}
  const ROUNDS = 3
  for (let round = 0; round < ROUNDS; round++) {
    const { url, kill } = await serve(t, ['--store', store])
    t.same(counts(await listed(url)), wanted, `after ${round} kills`)
    // some requests are under way at the kill: only answered ones must be counted
    let answered = 0
    const asking = Array.from({ length: 120 }, async (_, i) => {
      const release = `release-${i % 7}`
      const path = `${url}/v1/btf/debian/12/x86_64/${release}`
      const { status } = await ask(path).catch(() => ({ status: 0 }))
      if (status !== 404) return
      answered++
      wanted[release] = (wanted[release] ?? 0) + 1
      if (answered === 100 && round === ROUNDS - 1) await kill()
    })
    await Promise.all(asking)
    await kill()
  }
  const { url } = await serve(t, ['--store', store, '--state', join(directory, 'store-state')])
  const found = counts(await listed(url))
  for (const [release, count] of Object.entries(wanted))
    t.ok(found[release]! >= count, `${release}: ${found[release]} of ${count}`)
})

t.test('a journal skips invalid lines, and is rewritten when it grows', async (t) => {
  const path = join(t.testdir({}), 'a/journal.ndjson')
  const seen: number[] = []
  const open = () =>
    Journal.open(path, {
      read: (value) => {
        if (typeof value !== 'number') throw new Error('expected a number')
        seen.push(value)
      },
      state: () => [seen.reduce((sum, n) => sum + n, 0)],
      onError: (error) => t.fail(error as Error),
    })
  const journal = await open()
  await Promise.all(Array.from({ length: 100 }, () => journal.append(1)))
  await journal.close()
  t.equal(
    readFileSync(path, 'utf8').split('\n').length,
    102,
    'the state, and one line for each value',
  )
  writeFileSync(path, `${readFileSync(path, 'utf8')}"x"\n{"a"\n\u0000\n12`)
  const again = await open()
  t.equal(
    seen.reduce((sum, n) => sum + n, 0),
    112,
  )
  t.equal(readFileSync(path, 'utf8'), '112\n', 'rewritten on open')
  for (let i = 0; i < 10_002; i++) again.append(0)
  await again.append(0)
  t.equal(readFileSync(path, 'utf8'), '112\n', 'rewritten after growth')
  await again.close()
})

t.test(
  'a failed write fails no request, and its counts are written with the next one',
  async (t) => {
    const directory = join(t.testdir({}), 'state')
    const errors: unknown[] = []
    const path = join(directory, 'misses.ndjson')
    const misses = await Misses.open(path, (error) => errors.push(error))
    const kernel = { distro: 'debian', version: '12', arch: 'x86_64', release: 'a' }
    // a directory in place of the file: the next rewrite fails
    rmSync(path)
    mkdirSync(path)
    for (let i = 0; i < 10_001; i++) misses.count(kernel)
    await misses.count(kernel)
    t.ok(errors.length > 0)
    t.equal(misses.list()[0]?.count, 10_002)
    rmSync(path, { recursive: true })
    await misses.count(kernel)
    await misses.close()
    const again = await Misses.open(path, (error) => t.fail(error as Error))
    t.equal(again.list()[0]?.count, 10_003)
    await again.close()
  },
)
