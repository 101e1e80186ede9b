// Generation on demand, from a repository behind a server that counts what it is asked.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  type OnDemandGeneration,
  OnDemandGenerator,
  type OnDemandOptions,
} from '../../../generator/index.ts'
import { Catalog } from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { IMPATIENT, makeMill } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'
import { makeVmlinux, RELEASE } from '../../helpers/vmlinux.ts'

const signer = makeSigner(t)
const KERNEL = { distro: 'debian', version: '12', arch: 'i686', release: RELEASE }

/** A mill whose one source offers these packages. */
async function open(
  t: Test,
  offer: (directory: string) => string[],
  options: Partial<OnDemandOptions> = {},
) {
  const surroundings = await makeMill(t)
  const { directory, store, scratch } = surroundings
  const repository = makeRepository(directory, { packages: offer(directory), signer })
  const server = await startServer(t, (request, response) => {
    response.end(readFileSync(join(directory, decodeURIComponent(request.url!))))
  })
  const mill = await OnDemandGenerator.open({
    ...{ store, scratch, cache: join(directory, 'cache'), retry: IMPATIENT },
    ...{ sources: [repository.source], mirror: `${server.url}/debian` },
    ...options,
  })
  t.teardown(() => mill.close())
  const asked = (what: RegExp) => server.requests.filter(({ url }) => what.test(url!)).length
  return { ...surroundings, mill, asked }
}

/** A package of a kernel, with what tells its builds apart. */
function packageOf(directory: string, release = RELEASE, build = 1): string {
  const image = join(directory, 'vmlinux')
  makeVmlinux(image, { release, defines: { STACK: 256 + build } })
  return makePackage(directory, image, { release, version: `6.1.9-${build}` })
}

t.test('however many ask for a kernel, under whatever names, it is made once', async (t) => {
  const { mill, asked, store } = await open(t, (directory) => [packageOf(directory)])
  const names = [
    KERNEL,
    { ...KERNEL, version: '12.9' },
    { ...KERNEL, arch: 'i386' },
    { ...KERNEL, distro: '"debian"' },
  ]
  const submitted = Array.from({ length: 200 }, (_, i) => mill.submit(names[i % names.length]!)!)
  t.equal(new Set(submitted.map(({ id }) => id)).size, 1)
  t.match(submitted[0], { kernel: KERNEL, state: 'searching', packages: [] })
  t.equal(mill.underWay, 1)

  const { id } = submitted[0]!
  const seen: OnDemandGeneration[] = []
  for await (const generation of mill.watch(id)) seen.push(generation)
  t.equal(seen[0]?.state, 'searching')
  const [made] = seen.at(-1)!.packages
  t.match(seen.at(-1), { state: 'published', failure: undefined })
  t.match(made, { version: '6.1.9-1', state: 'published', read: made!.size, stage: 'publish' })
  t.equal(asked(/\.deb$/), 1)
  t.equal(mill.underWay, 0)
  t.same(mill.get(id), seen.at(-1))

  const catalog = await Catalog.openSnapshot(store)
  t.match(catalog.find(KERNEL), [{ btf: {} }], 'others that follow the snapshot have it, too')

  t.match(await mill.done(mill.submit(KERNEL)!.id), { state: 'published' }, 'and again')
  t.equal(asked(/\.deb$/), 1, 'without a download')
})

t.test('all builds under one kernel name', async (t) => {
  const { mill, records } = await open(t, (directory) => [
    packageOf(directory, RELEASE, 1),
    packageOf(directory, RELEASE, 2),
    packageOf(directory, '6.1.0-8-test', 3),
  ])
  t.match(await mill.done(mill.submit(KERNEL)!.id), { state: 'published', packages: [{}, {}] })
  const made = await records()
  t.same(
    made.map(({ package: { version } }) => version),
    ['6.1.9-1', '6.1.9-2'],
  )
  t.not(made[0]?.btf?.sha256, made[1]?.btf?.sha256)
})

t.test('what no source offers: known without asking it again', async (t) => {
  const { mill, asked } = await open(t, (directory) => [packageOf(directory)])
  for (const release of ['6.1.0-1-other', '*', '6.1.0-9-*', '../../etc'])
    t.match(await mill.done(mill.submit({ ...KERNEL, release })!.id), { state: 'unknown' }, release)
  t.match(await mill.done(mill.submit({ ...KERNEL, distro: 'plan9' })!.id), { state: 'unknown' })
  t.equal(asked(/InRelease$/), 1)
  t.throws(() => mill.submit({ ...KERNEL, release: '' }), { code: 'invalid_key' })
  t.throws(() => mill.submit({ ...KERNEL, arch: 'a'.repeat(300) }), { code: 'invalid_key' })
  t.equal(mill.get('0'.repeat(32)), undefined)
  t.equal(await mill.done('0'.repeat(32)), undefined)
})

t.test('what fails is not tried again a moment later, and then only when it is due', async (t) => {
  const offer = (directory: string) => [makePackage(directory, undefined)]
  for (const cacheTtl of [60_000, -1]) {
    const { mill, asked } = await open(t, offer, { cacheTtl })
    const failed = { state: 'failed', failure: { code: 'no_vmlinux', retryAt: null } }
    t.match(await mill.done(mill.submit(KERNEL)!.id), failed)
    t.match(await mill.done(mill.submit(KERNEL)!.id), failed, 'the stored failure')
    t.equal(asked(/\.deb$/), 1)
  }
})

t.test('a source that cannot be read', async (t) => {
  const { mill } = await open(t, (directory) => [packageOf(directory)], {
    mirror: 'http://127.0.0.1:1/debian',
  })
  const { id } = mill.submit(KERNEL)!
  t.match(await mill.done(id), { state: 'failed', failure: { code: 'unreachable' } })
})

t.test('no more at once than may be', async (t) => {
  const { mill } = await open(t, (directory) => [packageOf(directory)], { limit: 2 })
  const [first, second] = ['6.1.0-1-a', RELEASE].map((release) =>
    mill.submit({ ...KERNEL, release }),
  )
  t.ok(first && second)
  t.equal(mill.submit({ ...KERNEL, release: '6.1.0-3-c' }), undefined)
  t.same(mill.submit(KERNEL)?.id, second?.id, 'one that is under way can be joined')
  await mill.done(first!.id)
  t.ok(mill.submit({ ...KERNEL, release: '6.1.0-3-c' }))
})

t.test('closed in the midst, it leaves nothing', async (t) => {
  const { mill, records, leftovers } = await open(t, (directory) => [packageOf(directory)])
  const { id } = mill.submit(KERNEL)!
  for await (const { packages } of mill.watch(id)) if (packages[0]?.stage === 'unpack') break
  await mill.close()
  t.match(mill.get(id), { state: 'failed', failure: { code: 'aborted' } })
  t.same(await records(), [])
  t.same(await leftovers(), [])
})

t.test('who watches may leave', async (t) => {
  const { mill } = await open(t, (directory) => [packageOf(directory)])
  const { id } = mill.submit(KERNEL)!
  const leave = new AbortController()
  const seen: string[] = []
  for await (const { state } of mill.watch(id, leave.signal)) {
    seen.push(state)
    leave.abort()
  }
  t.same(seen, ['searching'])
  t.match(await mill.done(id), { state: 'published' })
})
